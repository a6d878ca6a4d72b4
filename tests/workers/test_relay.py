"""What a worker saw reaches the node's observers as it was, in sum, and never at the cost of either."""

from __future__ import annotations

import asyncio
import inspect
import socket
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.events.fan_out import FanOut
from gateway.events.observer import EVENTS, Observer, RecordingObserver
from gateway.events.records import BatchRecord, CountsRecord, FlagMiss, RequestRecord, ShadowRecord
from gateway.messages import Decision, VersionRef
from gateway.workers.deaths import GATHER_S, Deaths
from gateway.workers.link import Link
from gateway.workers.records import LOCAL, pack_event, unpack_burst, unpack_event
from gateway.workers.relay import Relay
from gateway.workers.replay import Crash, Replay, Replays

THREE, FOUR = VersionRef("digits", 3), VersionRef("digits", 4)


def finished(route: str = "digits", *, answered_by: VersionRef | None = THREE, decided: bool = True) -> RequestRecord:
    decision = Decision(route, THREE, "split", 17, 5, 9, 1.5) if decided else None
    return RequestRecord(
        route,
        "request-ü",
        "decision",
        decision,
        answered_by,
        200,
        None,
        None,
        1,
        100.5,
        0.25,
        trace_id="t",
        sampled=True,
        batch=1 << 40,
        batch_rows=8,
    )


