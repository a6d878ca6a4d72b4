"""Bursts: whatever a record holds arrives as it was, in order, joined or alone."""

from __future__ import annotations

import marshal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.records import Content, RequestRecord
from gateway.messages import Array, Arrays, Decision, VersionRef
from gateway.recording.arrived import unpack_burst
from gateway.recording.bursts import pack_burst
from gateway.recording.contents import digest_of

THREE, FOUR = VersionRef("digits", 3), VersionRef("digits", 4)

words = st.text(max_size=6)
seconds = st.floats(0, 10)
versions = st.sampled_from([THREE, FOUR, VersionRef("other", 1)])
flags = st.none() | st.tuples(words, st.none() | words, words)
decisions = st.none() | st.builds(
    Decision, words, versions, st.sampled_from(["split", "pin", "rule:x"]), st.none() | st.integers(0, 2**32 - 1),
    st.integers(0, 9), st.integers(0, 3), st.none() | seconds, flags, st.booleans(),
)  # fmt: skip


def tensors(rows: int, *, kind: str = "f4", width: int = 3) -> Array:
    return np.arange(rows * width).reshape(rows, width).astype(kind)


def contents(rows: int, width: int, *, kind: str, names: bool) -> Content:
    outputs: dict[str, Array] = {"label": tensors(rows, kind="i8", width=1)}
    if names:
        outputs["name"] = np.array([b"\xff%d" % row for row in range(rows)], dtype=object)
    return Content({"x": tensors(rows, kind=kind, width=width)}, outputs)


whole = st.builds(
    contents, st.integers(0, 4), st.sampled_from([3, 3, 3, 2]), kind=st.sampled_from(["f4", "f4", "f8"]),
    names=st.sampled_from([False, False, True]),
)  # fmt: skip
halves = st.sampled_from(
    [
        Content(),
        Content({"x": np.float32(1.0) * np.ones(())}, {}),
        Content({}, {}),
        Content({"x": tensors(1)}),
        Content(None, {"y": tensors(2)}, {"tenant": "a", "deep": [1, {"b": None}]}),
        Content(None, None, None, "ab", "cd"),
        Content(None, {"y": tensors(1)}, {"tenant": "a"}, "ab"),
        Content({"x": tensors(1)}, None, None, None, "cd"),
        Content({"x": tensors(2)}, {"y": tensors(2)}, {"tenant": "b"}, "ab"),
        Content({"other": tensors(2)}, {"label": tensors(2)}),
    ]
)
records = st.builds(
    RequestRecord,
    words, words, words, decisions, st.none() | versions, st.sampled_from([200, 429, 500]), st.none() | words,
    st.none() | words, st.integers(0, 5), seconds, seconds, seconds, seconds, st.booleans(), words, st.none() | words,
    st.none() | words, st.none() | words, st.none() | words, st.booleans(), st.integers(0, 2**60), st.integers(0, 9),
    st.none() | words, seconds, seconds, seconds, st.none() | whole | halves,
)  # fmt: skip


def plain(arrays: Arrays | None) -> object:
    if arrays is None:
        return None
    return {name: (array.dtype.str, array.shape, array.tolist()) for name, array in arrays.items()}


def spelled(record: RequestRecord) -> tuple[object, ...]:
    if record.content is None:
        return tuple(record)
    inputs, outputs, context, *digests = record.content
    return (*record._replace(content=None), plain(inputs), plain(outputs), context or None, *digests)


@given(st.lists(records, max_size=12))
def test_records_arrive_as_they_were(sent: list[RequestRecord]) -> None:
    """Whatever they hold, and however much of it is equal."""
    came = unpack_burst(pack_burst(sent))
    assert [spelled(record) for record in came] == [spelled(record) for record in sent]


@given(st.lists(records, max_size=12))
def test_a_bare_burst_holds_neither_keys_nor_contents(sent: list[RequestRecord]) -> None:
    """The node's observers need neither; only the recorder may see them."""
    came = unpack_burst(pack_burst(sent, bare=True))
    assert list(came) == [record._replace(key=None, content=None) for record in sent]


