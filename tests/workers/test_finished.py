"""Finished requests reach the node as sums, in their order, and as records only where somebody asks for one."""

from __future__ import annotations

import marshal
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.events.bursts import Burst, Finished
from gateway.events.records import RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.recording import arrived
from gateway.telemetry.tracing.keeping import SLOW, Keeping
from gateway.workers.finished import Relayed, pack_finished

THREE, FOUR = VersionRef("digits", 3), VersionRef("digits", 4)


def finished(
    number: int, version: VersionRef = THREE, *, code: int = 200, sampled: bool = False, route: str = "digits"
) -> RequestRecord:
    decision = None if code == 404 else Decision(route, version, "split", 17, 5)
    failure = "ModelError" if code == 500 else None
    return RequestRecord(
        route,
        f"request-{number}",
        "decision",
        decision,
        version if code == 200 else None,
        code,
        failure,
        failure,
        number % 3 + 1,
        100.0 + number,
        number / 64,
        queue_s=number / 128,
        slow=number % 4 == 0,
        sampled=sampled,
        trace_id=f"trace-{number}",
    )


def carried(records: Sequence[RequestRecord]) -> Relayed:
    return Relayed(marshal.loads(marshal.dumps(tuple(pack_finished(Burst(records))), 2)))  # noqa: S302 - our own


def summed(burst: Finished) -> list[tuple[object, ...]]:
    return [
        (
            good.route,
            good.version,
            len(good),
            list(good.durations),
            good.rows,
            good.queue_s,
            list(good.slow),
            good.ended_wall,
        )
        for good in burst.good
    ]


@st.composite
def bursts(draw: st.DrawFn) -> list[RequestRecord]:
    kinds = st.tuples(
        st.sampled_from([THREE, FOUR]),
        st.sampled_from([200, 200, 200, 404, 429, 500]),
        st.booleans(),
        st.sampled_from(["digits", "other"]),
    )
    return [
        finished(number, version, code=code, sampled=sampled, route=route)
        for number, (version, code, sampled, route) in enumerate(draw(st.lists(kinds, min_size=1, max_size=12)))
    ]


@given(bursts())
def test_a_burst_says_at_the_node_what_it_would_have_said_in_the_worker(records: list[RequestRecord]) -> None:
    """Whatever is in it: the sums of each route and version, who is in none of them, all in the order of their end."""
    here, there = Burst(records), carried(records)
    assert list(there) == records
    assert summed(there) == summed(here)
    assert [list(good.records) for good in there.good] == [list(good.records) for good in here.good]
    assert list(there.others) == list(here.others)
    assert there.ended == {route: sum(r.route == route for r in records) for route in {r.route for r in records}}
    assert Burst.of(there) is there


def test_no_record_is_made_of_a_burst_that_went_well_unless_somebody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To make them cost the node more than all that it does with them."""
    made: list[int] = []

    def unpacked(body: bytes) -> Sequence[RequestRecord]:
        made.append(len(body))
        return unpack(body)

    unpack = arrived.unpack_burst
    monkeypatch.setattr(arrived, "unpack_burst", unpacked)
    burst = carried([finished(number, (THREE, FOUR)[number % 2]) for number in range(8)])
    assert (len(burst), len(burst.others), list(burst.others)) == (8, 0, [])
    assert [len(good.records) for good in burst.good] == [4, 4]
    assert len(summed(burst)) == 2
    assert made == []
    assert burst.good[1].records[0] == finished(1, FOUR)
    assert burst[0] == finished(0)
    assert len(made) == 1


def test_who_chooses_traces_has_no_record_made_of_a_request_that_it_does_not_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of every burst some request is among the slowest hundredth; few of these are kept."""
    made: list[int] = []

    def unpacked(body: bytes) -> Sequence[RequestRecord]:
        made.append(len(body))
        return unpack(body)

    unpack = arrived.unpack_burst
    monkeypatch.setattr(arrived, "unpack_burst", unpacked)
    keeping = Keeping(0.2)  # one in five seconds
    usual = [finished(1)._replace(duration_s=0.001)] * 100
    for burst in ([finished(1)._replace(duration_s=0.01)] * 200, usual):
        assert keeping.choose(carried(burst), 0.0) == []
    assert made == []
    slow = finished(2)._replace(duration_s=9.0)
    assert keeping.choose(carried([*usual, slow]), 0.0) == [(slow, SLOW)]
    assert len(made) == 1
    assert keeping.choose(carried([*usual, slow]), 0.0) == []
    assert (len(made), keeping.suppressed) == (1, 1)


def test_what_is_no_burst_of_requests_is_refused() -> None:
    """And one whose numbers do not agree with each other."""
    good = pack_finished(Burst([finished(1), finished(2)]))
    form = good.form
    [(*sums, _)] = good.good
    nowhere = good._replace(good=[(*sums, 7)])
    short: tuple[object, ...] = (form, 2, {}, [(1,)], [], b"")
    for packed in ((), (1, 2, 3), short, nowhere, good._replace(requests=3), good._replace(ended={})):
        with pytest.raises(ValueError, match="no burst of requests"):
            Relayed(packed)


def test_a_burst_of_another_program_is_refused_before_anybody_looks_into_it() -> None:
    """A worker that starts again after the program was replaced on the disk has other columns: who asked for a record
    later would raise, and no observer that raises is told of anything again."""
    with pytest.raises(ValueError, match=r"no burst of requests of this program: it is of '0\.0\.9 1'"):
        Relayed(pack_finished(Burst([finished(1)]))._replace(form="0.0.9 1"))
