"""The observer of a web worker: gathers what happened and tells the node in bursts, never waiting for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from gateway.events.observer import Observer
from gateway.events.records import BatchRecord, CountsRecord, FlagMiss, FlagSource, RequestRecord, ShadowRecord
from gateway.messages import Decision, VersionRef
from gateway.recording import bursts
from gateway.workers.link import Link
from gateway.workers.records import Burst, Event, pack_burst, pack_event

__all__ = ["Relay"]

GATHER_S = 0.03
"""A burst's message and the node's waking for it cost as much as ten requests' events; at load a burst holds many.
Those of finished requests come every 20 ms (``gateway.events.fan_out.GATHER_S``) and take along what is there."""


class Relay(Observer):
    """``flush`` tells the rest at once. What the node does not read is dropped and counted, newest first.
    ``died`` is told of a version whose child was lost here."""

    def __init__(self, link: Link, died: Callable[[VersionRef], None] = lambda _: None) -> None:
        self._link = link
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._finished: list[RequestRecord] = []
        self._events: list[Event] = []
        self._started: dict[str, int] = {}
        self._waiting: dict[tuple[str, int], int] = {}
        self._dropped = 0
        self._lost: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Relay [{len(self._finished) + len(self._events)} gathered | {self._dropped} dropped]>"

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not (self._finished or self._events or self._started or self._waiting):
            return
        finished = bursts.pack_burst(self._finished, bare=True)
        burst = Burst(self._started, self._waiting, finished, self._events, self._dropped, self._lost)
        if self._link.offer(pack_burst(burst)):
            self._dropped, self._lost = 0, {}
        else:
            self._drop()
        self._finished, self._events, self._started, self._waiting = [], [], {}, {}

    def _drop(self) -> None:
        """Requests begun and ended in what is lost cancel out; what is left corrects what is in flight."""
        finished = Counter(record.route for record in self._finished)
        for route in {*finished, *self._started}:
            self._lost[route] = self._lost.get(route, 0) + finished[route] - self._started.get(route, 0)
        self._dropped += len(self._finished) + len(self._events)

    def _tell(self, name: str, *args: Any) -> None:
        self._events.append(pack_event(name, args))
        if self._timer is None:
            self._wind()

    def _wind(self) -> None:
        self._timer = self._loop.call_later(GATHER_S, self.flush)

    def request_started(self, route: str) -> None:
        self._started[route] = self._started.get(route, 0) + 1
        if self._timer is None:
            self._wind()

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        self._finished.extend(records)
        self.flush()

    def request_rejected(self, route: str, reason: str) -> None:
        self._tell("request_rejected", route, reason)

    def fell_back(self, decision: Decision, cause: str) -> None:
        self._tell("fell_back", decision, cause)

    def batch_finished(self, record: BatchRecord) -> None:
        self._tell("batch_finished", record)

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
        self.flush()  # the node is about to decide what this death means
        self._died(version)

    def cache_asked(self, route: str, outcome: str) -> None:
        self._tell("cache_asked", route, outcome)

    def cache_changed(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        self._tell("cache_changed", route, entries, held_bytes, evicted)

    def flag_missed(self, record: FlagMiss) -> None:
        self._tell("flag_missed", record)

    def flag_source(self, record: FlagSource) -> None:
        self._tell("flag_source", record)
