"""What happened, told to whoever watches. Observers never touch the work: one that fails is logged and dropped.

Domain code holds one ``Observer``; ``app`` gives it a ``FanOut``. Methods are called on the
event loop and must return at once; what they keep of a record they copy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from gateway.clock import Clock, Timer
from gateway.messages import Arrays, Decision, VersionRef

__all__ = [
    "SHADOW_OUTCOMES",
    "BatchRecord",
    "Burst",
    "Content",
    "CountsRecord",
    "FanOut",
    "FlagMiss",
    "FlagSource",
    "Good",
    "Observer",
    "RecordingObserver",
    "RequestRecord",
    "RollbackRecord",
    "ShadowRecord",
]

log = logging.getLogger("turnout.events")

GATHER_S = 0.02
"""How long finished requests gather before those are told who take them in bursts."""

FULL_BURST = 256


class Content(NamedTuple):
    """What a request asked and what it was answered, for routes that want it kept (None: nothing, or not wanted).

    The arrays are the request's own, and are not written to again. ``context`` is the client's, plain JSON. A digest
    (``gateway.recording.contents.digest_of``) is there, and its arrays are not, where they were too large to be handed
    on as they are; where arrays are, whoever wants their digest makes it.
    """

    inputs: Arrays | None = None
    outputs: Arrays | None = None
    context: Mapping[str, Any] | None = None
    input_digest: str | None = None
    output_digest: str | None = None


class RequestRecord(NamedTuple):
    """One finished request, whatever became of it.

    ``decision`` is None when none was taken (bad envelope, unknown route). ``chosen_failure``
    is the class name of the VersionFailed that the *chosen* version met, also when a
    fallback then answered; ``answered_by`` is the version whose outputs were returned.
    ``code`` is the HTTP status. Times are seconds; ``started_wall`` since the epoch; ``queue_s`` of
    a request that missed its deadline is all the time that the version had for it, which a client that was slow to
    send may have left very short. ``sampled``:
    the trace is kept, so a span is worth making. ``batch`` is the serial number of the batch that answered, over all
    versions and web workers of a gateway (0: the answer was kept, or there was none), and ``batch_rows`` the rows
    computed together in ``compute_s``.

    ``key`` is the routing key as it was given: only the recorder sees it, and keeps a keyed hash. ``decode_s``,
    ``decide_s`` and ``encode_s`` are what the request's other stages took; 0 where one was not measured.
    ``trace_state`` is the caller's ``tracestate``, passed on.
    """

    route: str
    request_id: str
    decision_id: str
    decision: Decision | None
    answered_by: VersionRef | None
    code: int
    chosen_failure: str | None
    error: str | None
    rows: int
    started_wall: float
    duration_s: float
    queue_s: float = 0.0
    compute_s: float = 0.0
    slow: bool = False
    protocol: str = "predict"
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    client_id: str | None = None
    sampled: bool = False
    batch: int = 0
    batch_rows: int = 0
    key: str | None = None
    decode_s: float = 0.0
    decide_s: float = 0.0
    encode_s: float = 0.0
    content: Content | None = None
    trace_state: str = ""


class Good(NamedTuple):
    """Requests of a burst that went well, on one route by one version; and what each took."""

    route: str
    version: VersionRef
    records: list[RequestRecord]
    durations: list[float]


class Burst(list[RequestRecord]):
    """Finished requests. Most of them went well, and for most observers these differ in little: they are sorted out
    once for all."""

    @classmethod
    def of(cls, records: Sequence[RequestRecord]) -> Burst:
        return records if isinstance(records, cls) else cls(records)

    @cached_property
    def good(self) -> list[Good]:
        """Those with an answer from the very version that was chosen for them, which failed in nothing, and no trace
        that is kept."""
        return self._sorted[0]

    @cached_property
    def others(self) -> list[RequestRecord]:
        return self._sorted[1]

    @cached_property
    def _sorted(self) -> tuple[list[Good], list[RequestRecord]]:
        # By what the version and the route's name are, not by what they say, which takes three times as long; equal
        # ones are mostly the same object, and where they are not, there are two groups.
        groups: dict[int, Good] = {}
        others = []
        for record in self:
            decision = record.decision
            if decision is None or record.code != 200 or record.chosen_failure is not None or record.sampled:
                others.append(record)
                continue
            route, version = decision.route, decision.version
            group = groups.get(id(version))
            if group is None:
                group = groups[id(version)] = Good(route, version, [], [])
            if group.route is not route or record.answered_by is not version:
                others.append(record)
            else:
                group.records.append(record)
                group.durations.append(record.duration_s)
        return [group for group in groups.values() if group.records], others


class BatchRecord(NamedTuple):
    """One batch that ran. ``waits_s`` holds each item's time in the queue; ``failure`` the error's class name.

    ``batch`` is its serial number, as its requests have it. It was back at ``ended_wall`` (seconds since the epoch),
    ``took_s`` after it was handed over, for the reason ``release``: ``idle`` (its engine was), ``full`` or ``ending``
    (behind one that ran, and was about to end), ``again`` (one like it had failed). ``limit``: rows it might have had,
    0 where rows have no limit; ``ran_rows``: rows computed together, more than its own where the child ran batches of
    several gateways as one, and ``padded_rows`` of zeros that its device added. ``engine`` is the version's placement,
    ``instance`` counts its engines from 0.
    """

    version: VersionRef
    rows: int
    items: int
    compute_s: float
    waits_s: tuple[float, ...]
    failure: str | None = None
    batch: int = 0
    ended_wall: float = 0.0
    took_s: float = 0.0
    release: str = ""
    limit: int = 0
    ran_rows: int = 0
    padded_rows: int = 0
    engine: str = ""
    instance: int = 0
    device: str = ""


class CountsRecord(NamedTuple):
    """What a version was given and answered lately, in the frozen bins of a profile: sums that add up in any order.

    ``profile`` is the digest of the profile that was counted with: the version's own, or another that it is compared
    with. ``seen`` rows ran since the record before, ``counted`` of them were counted: fewer when it was busy.
    ``counts`` holds 64-bit little-endian integers in the plan's order (``runtimes.counting``), nothing if no row was
    counted. A process that dies takes what it had counted since its last record along, of a second at most.
    """

    version: VersionRef
    profile: str
    seen: int
    counted: int
    counts: bytes


SHADOW_OUTCOMES = ("agrees", "differs", "failed", "dropped")


class ShadowRecord(NamedTuple):
    """What became of a request's copy for a shadow: one of ``SHADOW_OUTCOMES``.

    ``answered`` is the version whose answer the client got, also when it was a fallback; ``epoch`` and ``bucket`` are
    the decision's. ``failed``: the shadow gave no answer to compare, by its own fault; ``dropped``: there was no
    capacity to spare for it, or its version is not here. ``difference`` is the largest one found between two numbers
    of the outputs (infinite where one of them is none); 0 where none was found, or none was comparable.

    ``trace`` is the ``traceparent`` of the request. Of a copy that was answered: ``batch``, ``queue_s`` and
    ``compute_s`` as a request has them, and ``ended_wall``, seconds since the epoch. ``decision_id`` is the request's.
    """

    route: str
    epoch: int
    bucket: int | None
    answered: VersionRef
    shadow: VersionRef
    outcome: str
    rows: int
    difference: float = 0.0
    trace: str | None = None
    batch: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    ended_wall: float = 0.0
    decision_id: str | None = None


class FlagSource(NamedTuple):
    """How a process's provider of flags stands. ``state`` is ``absent``, ``starting``, ``ready``, ``stale``, ``error``
    or ``fenced`` (too slow, so not asked); ``age_s`` of its data, None when there is none to go by."""

    source: str
    provider: str
    state: str
    age_s: float | None
    reason: str = ""


class FlagMiss(NamedTuple):
    """A rule that names a flag could not do what the flag says. ``cause``: ``not-ready``, ``stale``, ``error``,
    ``not-found``, ``type``, ``context``, ``no-version``, ``not-named``, ``quarantined`` or ``not-loaded``."""

    route: str
    rule: str
    flag: str
    cause: str
    model: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class RollbackRecord:
    """A route went back. ``trigger`` is ``operator`` or the guard's rule; ``durable`` whether the store has it."""

    route: str
    trigger: str
    target: int
    quarantined: tuple[int, ...]
    reason: str
    durable: bool


