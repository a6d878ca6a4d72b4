"""A route's response cache: bounded, counted truthfully, keyed by what the numbers are, emptied by version."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Array
from gateway.serving.answer_cache import (
    ARRAY_BYTES,
    ENTRY_BYTES,
    AnswerCache,
    Shelf,
    cost_of,
    key_of,
    read_only_copies,
    size_of,
)

FULL = 100_000


def outputs(value: float = 1.0, count: int = 3) -> dict[str, Array]:
    return {"y": np.full((1, count), value, np.float32)}


def texts(*values: bytes) -> dict[str, Array]:
    array = np.empty(len(values), object)
    array[:] = values
    return {"words": array}


def shelf_of(cache: AnswerCache, digest: str = "sha256:3") -> Shelf:
    shelf = cache.shelf(digest)
    assert shelf is not None
    return shelf


def filled(max_bytes: int = FULL, ttl_s: float | None = None, *digests: str) -> AnswerCache:
    cache = AnswerCache(max_bytes, ttl_s)
    cache.allow(digests or ("sha256:3",))
    return cache


def put(cache: AnswerCache, key: bytes, cost: int = 10_000, *, digest: str = "sha256:3", now: float = 0.0) -> int:
    return cache.put(shelf_of(cache, digest), key, read_only_copies(outputs()), cost, now)


def held(cache: AnswerCache, digest: str = "sha256:3") -> list[bytes]:
    return list(shelf_of(cache, digest).entries)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": np.zeros((2, 3), np.float32)}, {"x": np.zeros((3, 2), np.float32)}),
        ({"x": np.zeros(4, np.float32)}, {"x": np.zeros(4, np.int32)}),
        ({"x": np.zeros(4, np.float32)}, {"y": np.zeros(4, np.float32)}),
        ({"x": np.zeros(1, np.float32)}, {"x": np.array([-0.0], np.float32)}),
        ({"x": np.zeros(1), "y": np.ones(1)}, {"x": np.ones(1), "y": np.zeros(1)}),
        ({"x": np.zeros((0, 4))}, {"x": np.zeros((0, 5))}),
        (texts(b"ab", b"c"), texts(b"a", b"bc")),
        (texts(b"ab"), texts(b"a", b"b")),
        ({"x": np.zeros(5000, np.uint8)}, {"x": np.arange(5000) == 4999}),
        ({"x": np.zeros((5000, 1))}, {"x": np.zeros((1, 5000))}),
        ({"x": np.zeros(5000), "y": np.ones(5000)}, {"x": np.ones(5000), "y": np.zeros(5000)}),
        ({"x' <f4(1,)": np.zeros(1, np.float32)}, {"x": np.zeros(1, np.float32)}),
    ],
)
def test_inputs_that_differ_in_anything_have_different_keys(one: Any, other: Any) -> None:
    """Shape, type, name, sign of zero, where one text ends: a wrong hit would be a wrong answer."""
    assert key_of(one) != key_of(other)


def test_equal_inputs_have_one_key_however_they_lie_in_memory() -> None:
    """Order of the names, strides, who owns the memory."""
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert key_of({"x": rows}) == key_of({"x": np.asfortranarray(rows)})
    assert key_of({"x": rows[:, ::2]}) == key_of({"x": rows[:, ::2].copy()})
    assert key_of({"x": rows, "y": rows}) == key_of({"y": rows, "x": rows})
    assert key_of({"x": np.full((), 3.0)}) == key_of({"x": np.array(3.0)})
    assert key_of(texts(b"a", b"b")) == key_of(texts(b"a", b"b"))
    large = np.arange(20_000).reshape(100, 200)
    assert key_of({"x": large}) == key_of({"x": np.asfortranarray(large)}) != key_of({"x": large + 1})
    assert key_of({"x": large[:, ::2]}) == key_of({"x": large[:, ::2].copy()})
    assert size_of({"x": rows, **texts(b"abc", b"")}) == 51


def test_what_is_handed_out_cannot_be_changed_and_is_apart_from_the_batch() -> None:
    """One client's view must never reach into another's answer."""
    batch = np.arange(6, dtype=np.float32).reshape(2, 3)
    given_out = read_only_copies({"y": batch[:1]})
    batch[:] = -1
    assert given_out["y"].tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match="read-only"):
        given_out["y"][0, 0] = 5
    with pytest.raises(ValueError, match="WRITEABLE"):
        given_out["y"][:1].flags.writeable = True
    with pytest.raises(TypeError):
        given_out["y"] = batch  # type: ignore[index]


@pytest.mark.parametrize("width", [3, 1000])
@pytest.mark.parametrize("names", [("y",), ("label", "probabilities", "embedding")])
def test_the_bytes_that_are_counted_are_the_bytes_that_are_held(width: int, names: tuple[str, ...]) -> None:
    """Within a seventh of what the interpreter's own accounting says, for the smallest entries too."""
    count = 2000
    cache = filled(1 << 40)
    shelf = shelf_of(cache)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            fresh = {name: np.full((1, width), number, np.float32) for name in names}
            cache.put(shelf, key_of({"x": np.full(1, number)}), read_only_copies(fresh), cost_of(fresh), 0.0)
        del fresh
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.statistics().entries == count
    assert (after - before) == pytest.approx(cache.statistics().held_bytes, rel=1 / 7)


