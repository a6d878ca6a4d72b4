"""Finished requests on their way to the recorder: large tensors leave as digests, a burst at once, and none is lost."""

from __future__ import annotations

import json
import weakref
from collections.abc import Sequence

import numpy as np
import pytest

from gateway.events.records import Content, RequestRecord
from gateway.messages import Array, Arrays, VersionRef
from gateway.recording import bursts
from gateway.recording import sender as sending
from gateway.recording.arrived import unpack_burst
from gateway.recording.contents import bytes_of, digest_of
from gateway.recording.large import PORTION_BYTES, Portion, Wanted, content_policy, no_policy, portions, sorted_out
from gateway.recording.road import Road
from gateway.recording.sender import Sender
from gateway.routing.table import Recording, Route, RoutingTable
from gateway.routing.truth import Truth
from gateway.telemetry.decisions.scribe import Scribe
from tests.telemetry.records import decision, request

WIDTH = 50_000
TRUTH = Truth("classification", "y")


class Kept(Road):
    """Leads nowhere, and keeps what was offered."""

    def __init__(self) -> None:
        super().__init__(limit_bytes=2**40)
        self.bursts: list[list[RequestRecord]] = []

    def offer(self, body: bytes, records: int) -> bool:
        self.bursts.append(list(unpack_burst(body)))
        assert len(self.bursts[-1]) == records
        return super().offer(body, records)

    @property
    def records(self) -> list[RequestRecord]:
        return [record for burst in self.bursts for record in burst]


def image(value: float, width: int = WIDTH) -> Array:
    return np.full((1, width), value, np.float32)


def large(number: int, **changes: object) -> RequestRecord:
    content = Content({"x": image(number)}, {"y": image(number, 3)})
    return request(request_id=str(number), content=content)._replace(**changes)  # type: ignore[arg-type]


def small(number: int) -> RequestRecord:
    return request(request_id=str(number), content=Content({"x": image(number, 3)}, {"y": image(number, 3)}))


def told(records: Sequence[RequestRecord]) -> list[tuple[str, str | None]]:
    """Who, and the digest that its inputs came with."""
    return [(record.request_id, record.content and record.content.input_digest) for record in records]


def wanted(numbers: Sequence[int]) -> list[tuple[str, str | None]]:
    return [(str(number), digest_of({"x": image(number)})) for number in numbers]


async def test_large_ones_of_a_burst_leave_at_once_in_their_order() -> None:
    """One burst of them, whatever small ones there were among them, with what they were answered."""
    road = Kept()
    sender = Sender(road)
    sender.requests_finished([large(0), small(1), *map(large, range(2, 10)), small(10)])
    await sender.settle()
    assert told(road.bursts[0]) == [("1", None), ("10", None)]
    assert [told(burst) for burst in road.bursts[1:]] == [wanted([0, *range(2, 10)])]
    for record in road.bursts[1]:
        assert record.content is not None
        assert record.content.inputs is None
        assert record.content.outputs is not None
        np.testing.assert_array_equal(record.content.outputs["y"], image(float(record.request_id), 3))


async def test_many_large_ones_leave_in_portions() -> None:
    """A burst that a core would be busy with for long is parted, and stays in order."""
    road = Kept()
    sender = Sender(road)
    sender.requests_finished(list(map(large, range(100))))
    await sender.settle()
    most = PORTION_BYTES // (4 * (WIDTH + 3))
    assert [len(burst) for burst in road.bursts] == [most, most, 100 - 2 * most]
    assert told(road.records) == wanted(range(100))


def test_what_is_too_large_for_a_portion_is_one() -> None:
    huge = request(content=Content({"x": np.zeros(PORTION_BYTES + 1, np.uint8)}))
    found = portions(sorted_out([large(0), large(1), huge, large(2)], no_policy).large)
    assert [len(portion.left) for portion in found] == [2, 1, 1]


