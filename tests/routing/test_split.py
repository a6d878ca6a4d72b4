"""The split: published vectors, exact shares, and the two promises operators lean on."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.routing.assignment import SPACE, first
from gateway.routing.split import MAX_TOTAL, place_of
from gateway.routing.table import Arm

names = st.text(max_size=20)
keys = st.text(st.characters(), max_size=40)
weights = st.integers(0, 1000)


def chosen(route: str, key: str, arms: tuple[Arm, ...]) -> int:
    return first({arm.version: arm.weight for arm in arms}).at(place_of(route, key)).version


def by_the_formula(arms: tuple[Arm, ...], place: int) -> int:
    """flagd's ``fractional`` v2 as its specification writes it: scale the hash to the total, walk the weights."""
    bucket, reached = (place * sum(arm.weight for arm in arms)) >> 32, 0
    for arm in arms:
        reached += arm.weight
        if bucket < reached:
            return arm.version
    raise AssertionError("no arm has the bucket")


@pytest.mark.parametrize(("key", "suit"), [("jack", 3), ("queen", 4), ("ten", 1), ("nine", 2)])
def test_flagds_published_vectors_hold(key: str, suit: int) -> None:
    """Name ``fractional-flag``, arms clubs, diamonds, hearts, spades (1 to 4) at 25 each, as in flagd's testbed."""
    arms = tuple(Arm(version, 25) for version in (1, 2, 3, 4))
    assert chosen("fractional-flag", key, arms) == suit


@pytest.mark.parametrize(
    ("route", "key", "total", "bucket"),
    [("digits", "", 100, 76), ("digits", "user-1", 100, 46), ("digits", "Zoë", 2**31 - 1, 1878397856), ("", "", 9, 0)],
)
def test_the_scheme_is_frozen(route: str, key: str, total: int, bucket: int) -> None:
    """Every release gives a key the place that the first one gave it: turnout-split/1 never changes."""
    assert (place_of(route, key) * total) >> 32 == bucket


arms_of_any_weight = st.lists(st.integers(0, MAX_TOTAL // 64) | weights, min_size=1, max_size=64).filter(any)


@given(names, st.lists(keys, max_size=30), arms_of_any_weight)
def test_the_first_assignment_is_flagds_for_every_key(route: str, some: list[str], weighted: list[int]) -> None:
    """Random keys and arms against the formula of the specification, and both sides of every border."""
    arms = tuple(Arm(number, weight) for number, weight in enumerate(weighted))
    assignment = first(dict(enumerate(weighted)))
    borders = [place for end in assignment.ends for place in (end - 1, end) if place < SPACE]
    for place in [0, *borders, *(place_of(route, key) for key in some)]:
        assert assignment.at(place).version == by_the_formula(arms, place)


def test_the_hash_is_read_as_unsigned() -> None:
    """The places of many keys reach both ends of the range: a signed reading would leave half of it empty."""
    places = [place_of("digits", f"user-{number}") for number in range(5_000)]
    assert 0 <= min(places) < SPACE // 100
    assert SPACE // 100 * 99 < max(places) < SPACE


def test_100_000_keys_over_95_and_5_stay_within_three_sigma() -> None:
    """The share that a key population gets is the weight, up to chance."""
    arms = (Arm(1, 95), Arm(2, 5))
    minor = sum(chosen("digits", f"user-{number}", arms) == 2 for number in range(100_000))
    assert abs(minor - 5_000) <= 3 * math.sqrt(100_000 * 0.05 * 0.95)


@given(names, st.lists(keys, min_size=1, max_size=50), st.lists(weights, min_size=1, max_size=6), st.data())
def test_an_arm_of_weight_0_never_gets_a_key(route: str, some: list[str], rest: list[int], data: st.DataObject) -> None:
    """Zero means zero, wherever the arm stands."""
    place = data.draw(st.integers(0, len(rest)))
    arms = tuple(Arm(number, weight) for number, weight in enumerate([*rest[:place], 0, *rest[place:]]))
    if sum(rest) == 0:
        with pytest.raises(IndexError):
            chosen(route, some[0], arms)
        return
    assert all(chosen(route, key, arms) != place for key in some)


@given(names, st.lists(keys, min_size=1, max_size=50), st.integers(0, 100), st.integers(0, 100))
def test_raising_the_canary_beside_the_remainder_moves_no_key_back(
    route: str, some: list[str], one: int, other: int
) -> None:
    """Two arms, stable first: whoever has the canary at a small weight has it at every larger one."""
    low, high = sorted((one, other))
    before, after = (Arm(1, 100 - low), Arm(2, low)), (Arm(1, 100 - high), Arm(2, high))
    assert all(chosen(route, key, after) == 2 for key in some if chosen(route, key, before) == 2)


@given(
    names, st.lists(keys, min_size=1, max_size=50), st.lists(weights, max_size=4), st.tuples(weights, weights, weights)
)
def test_weight_moved_between_the_last_arm_and_its_neighbour_touches_nobody_else(
    route: str, some: list[str], rest: list[int], numbers: tuple[int, int, int]
) -> None:
    """Only keys of the neighbour change, and only to the last arm."""
    neighbour, last, moved = numbers[0], numbers[1], min(numbers[2], numbers[0])
    if sum(rest) + neighbour + last == 0:
        return
    first = tuple(Arm(number, weight) for number, weight in enumerate(rest))
    before = (*first, Arm(100, neighbour), Arm(101, last))
    after = (*first, Arm(100, neighbour - moved), Arm(101, last + moved))
    for key in some:
        was, now = chosen(route, key, before), chosen(route, key, after)
        assert was == now or (was, now) == (100, 101)


@given(names, keys)
def test_every_key_has_a_place_and_keeps_it(route: str, key: str) -> None:
    """Total and deterministic, for any text."""
    place = place_of(route, key)
    assert 0 <= place < SPACE
    assert place_of(route, key) == place


@pytest.mark.parametrize("key", ["\ud800", "a\udfffb", "\ud83d alone"])
def test_a_lone_surrogate_in_a_key_gets_a_place_like_any_text(key: str) -> None:
    """Such text has no UTF-8 form (and, handed to the hash as text, ends the process): its WTF-8 bytes are hashed."""
    assert 0 <= place_of("digits", key) < SPACE
    assert place_of("digits", key) == place_of("digits", key)
