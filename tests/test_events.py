"""Events: every one reaches every observer, and one that fails is dropped alone."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import pytest

from gateway.clock import ManualClock
from gateway.events.bursts import Burst
from gateway.events.fan_out import FULL_BURST, GATHER_S, FanOut
from gateway.events.observer import Observer, RecordingObserver
from gateway.events.records import (
    BatchRecord,
    CountsRecord,
    FlagMiss,
    FlagSource,
    RequestRecord,
    RollbackRecord,
    ShadowRecord,
)
from gateway.messages import Decision, VersionRef

REF = VersionRef("digits", 3)
DECISION = Decision("digits", REF, "split", 1, 7)
REQUEST = RequestRecord("digits", "r", "d", DECISION, REF, 200, None, None, 1, 0.0, 0.1)
BATCH = BatchRecord(REF, 1, 1, 0.1, (0.0,))
ROLLBACK = RollbackRecord("digits", "operator", 3, (4,), "", durable=True)
EVENTS: dict[str, tuple[object, ...]] = {
    "request_started": ("digits",),
    "request_finished": (REQUEST,),
    "requests_lost": ("digits", 3),
    "request_rejected": ("digits", "queue-full"),
    "fell_back": (DECISION, "ModelError"),
    "batch_finished": (BATCH,),
    "counted": (CountsRecord(VersionRef("digits", 4), "sha256:0", 10, 8, bytes(16)),),
    "shadow_compared": (ShadowRecord("digits", 1, 1, REF, VersionRef("digits", 4), "agrees", 1),),
    "queue_changed": (REF, 5),
    "version_state": (REF, "active", ""),
    "version_crashed": (REF, "hang", False),
    "version_retired": (REF,),
    "table_applied": (7,),
    "store_reachable": (True,),
    "rolled_back": (ROLLBACK,),
    "cache_asked": ("digits", "hit"),
    "cache_changed": ("digits", 3, 4096, 0),
    "flag_missed": (FlagMiss("digits", "beta", "new-model", "stale", "digits"),),
    "flag_source": (FlagSource("here", "flagd-file", "ready", 0.1),),
}


class Diary(Observer):
    """Writes down every event by name; fails at ``fail_at``."""

    def __init__(self, fail_at: str = "") -> None:
        self.seen: list[tuple[str, tuple[object, ...]]] = []
        self._fail_at = fail_at

    def __getattribute__(self, name: str) -> object:
        if name not in EVENTS:
            return super().__getattribute__(name)

        def write(*arguments: object) -> None:
            if name == self._fail_at:
                raise RuntimeError(f"no ink for {name}")
            self.seen.append((name, arguments))

        return write


def tell(observer: Observer, *events: str) -> None:
    for event in events or tuple(EVENTS):
        getattr(observer, event)(*EVENTS[event])


def test_the_events_here_are_all_there_are() -> None:
    """A new event needs a line in this file; the fan-out has it then."""
    methods = {name for name, member in vars(Observer).items() if inspect.isfunction(member)}
    assert methods == EVENTS.keys() | {"requests_finished"}
    assert methods <= vars(FanOut(Diary())).keys()


def test_an_observer_watches_only_what_it_overrides() -> None:
    """Every method is there and does nothing."""
    tell(Observer())


def test_every_event_reaches_every_observer_in_order() -> None:
    """With its arguments as they are."""
    one, other = Diary(), Diary()
    tell(FanOut(one, other))
    assert one.seen == other.seen == list(EVENTS.items())


@pytest.mark.parametrize("event", list(EVENTS))
def test_one_that_fails_is_logged_and_dropped_and_the_others_see_all(
    event: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Also in the very event in which it failed, whether they stand before or after it."""
    before, faulty, after = Diary(), Diary(fail_at=event), Diary()
    fan_out = FanOut(before, faulty, after)
    tell(fan_out)
    tell(fan_out)
    assert before.seen == after.seen == list(EVENTS.items()) * 2
    assert len(faulty.seen) == list(EVENTS).index(event)
    assert repr(fan_out) == "<FanOut [Diary, Diary]>"
    assert [record.message for record in caplog.records] == [f"observer Diary failed in {event} and is dropped"]


def test_dropping_one_of_two_equal_observers_drops_that_one() -> None:
    """By identity: equality is the observer's own business."""

    class Alike(Diary):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Alike)

        __hash__ = None  # type: ignore[assignment]

    good, faulty = Alike(), Alike(fail_at="table_applied")
    fan_out = FanOut(faulty, good)
    tell(fan_out, "table_applied", "table_applied")
    assert len(good.seen) == 2