def test_texts_count_with_their_characters() -> None:
    """An object array's own bytes are only pointers."""
    assert cost_of(texts(b"a" * 5000)) > 5000 + ENTRY_BYTES + ARRAY_BYTES


def test_the_least_recently_used_answer_makes_room() -> None:
    """An answer that was asked for stays before one that was only kept."""
    cache = filled()
    for key in (b"1", b"2", b"3"):
        put(cache, key)
    assert cache.get(shelf_of(cache), b"1", 0.0) is not None
    for key in (b"4", b"5", b"6", b"7", b"8", b"9", b"a"):
        assert put(cache, key) == 0
    assert put(cache, b"b") == 1
    assert b"2" not in held(cache)
    assert b"1" in held(cache)
    assert repr(cache) == "<AnswerCache [1 versions | 10 entries | 100000 bytes]>"
    assert repr(shelf_of(cache)) == "<Shelf [open | 10 entries | 100000 bytes]>"
    assert cache.statistics().evicted == 1


def test_the_versions_of_a_route_share_one_bound_and_the_oldest_leaves_wherever_it_stands() -> None:
    """A version that gets no traffic any more gives its room to the one that does."""
    cache = filled(FULL, None, "sha256:3", "sha256:4")
    for number in range(10):
        put(cache, bytes([number]), digest="sha256:3")
    for number in range(10):
        assert put(cache, bytes([number]), digest="sha256:4") == 1
    assert held(cache, "sha256:3") == []
    assert len(held(cache, "sha256:4")) == 10


def test_an_answer_larger_than_an_eighth_of_the_bound_is_not_kept() -> None:
    """One giant must not drive out all others."""
    cache = filled()
    assert put(cache, b"1", FULL // 8) == 0
    assert put(cache, b"2", FULL // 8 + 1) == 0
    assert held(cache) == [b"1"]


def test_an_answer_put_twice_counts_once() -> None:
    """The newer one stays."""
    cache = filled()
    put(cache, b"1", 9_000)
    put(cache, b"1", 8_000)
    assert (cache.statistics().entries, cache.statistics().held_bytes) == (1, 8_000)


def test_an_answer_is_good_for_its_time_and_gives_its_room_back() -> None:
    """At the very end of its time it is gone, also when nobody asks for it again."""
    cache = filled(FULL, 5.0)
    put(cache, b"1", now=100.0)
    assert cache.get(shelf_of(cache), b"1", 104.9) is not None
    assert cache.get(shelf_of(cache), b"1", 105.0) is None
    assert cache.statistics().held_bytes == 0
    for key in (b"1", b"2", b"3"):
        put(cache, key, now=200.0)
    put(cache, b"4", now=205.0)
    assert held(cache) == [b"3", b"4"]


def test_a_version_that_is_not_allowed_any_more_takes_its_answers_with_it() -> None:
    """Also for those who still hold its shelf: what they put there later is kept nowhere."""
    cache = filled(FULL, None, "sha256:3", "sha256:4")
    put(cache, b"1", digest="sha256:3")
    put(cache, b"1", digest="sha256:4")
    old = shelf_of(cache, "sha256:3")
    cache.allow(["sha256:4"])
    assert cache.shelf("sha256:3") is None
    assert cache.put(old, b"2", outputs(), 10, 0.0) == 0
    assert (cache.statistics().entries, cache.statistics().held_bytes) == (1, 10_000)
    cache.allow(["sha256:4", "sha256:3"])
    assert held(cache, "sha256:3") == []


async def test_a_great_many_answers_are_freed_a_little_at_a_time() -> None:
    """A rollback must not stall the loop for as long as a million entries take."""
    cache = filled(1 << 40)
    for number in range(2000):
        put(cache, number.to_bytes(4, "big"), 100)
    entries = shelf_of(cache).entries
    cache.allow(())
    assert cache.statistics().held_bytes == 0
    left = [len(entries)]
    while entries:
        await asyncio.sleep(0)
        left.append(len(entries))
    assert left == [1488, 976, 464, 0]


STEPS = st.lists(
    st.tuples(st.sampled_from("pgx"), st.integers(0, 2), st.integers(0, 15), st.integers(1, 20_000)), max_size=80
)


@given(steps=STEPS)
def test_no_sequence_of_steps_passes_the_bound_or_loses_count(steps: list[tuple[str, int, int, int]]) -> None:
    """Against a model of one list in order of use: the same answers are held, in the same order, for the same bytes."""
    digests = ["a", "b", "c"]
    cache = filled(FULL, None, *digests)
    model: OrderedDict[tuple[str, bytes], int] = OrderedDict()
    for step, version, number, cost in steps:
        digest, key = digests[version], bytes([number])
        if step == "p":
            put(cache, key, cost, digest=digest)
            if cost <= FULL // 8:
                model.pop((digest, key), None)
                while sum(model.values()) + cost > FULL:
                    model.popitem(last=False)
                model[digest, key] = cost
        elif step == "g":
            found = cache.get(shelf_of(cache, digest), key, 0.0)
            assert (found is not None) == ((digest, key) in model)
            if found is not None:
                model.move_to_end((digest, key))
        else:
            cache.allow([other for other in digests if other != digest])
            cache.allow(digests)
            model = OrderedDict((place, size) for place, size in model.items() if place[0] != digest)
        assert cache.statistics().held_bytes == sum(model.values()) <= FULL
        for name in digests:
            assert held(cache, name) == [place[1] for place in model if place[0] == name]