class Watching(RecordingObserver):
    """Also keeps what is in flight, waiting and cached, as the metrics would show it."""

    def __init__(self) -> None:
        super().__init__()
        self.inflight: dict[str, int] = {}
        self.waiting: dict[VersionRef, int] = {}
        self.cached: dict[str, int] = {}

    def request_started(self, route: str, count: int = 1) -> None:
        self.inflight[route] = self.inflight.get(route, 0) + count

    def request_finished(self, record: RequestRecord) -> None:
        super().request_finished(record)
        self.inflight[record.route] -= 1

    def requests_lost(self, route: str, count: int) -> None:
        self.inflight[route] -= count

    def queue_changed(self, version: VersionRef, rows: int) -> None:
        self.waiting[version] = rows

    def cache_changed(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        self.cached[route] = self.cached.get(route, 0) + held_bytes


class Wire(Link):
    """A link whose telemetry is kept here, or refused while ``full``."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        super().__init__(ours)
        self.bursts: list[bytes] = []
        self.full = False

    def offer(self, body: bytes) -> bool:
        if not self.full:
            self.bursts.append(body)
        return not self.full

    def close(self) -> None:
        super().close()
        self.theirs.close()


class Stage:
    def __init__(self) -> None:
        self.seen = Watching()
        self.crashes: list[Crash] = []
        self.replays = Replays(FanOut(self.seen), self.crashes.append, lambda _: None)
        self.pairs: list[tuple[Wire, Relay, Replay]] = []

    def worker(self) -> tuple[Relay, Replay]:
        link = Wire()
        relay, replay = Relay(link), Replay(self.replays)
        self.pairs.append((link, relay, replay))
        return relay, replay

    def carry(self) -> None:
        for link, relay, replay in self.pairs:
            relay.flush()
            for body in link.bursts:
                replay.take(body)
            link.bursts.clear()

    def close(self) -> None:
        for link, _, _ in self.pairs:
            link.close()


def test_every_event_is_relayed_or_the_nodes_own() -> None:
    """A new event needs a method in the relay, or a reason in ``LOCAL`` why the node tells it itself."""
    relayed = {name for name, member in vars(Relay).items() if inspect.isfunction(member)} & set(EVENTS)
    assert relayed | LOCAL == set(EVENTS)
    assert not relayed & LOCAL


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("fell_back", (Decision("digits", THREE, "split", None, 5), "VersionCrashed")),
        ("batch_finished", (BatchRecord(THREE, 8, 5, 0.002, (0.1, 0.2), None),)),
        ("version_crashed", (THREE, "hang", True)),
        ("request_rejected", ("digits", "queue-full")),
        ("shadow_compared", (ShadowRecord("digits", 2, 17, THREE, VersionRef("digits", 4), "differs", 3, 0.5),)),
    ],
)
def test_an_event_comes_out_as_it_went_in(name: str, args: Sequence[Any]) -> None:
    """Records within records too."""
    assert unpack_event(pack_event(name, tuple(args))) == (name, tuple(args))


async def test_requests_are_told_to_the_nodes_observers_as_they_were() -> None:
    """Also those that a fallback answered, or nobody; order and every field kept."""
    stage = Stage()
    relay, replay = stage.worker()
    records = [finished(), finished(answered_by=FOUR), finished(answered_by=None), finished("", decided=False)]
    for record in records[:3]:
        relay.request_started(record.route)
    relay.request_started("")
    for record in records:
        relay.requests_finished([record])
    stage.carry()
    assert stage.seen.requests == records
    assert replay.requests == 4
    assert set(stage.seen.inflight.values()) == {0}
    stage.close()


async def test_a_batch_is_told_before_the_requests_that_rode_in_it() -> None:
    """As it happened: who keeps a request's trace looks its batch up then, and forgets batches within a second."""
    stage = Stage()
    seen: list[str] = []

    class Noting(Observer):
        def batch_finished(self, record: BatchRecord) -> None:
            seen.append(f"batch {record.batch}")

        def requests_finished(self, records: Sequence[RequestRecord]) -> None:
            seen.extend(f"request of {record.batch}" for record in records)

    stage.replays.observer = Noting()
    relay, _ = stage.worker()
    for serial in (7, 8):
        relay.batch_finished(BatchRecord(THREE, 8, 5, 0.002, (0.1, 0.2), None, batch=serial))
        relay.requests_finished([finished()._replace(batch=serial)])
    stage.carry()
    assert seen == ["batch 7", "batch 8", "request of 7", "request of 8"]
    stage.close()


async def test_a_burst_of_another_program_is_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its worker is ended; what the node has counted stays as it was, and its observers stay."""
    stage = Stage()
    relay, replay = stage.worker()
    monkeypatch.setattr("gateway.workers.finished._FORM", "0.0.9 1")
    relay.request_started("digits")
    relay.requests_finished([finished()])
    relay.flush()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="of this program"):
        replay.take(stage.pairs[0][0].bursts[0])
    assert (stage.seen.inflight, stage.seen.requests, replay.requests) == ({}, [], 0)
    stage.close()


async def test_rows_that_wait_are_summed_over_workers_and_a_dead_ones_are_taken_off() -> None:
    """Two queues of one version are one gauge; requests in flight and caches of the dead go with it."""
    stage = Stage()
    (one, first), (two, _) = stage.worker(), stage.worker()
    for relay, rows in ((one, 5), (two, 3)):
        relay.queue_changed(THREE, rows)
        relay.request_started("digits")
        relay.cache_changed("digits", 1, 100, 0)
    stage.carry()
    assert (stage.seen.waiting[THREE], stage.seen.inflight["digits"], stage.seen.cached["digits"]) == (8, 2, 200)
    first.end()
    assert (stage.seen.waiting[THREE], stage.seen.inflight["digits"], stage.seen.cached["digits"]) == (3, 1, 100)
    stage.close()


async def test_what_the_node_does_not_read_is_dropped_counted_and_leaves_nothing_in_flight() -> None:
    """A request that began before and ended in what was lost, and one that began there, are both put right."""
    stage = Stage()
    relay, _ = stage.worker()
    link = stage.pairs[0][0]
    relay.request_started("digits")
    stage.carry()
    link.full = True
    relay.requests_finished([finished()])
    relay.request_started("digits")
    relay.request_started("digits")
    relay.flush()
    link.full = False
    relay.requests_finished([finished()])
    stage.carry()
    assert stage.replays.dropped == 1
    assert stage.seen.inflight["digits"] == 1
    stage.close()


async def test_what_went_well_waits_for_more_and_a_failure_takes_it_along() -> None:
    """The node acts upon failures, and wakes for each burst."""
    stage = Stage()
    relay, _ = stage.worker()
    link = stage.pairs[0][0]
    good, failed = finished(), finished(answered_by=None)._replace(code=500, chosen_failure="ModelError")
    relay.request_started("digits")
    relay.requests_finished([good, good])
    relay.requests_finished([good._replace(code=429, answered_by=None)])
    assert (link.bursts, repr(relay)) == ([], "<Relay [3 gathered | 0 dropped]>")
    relay.requests_finished([failed, good])
    assert (len(link.bursts), repr(relay)) == (1, "<Relay [0 gathered | 0 dropped]>")
    stage.carry()
    assert [record.code for record in stage.seen.requests] == [200, 200, 429, 500, 200]
    stage.close()


@pytest.mark.parametrize(
    ("hurried", "event"),
    [
        (True, lambda relay: relay.fell_back(Decision("digits", THREE, "split", None, 5), "VersionUnavailable")),
        (True, lambda relay: relay.flag_missed(FlagMiss("digits", "rule", "flag", "not-loaded", "digits", 3))),
        (False, lambda relay: relay.batch_finished(BatchRecord(THREE, 8, 5, 0.002, (0.1, 0.2), None))),
        (False, lambda relay: relay.request_rejected("digits", "queue-full")),
    ],
)
async def test_what_the_node_acts_upon_is_told_sooner(
    monkeypatch: pytest.MonkeyPatch, hurried: bool, event: Callable[[Relay], None]
) -> None:
    """A version at rest is woken by a request that needs it, though nothing of that request has failed yet."""
    monkeypatch.setattr("gateway.workers.relay.SOON_S", 0.0)
    monkeypatch.setattr("gateway.workers.relay.GATHER_S", 60.0)
    stage = Stage()
    relay, _ = stage.worker()
    relay.request_started("digits")
    for _ in range(2):
        event(relay)
    await asyncio.sleep(0.001)
    assert len(stage.pairs[0][0].bursts) == hurried
    relay.flush()
    stage.close()


async def test_what_is_to_be_told_sooner_never_puts_off_what_was_nearly_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """The burst that gathers already goes as it would have gone."""
    monkeypatch.setattr("gateway.workers.relay.SOON_S", 60.0)
    monkeypatch.setattr("gateway.workers.relay.GATHER_S", 0.0)
    stage = Stage()
    relay, _ = stage.worker()
    relay.request_started("digits")
    relay.fell_back(Decision("digits", THREE, "split", None, 5), "VersionUnavailable")
    await asyncio.sleep(0.001)
    assert len(stage.pairs[0][0].bursts) == 1
    stage.close()


async def test_the_first_good_batch_after_a_death_is_told_at_once() -> None:
    """The node forgives the death with it: until then another one would make who asks wait."""
    stage = Stage()
    relay, _ = stage.worker()
    bursts, good = stage.pairs[0][0].bursts, BatchRecord(THREE, 8, 5, 0.002, (0.1, 0.2), None)
    relay.batch_finished(good)
    assert bursts == []
    relay.version_crashed(THREE, "crash", False)
    assert len(bursts) == 1
    for record in (good._replace(failure="VersionCrashed"), good._replace(version=FOUR)):
        relay.batch_finished(record)
    assert len(bursts) == 1
    for _ in range(2):
        relay.batch_finished(good)
        assert len(bursts) == 2
    stage.close()


async def test_more_requests_than_the_node_takes_in_one_turn_are_told_at_once() -> None:
    """So that the node's loop has others in between."""
    stage = Stage()
    relay, _ = stage.worker()
    for _ in range(8):
        relay.requests_finished([finished()] * 256)
    assert len(stage.pairs[0][0].bursts) == 1
    stage.close()


def test_bytes_that_are_no_burst_are_refused() -> None:
    """Whatever they are, the node gets a ValueError and no half of a burst."""
    for body in (b"", b"nonsense", b"[", b"i\x01\x00\x00\x00"):
        with pytest.raises(ValueError, match="no burst"):
            unpack_burst(body)


class Dying(Observer):
    def __init__(self) -> None:
        self.told: list[tuple[VersionRef, str, bool]] = []

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        self.told.append((version, cause, isolating))


async def test_a_death_that_several_see_is_told_once_with_all_that_they_know() -> None:
    """The node sees it; one worker was seeking a bad request, another waited in vain."""
    clock, seen = ManualClock(), Dying()
    forgiven: list[VersionRef] = []
    deaths = Deaths(seen, clock, forgiven.append)
    deaths.heard(Crash(THREE, "hang", isolating=False))
    deaths.version_crashed(THREE, "crash", False)
    deaths.heard(Crash(THREE, "crash", isolating=True))
    deaths.heard(Crash(FOUR, "crash", isolating=True))
    clock.advance(GATHER_S * 1.01)
    await asyncio.sleep(0)
    assert seen.told == [(THREE, "hang", True)]
    assert forgiven == [THREE]


async def test_a_good_batch_of_a_worker_makes_up_for_a_death() -> None:
    """Once a death: the node's supervisor runs no batches that would tell it."""
    clock = ManualClock()
    forgiven: list[VersionRef] = []
    deaths = Deaths(Observer(), clock, forgiven.append)
    deaths.worked(THREE)
    deaths.version_crashed(THREE, "crash", False)
    deaths.worked(THREE)
    deaths.worked(THREE)
    assert forgiven == [THREE]


def test_what_a_child_counted_for_all_workers_is_passed_on() -> None:
    """It comes over the node's own line, and drift is judged by it."""
    seen: list[CountsRecord] = []

    class Counting(Observer):
        def counted(self, record: CountsRecord) -> None:
            seen.append(record)

    told = CountsRecord(THREE, "sha256:00", 3, 2, b"\x01" * 8)
    Deaths(Counting(), ManualClock(), lambda _: None).counted(told)
    assert seen == [told]