class Bursts(Observer):
    """Takes finished requests in bursts, and fails at one longer than ``most``."""

    def __init__(self, most: int = FULL_BURST) -> None:
        self.sizes: list[int] = []
        self._most = most

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        if len(records) > self._most:
            raise RuntimeError("too many at once")
        self.sizes.append(len(records))


def test_finished_requests_gather_for_those_who_take_them_in_bursts() -> None:
    """For so long, or until there are so many; who wants each has it at once."""
    clock, bursts, each = ManualClock(), Bursts(), RecordingObserver()
    fan_out = FanOut(bursts, each, clock=clock)
    for _ in range(3):
        fan_out.request_finished(REQUEST)
    assert (bursts.sizes, len(each.requests), clock.waiting) == ([], 3, 1)
    clock.advance(GATHER_S)
    assert (bursts.sizes, clock.waiting) == ([3], 0)
    for _ in range(FULL_BURST + 2):
        fan_out.request_finished(REQUEST)
    assert bursts.sizes == [3, FULL_BURST]
    fan_out.flush()
    fan_out.flush()
    assert bursts.sizes == [3, FULL_BURST, 2]


def test_a_burst_that_comes_whole_is_told_to_everyone_at_once() -> None:
    """As the web workers' are."""
    bursts, each = Bursts(), RecordingObserver()
    FanOut(bursts, each, clock=ManualClock()).requests_finished([REQUEST, REQUEST])
    assert (bursts.sizes, len(each.requests)) == ([2], 2)


def test_without_a_clock_every_request_is_a_burst_of_its_own() -> None:
    """Nobody would end the wait for more."""
    bursts = Bursts()
    tell(FanOut(bursts), "request_finished", "request_finished")
    assert bursts.sizes == [1, 1]


def test_one_that_fails_at_a_burst_is_dropped_and_the_others_have_it(caplog: pytest.LogCaptureFixture) -> None:
    """And what gathers after that is told as before."""
    faulty, good = Bursts(most=1), Bursts()
    fan_out = FanOut(faulty, good, clock=ManualClock())
    for _ in range(2):
        tell(fan_out, "request_finished", "request_finished")
        fan_out.flush()
    assert (faulty.sizes, good.sizes) == ([], [2, 2])
    assert [record.message for record in caplog.records] == [
        "observer Bursts failed in requests_finished and is dropped"
    ]


def test_fanning_out_to_nobody_is_fine() -> None:
    """The null case of ``app``."""
    tell(FanOut())


def test_what_must_end_the_process_is_not_swallowed() -> None:
    """Only ``Exception`` is an observer's fault."""

    class Interrupted(Observer):
        def table_applied(self, revision: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FanOut(Interrupted()).table_applied(7)


def test_the_recording_observer_keeps_what_tests_ask_for() -> None:
    """Requests, batches, states, crashes, rollbacks, fallbacks, rejections and revisions."""
    recording = RecordingObserver()
    tell(recording)
    assert recording.requests == [REQUEST]
    assert recording.batches == [BATCH]
    assert recording.states == [(REF, "active", "")]
    assert recording.crashes == [(REF, "hang", False)]
    assert recording.rollbacks == [ROLLBACK]
    assert recording.fallbacks == [(DECISION, "ModelError")]
    assert recording.rejections == [("digits", "queue-full")]
    assert recording.revisions == [7]


def test_a_burst_sorts_out_what_went_well() -> None:
    """By route and version; what failed, fell back, is traced or was never decided stands apart."""
    other = VersionRef("digits", 4)
    odd = [
        REQUEST._replace(code=500, answered_by=None),
        REQUEST._replace(chosen_failure="ModelError", answered_by=other),
        REQUEST._replace(sampled=True),
        REQUEST._replace(decision=None, answered_by=None),
        REQUEST._replace(answered_by=other),
    ]
    second = REQUEST._replace(decision=DECISION._replace(version=other), answered_by=other, duration_s=0.3)
    burst = Burst([REQUEST, *odd, second, REQUEST])
    assert [(good.route, good.version, good.durations) for good in burst.good] == [
        ("digits", REF, [0.1, 0.1]),
        ("digits", other, [0.3]),
    ]
    assert burst.others == odd
    assert len(burst.others) + sum(len(good.records) for good in burst.good) == len(burst)
    assert Burst.of(burst) is burst