class Observer:
    """One no-op method an event. Subclass and override what you watch."""

    def request_started(self, route: str) -> None:
        """A known route took a request."""

    def request_finished(self, record: RequestRecord) -> None:
        """The answer, or the error, has been decided. For those who need each at once."""

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        """The same records in bursts, each once: for all others (``Burst.of`` sorts them). Who tells of requests tells
        of them in one of the two ways; a ``FanOut`` sees to the other."""

    def requests_lost(self, route: str, count: int) -> None:
        """Requests that had started end without a record: the process that had them is gone."""

    def request_rejected(self, route: str, reason: str) -> None:
        """Refused at the door: ``queue-full``, ``deadline``, ``rate-limit``, ``draining``, ``decision-log-full``."""

    def fell_back(self, decision: Decision, cause: str) -> None:
        """The chosen version failed (``cause``: class name of the failure); the fallback is asked."""

    def batch_finished(self, record: BatchRecord) -> None:
        """A batch came back from its engine, or failed there."""

    def counted(self, record: CountsRecord) -> None:
        """Rows that a version ran were counted in a profile's bins; told about once a second while there is work."""

    def shadow_compared(self, record: ShadowRecord) -> None:
        """A copy of a request has been answered by a shadow, after its client was, or came to nothing."""

    def queue_changed(self, version: VersionRef, rows: int) -> None:
        """Rows waiting for a version, after a batch was formed or an item left."""

    def version_state(self, version: VersionRef, state: str, reason: str) -> None:
        """A version entered a state of its life (``gateway.serving.handle.VersionState`` values)."""

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        """A child died: ``crash``, ``hang`` or ``load``. ``isolating``: while one bad request was being found."""

    def version_retired(self, version: VersionRef) -> None:
        """Nothing of the version is left here; its series may go."""

    def table_applied(self, revision: int) -> None:
        """A new routing table is in force."""

    def store_reachable(self, up: bool) -> None:
        """The store of desired state answers, or no longer does."""

    def rolled_back(self, record: RollbackRecord) -> None:
        """A route went back to a known good, by hand or by the guard."""

    def cache_asked(self, route: str, outcome: str) -> None:
        """A request of a route with a response cache: ``hit``, ``miss``, ``joined`` (it shared the answer of an equal
        request under way) or ``bypass``."""

    def cache_changed(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        """Answers that a route's response cache has taken in (negative: given up), and how many made room for others.
        Changes, so that those of several processes add up."""

    def flag_missed(self, record: FlagMiss) -> None:
        """A flag rule sent its request to the known good, or did not match, for a cause that is none of the flag's."""

    def flag_source(self, record: FlagSource) -> None:
        """How the provider of flags stands in a web worker; told again and again."""


EVENTS = tuple(name for name in vars(Observer) if not name.startswith("_"))


class RecordingObserver(Observer):
    """Keeps requests, batches, states, crashes and rollbacks in lists. Shipped for tests."""

    def __init__(self) -> None:
        self.requests: list[RequestRecord] = []
        self.batches: list[BatchRecord] = []
        self.states: list[tuple[VersionRef, str, str]] = []
        self.crashes: list[tuple[VersionRef, str, bool]] = []
        self.rollbacks: list[RollbackRecord] = []
        self.fallbacks: list[tuple[Decision, str]] = []
        self.rejections: list[tuple[str, str]] = []
        self.revisions: list[int] = []
        self.cache_outcomes: list[tuple[str, str]] = []
        self.flag_misses: list[FlagMiss] = []
        self.shadows: list[ShadowRecord] = []
        self.counts: list[CountsRecord] = []

    def request_finished(self, record: RequestRecord) -> None:
        self.requests.append(record)

    def request_rejected(self, route: str, reason: str) -> None:
        self.rejections.append((route, reason))

    def fell_back(self, decision: Decision, cause: str) -> None:
        self.fallbacks.append((decision, cause))

    def batch_finished(self, record: BatchRecord) -> None:
        self.batches.append(record)

    def counted(self, record: CountsRecord) -> None:
        self.counts.append(record)

    def shadow_compared(self, record: ShadowRecord) -> None:
        self.shadows.append(record)

    def version_state(self, version: VersionRef, state: str, reason: str) -> None:
        self.states.append((version, state, reason))

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        self.crashes.append((version, cause, isolating))

    def table_applied(self, revision: int) -> None:
        self.revisions.append(revision)

    def rolled_back(self, record: RollbackRecord) -> None:
        self.rollbacks.append(record)

    def flag_missed(self, record: FlagMiss) -> None:
        self.flag_misses.append(record)

    def cache_asked(self, route: str, outcome: str) -> None:
        self.cache_outcomes.append((route, outcome))


class FanOut(Observer):
    """Tells several observers, in order; each only of the events that it overrides, so that one that watches
    nothing of a request costs a request nothing. The first failure of one is logged, and that one is dropped.

    Finished requests are gathered for who takes them in bursts: until there are ``FULL_BURST`` of them, ``GATHER_S``
    have passed or ``flush`` is called. Without a ``clock`` nobody would end the wait, so each is a burst of its own.
    """

    def __init__(self, *observers: Observer, clock: Clock | None = None) -> None:
        self._clock = clock
        self._observers: tuple[Observer, ...] = ()
        self._gathered: list[RequestRecord] = []
        # Of the burst that gathers; one that rings after a burst was full finds a younger one, which does no harm.
        self._timer: Timer | None = None
        self._install(observers)

    def __repr__(self) -> str:
        return f"<FanOut [{', '.join(type(observer).__name__ for observer in self._observers)}]>"

    def add(self, observer: Observer) -> None:
        """For one that can only be built once those it watches are there."""
        self._install((*self._observers, observer))

    def flush(self) -> None:
        """Tells at once what has gathered: before it is shown, and before those who watch are closed."""
        records = Burst(self._gathered)
        self._gathered.clear()
        if records:
            self._tell_burst(records)

    def _install(self, observers: tuple[Observer, ...]) -> None:
        """Each event becomes a function of this very object: a call less for whoever tells it. One that nobody watches
        is left to the class, which does nothing."""
        self._observers = observers
        for event in EVENTS:
            listeners = self._listeners(event)
            if listeners:
                setattr(self, event, self._teller(event, listeners))
            else:
                vars(self).pop(event, None)
        self._install_bursts()

    def _install_bursts(self) -> None:
        """A request is told at once to those who want that; the others take it with its burst. Whole bursts that come
        from elsewhere (the web workers) are told to both."""
        each = [listen for _, listen in self._listeners("request_finished")]
        self._tell_burst: Callable[[Sequence[RequestRecord]], None] = vars(self).get(
            "requests_finished", super().requests_finished
        )
        tell_each = vars(self).get("request_finished", super().request_finished)
        if self._listeners("requests_finished"):
            vars(self)["request_finished"] = self._gatherer(tell_each if each else None)
        if each:
            vars(self)["requests_finished"] = self._spreader(tell_each)

    def _gatherer(self, tell_each: Callable[[RequestRecord], None] | None) -> Callable[[RequestRecord], None]:
        gathered, full = self._gathered, FULL_BURST if self._clock is not None else 1

        def gather(record: RequestRecord) -> None:
            if tell_each is not None:
                tell_each(record)
            gathered.append(record)
            if self._timer is None or len(gathered) >= full:
                self._gather_on(full)

        return gather

    def _gather_on(self, full: int) -> None:
        if len(self._gathered) >= full:
            self.flush()
        elif self._timer is None and self._clock is not None:
            self._timer = self._clock.call_at(self._clock.monotonic() + GATHER_S, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self.flush()

    def _spreader(self, tell_each: Callable[[RequestRecord], None]) -> Callable[[Sequence[RequestRecord]], None]:
        def spread(records: Sequence[RequestRecord]) -> None:
            for record in records:
                tell_each(record)
            self._tell_burst(records)

        return spread

    def _listeners(self, event: str) -> list[tuple[Observer, Callable[..., None]]]:
        return [(observer, getattr(observer, event)) for observer in self._observers if _watches(observer, event)]

    def _teller(self, event: str, listeners: Sequence[tuple[Observer, Callable[..., None]]]) -> Callable[..., None]:
        def tell(*args: object) -> None:
            for observer, listen in listeners:
                try:
                    listen(*args)
                except Exception:  # an observer's fault must never reach the work it watches
                    log.exception("observer %s failed in %s and is dropped", type(observer).__name__, event)
                    self._install(tuple(other for other in self._observers if other is not observer))

        return tell


def _watches(observer: Observer, event: str) -> bool:
    return getattr(getattr(observer, event), "__func__", None) is not getattr(Observer, event)
