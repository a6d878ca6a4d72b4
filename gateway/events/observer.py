"""Whoever watches: one method for each event, and the observer that keeps what it is told.

Methods are called on the event loop and must return at once; what they keep of a record they copy.
"""

from __future__ import annotations

from collections.abc import Sequence

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

__all__ = ["EVENTS", "Observer", "RecordingObserver"]


class Observer:
    """One no-op method an event. Subclass and override what you watch."""

    def request_started(self, route: str, count: int = 1) -> None:
        """A known route took a request; or so many, one of its web workers says."""

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
