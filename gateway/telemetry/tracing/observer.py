"""The gateway's side of traces: chooses the requests to keep, finds their batches, and hands both over.

No span is made here. A burst of requests is one loop over a few fields; what is kept (one in a hundred, or ten a
second, whichever is more) waits for a moment, because a batch is told of apart from its requests and, where web
workers relay both, after them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from gateway.clock import Clock, Timer
from gateway.events.observer import Observer
from gateway.events.records import BatchRecord, RequestRecord, ShadowRecord
from gateway.routing.table import RoutingTable
from gateway.telemetry.tracing.keeping import PARENT, RATIO, Keeping
from gateway.telemetry.tracing.message import Message, pack
from gateway.telemetry.tracing.tree import Kept, Place, request_spans

__all__ = ["Exemplars", "Outlet", "Tracing"]

Outlet = Callable[[Mapping[str, Any]], bool]
"""Takes a message to where spans are made, without waiting; False: it could not be taken."""

HOLD_S = 0.25
"""What is kept is handed over after this, or at most twice this."""
_MOST_HELD = 4096
_GENERATION = 512
"""Batches remembered: between one and two generations. At two thousand a second they last for a quarter of a second,
and a request is told of within 20 ms of its batch, unless its client is slow to read the answer."""


class Exemplars(Protocol):
    """Where traces stand for what was counted; the metrics."""

    def exemplify(self, record: RequestRecord) -> None: ...

    def exemplify_batch(self, record: RequestRecord, batch: BatchRecord) -> None: ...


class Tracing(Observer):
    """Used from the event loop only. ``exemplars`` is told of all requests that are kept, and of their batches."""

    def __init__(
        self,
        outlet: Outlet,
        keeping: Keeping,
        *,
        clock: Clock,
        table: Callable[[], RoutingTable],
        exemplars: Exemplars,
    ) -> None:
        self._outlet = outlet
        self._keeping = keeping
        self._clock = clock
        self._table = table
        self._exemplars = exemplars
        self._recent: dict[int, BatchRecord] = {}
        self._before: dict[int, BatchRecord] = {}
        # Kept requests: those that have waited since the last hand-over, and those that came after it.
        self._older: list[Kept] = []
        self._younger: list[Kept] = []
        self._batches: dict[int, BatchRecord] = {}
        self._shadows: list[ShadowRecord] = []
        self._timer: Timer | None = None
        self._closed = False
        self.kept = dict.fromkeys((PARENT, RATIO, "error", "fallback", "slow"), 0)
        self.lost_spans = 0

    def __repr__(self) -> str:
        return f"<Tracing [{sum(self.kept.values())} kept | {self._keeping.suppressed} suppressed]>"

    @property
    def suppressed(self) -> int:
        """Requests beyond the rates at which they are kept."""
        return self._keeping.suppressed

    def table_applied(self, revision: int) -> None:
        routes = self._table().routes.values()
        self._keeping.paced = frozenset(route.name for route in routes if route.limits.slow_ms is not None)

    def batch_finished(self, record: BatchRecord) -> None:
        recent = self._recent
        recent[record.batch] = record
        if len(recent) >= _GENERATION:
            self._before, self._recent = recent, {}

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        for record, reason in self._keeping.choose(records, self._clock.monotonic()):
            if record.trace_id is None:
                continue
            self.kept[reason] += 1
            self._exemplars.exemplify(record)
            self._hold(Kept(record, reason))

    def shadow_compared(self, record: ShadowRecord) -> None:
        """Copies of requests that were sampled from the beginning: of others nobody knows yet whether they are kept."""
        trace = record.trace
        if trace is None or not record.ended_wall or not int(trace[-2:], 16) & 1:
            return
        if len(self._shadows) < _MOST_HELD and not self._closed:
            self._shadows.append(record)
            if self._timer is None:
                self._wind()

    def flush(self) -> None:
        """Hands over all that is held, at once."""
        self._older += self._younger
        self._younger = []
        self._hand_over()

    def close(self) -> None:
        """Hands over what is held, and from now on what comes at once: the last burst may be told after this."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()

    def _hold(self, kept: Kept) -> None:
        if len(self._older) + len(self._younger) >= _MOST_HELD:
            self.flush()
        self._younger.append(kept)
        serial = kept.record.batch
        if serial and serial not in self._batches and (batch := self._found(serial)) is not None:
            self._batches[serial] = batch
        if self._closed:
            self.flush()
        elif self._timer is None:
            self._wind()

    def _found(self, serial: int) -> BatchRecord | None:
        return self._recent.pop(serial, None) or self._before.pop(serial, None)

    def _wind(self) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + HOLD_S, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._hand_over()
        self._older, self._younger = self._younger, []
        if self._older:
            self._wind()

    def _hand_over(self) -> None:
        """The older ones, and of the younger those that rode with them: a batch is told once, with all its links."""
        if not self._older and not self._shadows:
            return
        serials = {kept.record.batch for kept in self._older} - {0}
        riders = [kept for kept in self._younger if kept.record.batch in serials]
        if riders:
            self._younger = [kept for kept in self._younger if kept.record.batch not in serials]
        batches = [batch for serial in serials if (batch := self._batch(serial)) is not None]
        message = Message([*self._older, *riders], batches, self._shadows)
        self._show(message)
        self._older, self._shadows = [], []
        if not self._outlet(pack(message)):
            self.lost_spans += len(message.batches) + len(message.shadows)
            self.lost_spans += sum(len(request_spans(kept, None, Place(""))) for kept in message.kept)

    def _show(self, message: Message) -> None:
        batches = {batch.batch: batch for batch in message.batches}
        for kept in message.kept:
            batch = batches.get(kept.record.batch)
            # A request that rode in several took the time of all.
            if batch is not None and kept.record.compute_s == batch.compute_s:
                self._exemplars.exemplify_batch(kept.record, batch)

    def _batch(self, serial: int) -> BatchRecord | None:
        return self._batches.pop(serial, None) or self._found(serial)
