"""The observer of a web worker: gathers what happened and tells the node in bursts, never waiting for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gateway.events.bursts import Burst as FinishedBurst
from gateway.events.observer import Observer
from gateway.events.records import BatchRecord, CountsRecord, FlagMiss, FlagSource, RequestRecord, ShadowRecord
from gateway.messages import Decision, VersionRef
from gateway.workers.finished import Packed, pack_finished
from gateway.workers.link import Link
from gateway.workers.records import Burst, Event, pack_burst, pack_event

__all__ = ["Relay"]

GATHER_S = 0.05
"""A burst's message and the node's waking for it cost as much as a hundred requests' events: what is only counted is
told so often. Requests of which one has failed are told with the burst in which they come."""

SOON_S = 0.02
"""… and so soon what else the node acts upon: that a fallback was asked, or a flag's version is not there."""

_MOST_GATHERED = 2048
"""Requests, after which they are told at once, so that the node's loop has others in between."""

_FAULTS = 500


class Relay(Observer):
    """``flush`` tells the rest at once. What the node does not read is dropped and counted, newest first.
    ``died`` is told of a version whose child was lost here."""

    def __init__(self, link: Link, died: Callable[[VersionRef], None] = lambda _: None) -> None:
        self._link = link
        self._died = died
        self._loop = asyncio.get_running_loop()
        # By the bursts in which they came, packed then, while the processor has them at hand.
        self._finished: list[Packed] = []
        self._ended: Counter[str] = Counter()
        self._events: list[Event] = []
        self._started: dict[str, int] = {}
        self._waiting: dict[tuple[str, int], int] = {}
        self._dropped = 0
        self._lost: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._soon = False  # what the timer stands for
        # Versions whose child was lost here, and that have run no batch since.
        self._died_here: set[VersionRef] = set()

    def __repr__(self) -> str:
        return f"<Relay [{self._ended.total() + len(self._events)} gathered | {self._dropped} dropped]>"

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._soon = None, False
        if not (self._finished or self._events or self._started or self._waiting):
            return
        finished = [tuple(packed) for packed in self._finished]
        burst = Burst(self._started, self._waiting, finished, self._events, self._dropped, self._lost)
        if self._link.offer(pack_burst(burst)):
            self._dropped, self._lost = 0, {}
        else:
            self._drop()
        self._finished, self._events, self._started, self._waiting = [], [], {}, {}
        self._ended = Counter()

    def _drop(self) -> None:
        """Requests begun and ended in what is lost cancel out; what is left corrects what is in flight."""
        for route in {*self._ended, *self._started}:
            self._lost[route] = self._lost.get(route, 0) + self._ended[route] - self._started.get(route, 0)
        self._dropped += self._ended.total() + len(self._events)

    def _tell(self, name: str, *args: Any) -> None:
        self._events.append(pack_event(name, args))
        if self._timer is None:
            self._wind()

    def _wind(self) -> None:
        self._timer = self._loop.call_later(GATHER_S, self.flush)

    def _hurry(self) -> None:
        if self._soon:
            return
        if self._timer is not None:
            if self._timer.when() <= self._loop.time() + SOON_S:
                return
            self._timer.cancel()
        self._timer, self._soon = self._loop.call_later(SOON_S, self.flush), True

    def request_started(self, route: str, count: int = 1) -> None:
        self._started[route] = self._started.get(route, 0) + count
        if self._timer is None:
            self._wind()

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        finished = FinishedBurst.of(records)
        packed = pack_finished(finished)
        self._finished.append(packed)
        self._ended.update(packed.ended)
        failed = any(record.chosen_failure is not None or record.code >= _FAULTS for record in finished.others)
        if failed or self._ended.total() >= _MOST_GATHERED:
            self.flush()  # the node is about to decide what the failures mean
        elif self._timer is None:
            self._wind()

    def request_rejected(self, route: str, reason: str) -> None:
        self._tell("request_rejected", route, reason)

    def fell_back(self, decision: Decision, cause: str) -> None:
        self._tell("fell_back", decision, cause)
        self._hurry()

    def batch_finished(self, record: BatchRecord) -> None:
        self._tell("batch_finished", record)
        if record.failure is None and record.version in self._died_here:
            self._died_here.discard(record.version)
            self.flush()  # the next death counts as a first one from when the node knows

    def counted(self, record: CountsRecord) -> None:
        self._tell("counted", record)

    def shadow_compared(self, record: ShadowRecord) -> None:
        self._tell("shadow_compared", record)

    def queue_changed(self, version: VersionRef, rows: int) -> None:
        self._waiting[version.model, version.number] = rows
        if self._timer is None:
            self._wind()

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        self._tell("version_crashed", version, cause, isolating)
        self._died_here.add(version)
        self.flush()  # the node is about to decide what this death means
        self._died(version)

    def cache_asked(self, route: str, outcome: str) -> None:
        self._tell("cache_asked", route, outcome)

    def cache_changed(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        self._tell("cache_changed", route, entries, held_bytes, evicted)

    def flag_missed(self, record: FlagMiss) -> None:
        self._tell("flag_missed", record)
        self._hurry()

    def flag_source(self, record: FlagSource) -> None:
        self._tell("flag_source", record)