async def test_one_whose_digest_cannot_be_made_takes_no_other_with_it() -> None:
    """Of a type that the protocol has not: it arrives without, the others with theirs, nothing is awaited for ever."""
    road = Kept()
    sender = Sender(road)
    odd = large(4)._replace(content=Content({"x": image(4).astype(np.complex64)}, {"y": image(4, 3)}))
    sender.requests_finished([*map(large, range(4)), odd, *map(large, range(5, 9)), odd._replace(request_id="9")])
    await sender.settle()
    assert told(road.records) == [*wanted(range(4)), ("4", None), *wanted(range(5, 9)), ("9", None)]
    assert [len(burst) for burst in road.bursts] == [10]
    assert sender._pending_bytes == 0


@pytest.mark.parametrize("one", [small, large])
async def test_one_whose_content_cannot_cross_takes_no_other_content_with_it(
    one: object, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes without its content; what cannot cross at all is lost and counted."""
    made = small if one is small else large
    road = Kept()
    sender = Sender(road)
    odd = [made(number) for number in range(6)]
    odd[2] = odd[2]._replace(content=odd[2].content and odd[2].content._replace(context={"a": object()}))
    odd[4] = odd[4]._replace(error=object())  # type: ignore[arg-type]
    sender.requests_finished(odd)
    await sender.settle()
    assert [(record.request_id, record.content is not None) for record in road.records] == [
        ("0", True), ("1", True), ("2", False), ("3", True), ("5", True),
    ]  # fmt: skip
    assert road.statistics().lost == {"form": 1}
    assert "cannot be recorded" in caplog.text


async def test_settling_waits_until_all_is_on_the_road_and_more_may_come_after_it() -> None:
    """Also what a thread has not begun, and what it begins anew behind one that failed."""
    road = Kept()
    sender = Sender(road)
    odd = request(request_id="odd", content=Content({"x": image(1).astype(np.complex64)}))
    for first in range(0, 60, 20):
        sender.requests_finished([odd, *map(large, range(first, first + 20)), odd])
    assert road.records == []
    await sender.settle()
    assert sorted(told(road.records)) == sorted([*wanted(range(60)), *[("odd", None)] * 6])
    sender.requests_finished([large(60)])
    await sender.settle()
    assert told(road.bursts[-1]) == wanted([60])


async def test_what_waits_for_its_digest_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past that requests go on without, at once."""
    monkeypatch.setattr(sending, "_MOST_PENDING_BYTES", 2 * 4 * (WIDTH + 3))
    road = Kept()
    sender = Sender(road)
    sender.requests_finished([large(0), large(1)])
    sender.requests_finished([large(2), large(3)])
    assert told(road.records) == [("2", None), ("3", None)]
    await sender.settle()
    assert told(road.records[2:]) == wanted([0, 1])
    sender.requests_finished([large(4)])
    await sender.settle()
    assert told(road.records[4:]) == wanted([4])


async def test_one_that_is_larger_than_all_that_may_wait_has_its_digest_where_nothing_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It would have none for ever, however little there is to do."""
    monkeypatch.setattr(sending, "_MOST_PENDING_BYTES", 4 * WIDTH)
    road = Kept()
    sender = Sender(road)
    sender.requests_finished([large(0)])
    assert repr(sender) == f"<Sender [1 hashing | {4 * (WIDTH + 3)} bytes]>"
    sender.requests_finished([large(1)])
    assert told(road.records) == [("1", None)]
    await sender.settle()
    assert told(road.records[1:]) == wanted([0])
    assert repr(sender) == "<Sender [0 hashing | 0 bytes]>"


@pytest.mark.parametrize(("asked", "answered"), [(300_000, 100_000), (100_000, 300_000), (300_000, 20), (100_000, 20)])
async def test_a_payload_is_kept_by_each_side_alone(asked: int, answered: int) -> None:
    """An answer of 400 KB does not go because the image that was asked about has 1.2 MB, nor the other way round."""
    road = Kept()
    sender = Sender(road, lambda _route: Wanted(payload=True))
    sender.requests_finished([large(0, content=Content({"x": image(1, asked)}, {"y": image(2, answered)}))])
    await sender.settle()
    [record] = road.records
    assert record.content is not None
    inputs, outputs, _, input_digest, output_digest = record.content
    assert (inputs is None, outputs is None) == (asked == 300_000, answered == 300_000)
    assert input_digest == (digest_of({"x": image(1, asked)}) if inputs is None else None)
    assert output_digest == (digest_of({"y": image(2, answered)}) if outputs is None else None)


async def test_a_digest_that_came_with_a_request_stays_beside_one_that_is_made() -> None:
    """Of the other side."""
    road = Kept()
    sender = Sender(road)
    sender.requests_finished([large(0, content=Content(None, {"y": image(0)}, None, "ab" * 32))])
    await sender.settle()
    assert road.records[0].content == Content(None, None, None, "ab" * 32, digest_of({"y": image(0)}))


def test_tensors_are_let_go_of_as_soon_as_their_digest_is_made() -> None:
    """Not with the last of their portion."""
    odd = request(content=Content({"x": image(1).astype(np.complex64)}))
    records = [large(0), large(1), odd, large(3)]
    held = [weakref.ref(record.content.inputs["x"]) for record in records if record.content and record.content.inputs]
    portion = Portion(sorted_out(records, no_policy).large)
    records.clear()
    del odd
    with pytest.raises(ValueError, match="complex64"):
        portion.work()
    assert [one() is None for one in held] == [True, True, False, False]
    assert repr(portion) == "<Portion [2 made | 2 left]>"
    portion.pass_over()
    portion.work()
    assert [one() is None for one in held] == [True] * 4
    assert told(portion.made)[2:] == [(portion.made[2].request_id, None), wanted([3])[0]]


@pytest.mark.parametrize(
    ("route", "wanted"),
    [
        (Route("r", "m", ()), Wanted()),
        (Route("r", "m", (), recording=Recording()), Wanted()),
        (Route("r", "m", (), recording=Recording("payload")), Wanted(payload=True)),
        (Route("r", "m", (), recording=Recording(redact=frozenset({"x"}))), Wanted(redact=frozenset({"x"}))),
        (Route("r", "m", (), recording=Recording(), truth=TRUTH), Wanted(compared=True)),
        (Route("r", "m", (), truth=TRUTH), Wanted(compared=True)),
    ],
)
async def test_tensors_that_the_recorder_has_to_see_are_sent(route: Route, wanted: Wanted) -> None:
    """As a payload, to be compared with labels, or to be told which were left out; of the others their digests, though
    they are not large."""
    policy = content_policy(RoutingTable({"r": route}, "r", 1), "r")
    assert policy == wanted
    road = Kept()
    sender = Sender(road, lambda _route: policy)
    sender.requests_finished([large(n, content=Content({"x": image(n, 500)}, {"y": image(n, 3)})) for n in range(3)])
    for record in road.records:
        assert record.content is not None
        assert (record.content.inputs is None) is (wanted == Wanted())
        assert record.content.input_digest in (None, digest_of({"x": image(int(record.request_id), 500)}))
    assert len(road.records) == 3


@pytest.mark.parametrize("recorded", ["digest", "payload"])
@pytest.mark.parametrize("redact", [{"x"}, {"x", "y"}, {"big", "nobody's"}, {"nobody's"}])
async def test_a_record_lists_what_was_left_out_also_of_a_set_that_came_as_its_digest(
    recorded: str, redact: set[str]
) -> None:
    """As it does of a small one. Of what these tensors say nothing leaves the process."""
    inputs = {"big": image(1, 300_000), "x": np.array([b"olga"], object)}
    outputs = {"y": image(2, 3)}
    road = Kept()
    sender = Sender(road, lambda _route: Wanted(recorded == "payload", redact=frozenset(redact)))
    sender.requests_finished([large(n, content=Content(inputs, outputs, {"tenant": "a"})) for n in range(3)])
    await sender.settle()
    scribe = Scribe(str)
    scribe.heard(
        {"routes": {"digits": {"decisions": {"content": recorded, "redact": sorted(redact), "refuse": False}}}}
    )
    assert len(road.records) == 3
    for record in road.records:
        written = scribe.record_of(record)
        assert written is not None
        assert written["redacted"] == (sorted(redact & {"big", "x", "y"}) or None)
        assert (written["inputs"], written["outputs"]) == (digest_of(inputs, redact), digest_of(outputs, redact))
        if recorded == "payload":
            assert json.loads(str(written["payload"])).keys() == {"outputs"}
        assert record.content is not None
        assert record.content.context == {"tenant": "a"}
        assert not any(array.size for array in (record.content.inputs or {}).values())


def test_a_route_that_is_gone_wants_digests() -> None:
    """A burst tells of it after the table has changed."""
    assert content_policy(RoutingTable({}, None, 1), "r") == Wanted()


@pytest.mark.parametrize("widths", [[15_000], [200, 3_000_000, 200, 3_000_000], [3000]])
async def test_what_would_take_long_to_hash_is_not_hashed_in_passing(
    widths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """256 with 60 KB each took 6 ms, and one of 12 MB behind a small one 3; every digest is made, and the answers, of a
    few bytes, are sent."""
    here: list[int] = []
    plain = bursts.digests_of

    def digests_of(sets: Sequence[Arrays]) -> tuple[str, ...]:
        here.append(sum(map(bytes_of, sets)))
        return plain(sets)

    monkeypatch.setattr(bursts, "digests_of", digests_of)
    road = Kept()
    sender = Sender(road)
    many = 256 // len(widths) if max(widths) < 100_000 else 1
    inputs = [{"x": image(place, width)} for place, width in enumerate(widths * many)]
    sender.requests_finished([large(n, content=Content(asked, {"y": image(n, 3)})) for n, asked in enumerate(inputs)])
    await sender.settle()
    assert here == []
    found = sorted((int(record.request_id), record.content) for record in road.records)
    assert len(found) == len(inputs)
    for (number, content), asked in zip(found, inputs, strict=True):
        assert content is not None
        assert content.inputs is None
        assert content.input_digest == digest_of(asked)
        assert content.outputs is not None
        np.testing.assert_array_equal(content.outputs["y"], image(number, 3))


@pytest.mark.parametrize("by", ["version", "side"])
async def test_a_burst_of_many_versions_is_not_hashed_in_passing_for_longer_than_one(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one whose outputs are large, too: 256 requests of 16 versions, with 60 KB each, held the loop for 5.7 ms, and
    those of one for 0.9. Every digest is made."""
    here: list[int] = []
    plain = bursts.digests_of

    def digests_of(sets: Sequence[Arrays]) -> tuple[str, ...]:
        here.append(sum(map(bytes_of, sets)))
        return plain(sets)

    monkeypatch.setattr(bursts, "digests_of", digests_of)
    records = []
    for number in range(160):
        one = large(number, content=Content({"x": image(number, 15_000)}, {"y": image(number, 3)}))
        of = VersionRef("m", number % 16) if by == "version" else VersionRef("m", 1)
        if by == "side":
            one = one._replace(content=Content({"x": image(number, 1_500)}, {"y": image(number, 1_500)}))
        records.append(one._replace(decision=decision(version=of), answered_by=of))
    road = Kept()
    sender = Sender(road)
    sender.requests_finished(records)
    await sender.settle()
    assert sum(here) <= 2**20
    found = sorted((int(record.request_id), record.content and record.content.input_digest) for record in road.records)
    assert found == [
        (number, digest_of(record.content.inputs))
        for number, record in enumerate(records)
        if record.content and record.content.inputs
    ]


async def test_what_is_hashed_soon_is_hashed_in_passing() -> None:
    """And is on the road at once."""
    road = Kept()
    Sender(road).requests_finished(
        [large(n, content=Content({"x": image(n, 15_000)}, {"y": image(n, 3)})) for n in range(10)]
    )
    assert told(road.records) == [(str(n), digest_of({"x": image(n, 15_000)})) for n in range(10)]


async def test_tensors_in_fortrans_order_are_recorded_like_others() -> None:
    """A model's output is one where it was transposed; alone in its burst, and with others."""
    wide = np.arange(12, dtype=np.float32).reshape(4, 3)
    road = Kept()
    for count in (1, 3):
        Sender(road).requests_finished([request(content=Content({"x": wide}, {"y": wide.T})) for _ in range(count)])
    assert len(road.records) == 4
    for record in road.records:
        assert record.content is not None
        assert record.content.outputs is not None
        np.testing.assert_array_equal(record.content.outputs["y"], wide.T)