wide = st.builds(
    contents, st.integers(0, 3), st.sampled_from([3, 120, 120, 1_000, 2_000]), kind=st.sampled_from(["f4", "f4", "f8"]),
    names=st.sampled_from([False, False, True]),
)  # fmt: skip
routed = st.builds(
    lambda record, route, content: record._replace(route=route, content=content),
    records, st.sampled_from(["hashed", "hashed", "hashed", "seen"]), st.none() | wide | wide | halves,
)  # fmt: skip


@given(st.lists(routed, max_size=12))
def test_where_digests_do_they_arrive_in_the_place_of_tensors(sent: list[RequestRecord]) -> None:
    """Each is that of the tensors; those of other routes arrive as they were, and all else of any."""
    came = unpack_burst(pack_burst(sent, digests_alone=lambda route: route == "hashed"))
    assert [spelled(one._replace(content=None)) for one in came] == [
        spelled(one._replace(content=None)) for one in sent
    ]
    for before, after in zip(sent, came, strict=True):
        if before.route == "seen" or before.content is None or after.content is None:
            assert spelled(after) == spelled(before)
            continue
        assert (after.content.context or None) == (before.content.context or None)
        for side in (0, 1):
            arrays, digest = after.content[side], after.content[3 + side]
            given_arrays, given_digest = before.content[side], before.content[3 + side]
            if arrays is None and given_arrays is not None:
                assert digest == digest_of(given_arrays)
            else:
                assert (plain(arrays), digest) == (plain(given_arrays), given_digest)


@pytest.mark.parametrize(
    ("floats", "rows", "alone", "crosses"),
    [
        (128, 1, True, True),
        (129, 1, True, False),
        (2_000, 4, True, False),
        (2_000, 1, False, True),
        (70, 2, True, False),
    ],
)
def test_more_than_half_a_kilobyte_stays_where_its_digest_does(
    floats: int, rows: int, alone: bool, crosses: bool
) -> None:
    """Outputs, which are small, cross all the same; so do those of another version in the burst."""
    content = Content({"x": tensors(rows, width=floats)}, {"y": tensors(rows)})
    sent = [request(number, content) for number in range(5)]
    sent[2] = sent[2]._replace(decision=sent[2].decision and sent[2].decision._replace(version=FOUR))
    body = pack_burst(sent, digests_alone=lambda _route: alone)
    assert (len(body) > 5 * floats * 4) is crosses
    for record in unpack_burst(body):
        assert record.content is not None
        assert (record.content.inputs is not None) is crosses
        assert record.content.input_digest == (None if crosses else digest_of({"x": tensors(rows, width=floats)}))
        assert plain(record.content.outputs) == plain(content.outputs)


def request(number: int, content: Content | None = None) -> RequestRecord:
    decision = Decision("digits", THREE, "split", number, 7)
    return RequestRecord("digits", f"{number}", f"d{number}", decision, THREE, 200, None, None, 1, 1.0, 0.5)._replace(
        content=content
    )


def test_tensors_of_one_version_cross_as_one() -> None:
    """A hundred requests with tensors of 12 bytes cost little more than these bytes."""
    alone = len(pack_burst([request(number) for number in range(100)]))
    both = len(pack_burst([request(n, Content({"x": tensors(1)}, {"y": tensors(1)})) for n in range(100)]))
    assert both - alone < 100 * (12 + 12) + 1000


def test_equal_versions_arrive_as_one_object() -> None:
    """There are few of them and many requests."""
    came = unpack_burst(pack_burst([request(1), request(2)]))
    assert came[0].answered_by is came[1].answered_by
    assert came[0].decision is not None
    assert came[0].decision.version is came[0].answered_by


@pytest.mark.parametrize("body", [b"x", b"\0" * 9, marshal.dumps((1, [], [], None)), marshal.dumps((2, None, 3, 4))])
def test_what_is_no_burst_is_refused(body: bytes) -> None:
    """With one kind of error."""
    with pytest.raises(ValueError, match="no burst"):
        unpack_burst(body)
