"""What the workers saw, told to the node's own observers, so that metrics, logs and the guard see one gateway."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.events.observer import Observer
from gateway.events.records import BatchRecord
from gateway.messages import VersionRef
from gateway.workers.finished import Relayed
from gateway.workers.records import Burst, unpack_burst, unpack_event

__all__ = ["Crash", "Replay", "Replays"]


@dataclass(frozen=True, slots=True)
class Crash:
    """One worker's word that a child died under it."""

    version: VersionRef
    cause: str
    isolating: bool


class Replays:
    """What is summed over all workers: rows waiting. ``crashed`` is told of deaths, which every worker reports;
    ``worked`` of a version whose child has run a batch well."""

    def __init__(
        self, observer: Observer, crashed: Callable[[Crash], None], worked: Callable[[VersionRef], None]
    ) -> None:
        self.observer = observer
        self.crashed = crashed
        self._worked = worked
        self.dropped = 0
        self._waiting: dict[VersionRef, int] = {}
        self._ran: dict[VersionRef, tuple[int, int]] = {}

    def __repr__(self) -> str:
        return f"<Replays [{sum(self._waiting.values())} rows waiting | {self.dropped} events lost]>"

    def waiting_rows(self, version: VersionRef) -> int:
        return self._waiting.get(version, 0)

    def queue(self, version: VersionRef) -> dict[str, int]:
        """Rows that wait for it in the workers now, and the good batches that they ran on it, with their items."""
        batches, answered = self._ran.get(version, (0, 0))
        return {"rows": self.waiting_rows(version), "answered": answered, "batches": batches}

    def batch(self, record: BatchRecord) -> None:
        self.observer.batch_finished(record)
        if record.failure is None:
            batches, answered = self._ran.get(record.version, (0, 0))
            self._ran[record.version] = (batches + 1, answered + record.items)
            self._worked(record.version)

    def change(self, version: VersionRef, rows: int) -> None:
        total = self._waiting.get(version, 0) + rows
        if total:
            self._waiting[version] = total
        else:
            self._waiting.pop(version, None)
        self.observer.queue_changed(version, total)


@dataclass(slots=True)
class Replay:
    """One worker's part. ``end`` takes off what it had in flight, in its queues and in its caches when it died."""

    shared: Replays
    requests: int = 0
    inflight: dict[str, int] = field(default_factory=dict)
    waiting: dict[VersionRef, int] = field(default_factory=dict)
    cached: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, body: bytes) -> None:
        """Raises ValueError for what is no burst."""
        burst = unpack_burst(body)
        finished = [Relayed(packed) for packed in burst.finished]
        self._begin(burst)
        # First, because a request ends after its batch: who wants to know both remembers few batches, and not for long.
        for event in burst.events:
            name, args = unpack_event(event)
            if name == "version_crashed":
                self.shared.crashed(Crash(*args))
            elif name == "batch_finished":
                self.shared.batch(args[0])
            elif name == "cache_changed":
                self._cache(*args)
            else:
                getattr(self.shared.observer, name)(*args)
        for requests in finished:
            self._finish(requests)

    def _finish(self, finished: Relayed) -> None:
        self.requests += len(finished)
        for route, count in finished.ended.items():
            self.inflight[route] = self.inflight.get(route, 0) - count
        self.shared.observer.requests_finished(finished)

    def _cache(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        before = self.cached.get(route, (0, 0))
        self.cached[route] = (before[0] + entries, before[1] + held_bytes)
        self.shared.observer.cache_changed(route, entries, held_bytes, evicted)

    def _begin(self, burst: Burst) -> None:
        observer = self.shared.observer
        self.shared.dropped += burst.dropped
        for route, count in burst.lost.items():
            self._abandon(route, count)
        for route, count in burst.started.items():
            self.inflight[route] = self.inflight.get(route, 0) + count
            observer.request_started(route, count)
        for (model, number), rows in burst.waiting.items():
            self._wait(VersionRef(model, number), rows)

    def _abandon(self, route: str, count: int) -> None:
        """Their end was never told, or (negative) their beginning was not."""
        self.inflight[route] = self.inflight.get(route, 0) - count
        if count > 0:
            self.shared.observer.requests_lost(route, count)
        else:
            self.shared.observer.request_started(route, -count)

    def _wait(self, version: VersionRef, rows: int) -> None:
        change = rows - self.waiting.get(version, 0)
        self.waiting[version] = rows
        if change:
            self.shared.change(version, change)

    def end(self) -> None:
        for route, count in list(self.inflight.items()):
            if count > 0:
                self._abandon(route, count)
        for version in list(self.waiting):
            self._wait(version, 0)
        for route, (entries, held_bytes) in self.cached.items():
            self.shared.observer.cache_changed(route, -entries, -held_bytes, 0)
        for told in (self.inflight, self.waiting, self.cached):
            told.clear()
