"""One child, several who see it die: its death is told once, with what each of them knows of it.

The node holds the child and sees every death exactly once; only the workers know whether one of them was
running one bad request alone (``isolating``), or waited in vain (``hang``). They say so within a moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.events.observer import Observer
from gateway.events.records import BatchRecord, CountsRecord
from gateway.messages import VersionRef
from gateway.workers.replay import Crash

__all__ = ["Deaths"]

GATHER_S = 0.05
_MOST_WORDS = 256


@dataclass(frozen=True, slots=True)
class _Word:
    at: float
    crash: Crash


class Deaths(Observer):
    """The observer of the node's own fleet: passes on what the node sees, deaths a moment later and completed.

    ``forgive`` is told of a death that was one request's fault. What waits in the node's own queues, its
    self-inferences, is not passed on: the workers' queues are what counts.
    """

    def __init__(self, observer: Observer, clock: Clock, forgive: Callable[[VersionRef], None]) -> None:
        self._observer = observer
        self._clock = clock
        self._forgive = forgive
        self._words: deque[_Word] = deque(maxlen=_MOST_WORDS)
        # Versions that have died and not worked since: the node runs no batches that would show it.
        self._died: set[VersionRef] = set()

    def __repr__(self) -> str:
        return f"<Deaths [{len(self._words)} words of workers]>"

    def heard(self, crash: Crash) -> None:
        """A worker's word. One that could not borrow says ``load``, of which the node knows better."""
        if crash.cause != "load":
            self._words.append(_Word(self._clock.monotonic(), crash))
            if crash.isolating:
                self.worked(crash.version)

    def worked(self, version: VersionRef) -> None:
        """A worker's batch came back well, or the death was one request's fault: it counts no more, so that the next
        restart does not wait."""
        if version in self._died:
            self._died.discard(version)
            self._forgive(version)

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        if cause == "load":
            self._observer.version_crashed(version, cause, isolating)
            return
        self._died.add(version)
        now = self._clock.monotonic()
        self._clock.call_at(now + GATHER_S, lambda: self._tell(version, cause, isolating, now - GATHER_S))

    def _tell(self, version: VersionRef, cause: str, isolating: bool, since: float) -> None:
        words = [word.crash for word in self._words if word.crash.version == version and word.at >= since]
        alone = isolating or any(word.isolating for word in words)
        told = "hang" if any(word.cause == "hang" for word in words) else cause
        if alone:
            self.worked(version)
        self._observer.version_crashed(version, told, alone)

    def batch_finished(self, record: BatchRecord) -> None:
        self._observer.batch_finished(record)

    def counted(self, record: CountsRecord) -> None:
        """The node's line to a child carries what it counted of all workers' batches."""
        self._observer.counted(record)

    def version_state(self, version: VersionRef, state: str, reason: str) -> None:
        self._observer.version_state(version, state, reason)

    def version_retired(self, version: VersionRef) -> None:
        self._died.discard(version)
        self._observer.version_retired(version)
