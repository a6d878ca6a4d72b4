"""A version's queue: greedy, bounded in rows, and true to deadlines.

A free engine takes what waits, at once; while it is busy the queue gathers, so batches grow with the load and no
delay is ever added. Requests that are read in one turn of the loop share a batch, since the first of them only
schedules its forming; where every turn has brought one lately, that one is launched at once. One timer stands at the
earliest deadline of all items, waiting or running, and answers each at its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from gateway.clock import Clock
from gateway.errors import DeadlineExceeded, VersionUnavailable
from gateway.events.observer import Observer
from gateway.messages import Arrays, Signature
from gateway.serving.batch import row_bytes, shape_key
from gateway.serving.cost import CostCurve
from gateway.serving.deadlines import DeadlineAlarm
from gateway.serving.devices import Devices
from gateway.serving.dispatcher import NEVER, Dispatcher
from gateway.serving.engine import VersionSpec
from gateway.serving.item import Answer, Item, Priority
from gateway.serving.queue import WaitingQueue
from gateway.serving.supervision import Supervisor
from gateway.serving.tally import BatcherStatistics, Tally

__all__ = ["Batcher", "BatcherStatistics"]

log = logging.getLogger("turnout.serving")

WORTH_STAGING_BYTES = 64 * 1024
"""An item from here on is copied to its batch's memory as it arrives, so that a full batch is launched at once."""

CROWDED_TURNS = 16
"""After a turn that brought several requests, so many must bring one before the next is launched at once."""


class Batcher:
    """Takes items, sees each answered. Owned by a handle; used from the event loop only."""

    def __init__(
        self,
        spec: VersionSpec,
        supervisors: Sequence[Supervisor],
        *,
        signature: Signature,
        max_rows: int,
        curve: CostCurve,
        clock: Clock,
        observer: Observer,
        succeeded: Callable[[], None] = lambda: None,
        devices: Devices | None = None,
    ) -> None:
        """One lane for each supervisor. ``max_rows`` is what the device took at warm-up, ``succeeded`` is told of
        every good batch, ``devices`` are those that versions here share."""
        self._ref = spec.ref
        self._clock = clock
        self._observer = observer
        self._key = shape_key(signature)
        self._row_bytes = row_bytes(signature)
        self._bound = spec.batch.queue_rows
        self._loop = asyncio.get_running_loop()
        self._queue: WaitingQueue[Item] = WaitingQueue()
        self._tally = Tally(clock)
        self._dispatcher = Dispatcher(
            spec,
            supervisors,
            self._queue,
            signature=signature,
            max_rows=max_rows,
            curve=curve,
            clock=clock,
            observer=observer,
            tally=self._tally,
            succeeded=succeeded,
            withdraw=self._withdraw,
            expired=self._expire,
            settled=self._settled,
            faulty=self._faulty,
            devices=devices,
        )
        self._admission = self._dispatcher.admission
        self._alarm = DeadlineAlarm(self._items, self._expire, clock=clock)
        # Turns of the loop until it is believed again that each brings one request.
        self._crowded = CROWDED_TURNS
        self._turn_has_one = False
        self._closed: str | None = None
        self._quiet: asyncio.Event | None = None
        self._accepting = self._dispatcher.accepting
        for supervisor in supervisors:
            supervisor.watch(self._engines_changed)

    def __repr__(self) -> str:
        state = "active" if self._closed is None else "closed"
        running = len(self._dispatcher.running())
        return f"<Batcher {self._ref} [{state} | {self._queue.items} queued | {running} running]>"

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._queue.items and not self._dispatcher.under_way

    @property
    def urgent_rows(self) -> int:
        """Rows that wait, and that a client waits for."""
        return self._queue.urgent_rows

    @property
    def limit_rows(self) -> int:
        """Rows of a batch when plenty wait, by the cost curve as it is known now."""
        return self._admission.limit

    def submit(
        self,
        inputs: Arrays,
        rows: int,
        deadline: float | None,
        *,
        queue_rows: int | None = None,
        priority: Priority = Priority.NORMAL,
        client: str = "",
    ) -> Item:
        """Queues one item; its future has the answer, or the failure. ``queue_rows`` lowers the queue's bound for this
        one. Who no longer waits for the future says so with ``forget``.

        Raises QueueFull, DeadlineUnreachable, DeadlineExceeded and VersionUnavailable. The future raises
        DeadlineExceeded, InvalidInput, QueueFull (it made room for another) and any VersionFailed.
        """
        now = self._clock.monotonic()
        if not self._accepting:
            raise self._unavailable()
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded(f"the deadline had passed {now - deadline:.3f} s before {self._ref} was asked")
        queue, dispatcher = self._queue, self._dispatcher
        if queue.items:
            bound = self._bound if queue_rows is None or queue_rows > self._bound else queue_rows
            if queue.rows + rows > bound:
                self._make_room(rows, bound, priority, client)
        # An engine that is free refuses nothing: whether the model is quick enough is then the model's to show.
        if deadline is not None and dispatcher.under_way:
            busy_s, lanes = dispatcher.free_in_s(now)
            ahead = queue.ahead(priority, client, rows)
            self._admission.require_reachable(ahead, rows, left_s=deadline - now, busy_s=busy_s, lanes=lanes)
        item = Item(inputs, rows, self._key(inputs), deadline, now, self._loop.create_future(), priority, client)
        queue.add(item)
        if rows * self._row_bytes >= WORTH_STAGING_BYTES:
            dispatcher.stage(inputs)
        if queue.rows >= dispatcher.form_at:
            dispatcher.form_at = NEVER  # once is enough
            self._form()
        if deadline is not None and deadline < self._alarm.at:
            self._alarm.watch(deadline)
        return item

    async def infer(
        self,
        inputs: Arrays,
        rows: int,
        deadline: float | None,
        *,
        queue_rows: int | None = None,
        priority: Priority = Priority.NORMAL,
        client: str = "",
    ) -> Answer:
        """``submit`` and the wait. Cancelling it takes the item out of the queue; if it runs already, its neighbours
        are not touched."""
        item = self.submit(inputs, rows, deadline, queue_rows=queue_rows, priority=priority, client=client)
        try:
            return await item.future
        except asyncio.CancelledError:
            self.forget(item)
            raise

    def forget(self, item: Item) -> None:
        """Its client left: it is not run any more, unless it runs already. Its neighbours are not touched."""
        if not item.future.cancel() and not item.future.cancelled():
            item.future.exception()  # seen: nobody else will look
        self._withdraw(item)

    def weigh(self, weight: float) -> None:
        """Its share of a device that it has with other versions, beside theirs."""
        for lane in self._dispatcher.lanes:
            if lane.turn is not None:
                lane.turn.weigh(weight / len(self._dispatcher.lanes))

    async def drained(self) -> None:
        """Returns when nothing waits and nothing runs."""
        while not self.idle:
            self._quiet = self._quiet or asyncio.Event()
            await self._quiet.wait()

    async def close(self, reason: str) -> None:
        """Ends at once, with the engines. What waits or runs fails with VersionUnavailable before the engine of a
        running batch is gone: that can take its time."""
        self._closed = self._closed or reason
        self._abandon()
        await self._dispatcher.close()

    def statistics(self) -> BatcherStatistics:
        return self._tally.statistics(
            queued_items=self._queue.items,
            queued_rows=self._queue.rows,
            running_items=len(self._dispatcher.running()),
        )

    def _form(self) -> None:
        """At the end of this turn of the loop, with all that it brings; at once if it will bring no more, as far as
        the last turns tell: the way through two more turns would cost a lone request a tenth of its time."""
        if self._turn_has_one:
            self._crowded = CROWDED_TURNS
        if self._crowded:
            self._loop.call_soon(self._form_all)
            return
        self._turn_has_one = True
        self._loop.call_soon(self._next_turn)
        self._dispatcher.form()

    def _next_turn(self) -> None:
        self._turn_has_one = False

    def _form_all(self) -> None:
        self._turn_has_one = False
        self._crowded = CROWDED_TURNS if self._queue.items > 1 else self._crowded - 1
        self._dispatcher.form()

    def _unavailable(self) -> VersionUnavailable:
        if self._closed is not None:
            return VersionUnavailable(f"{self._ref} is gone: {self._closed}")
        reasons = dict.fromkeys(lane.supervisor.reason for lane in self._dispatcher.lanes)
        return VersionUnavailable(f"{self._ref} cannot answer now: {'; '.join(reasons)}")

    def _make_room(self, rows: int, bound: int, priority: Priority, client: str) -> None:
        """Raises QueueFull for an item that has no claim to a place; else those that have less right to theirs go."""
        lanes = len(self._dispatcher.lanes)
        waiting = self._queue.rows
        victims = self._queue.room_for(rows, bound, priority, client)
        if victims is None:
            raise self._admission.full(waiting, rows, bound, lanes)
        for victim in victims:
            self._queue.remove(victim)
            self._tally.fail(victim, self._admission.pushed_out(waiting, lanes))

    def _items(self) -> list[Item]:
        return [*self._queue, *self._dispatcher.running()]

    def _withdraw(self, item: Item) -> None:
        if item in self._queue:
            self._queue.remove(item)
            self._observer.queue_changed(self._ref, self._queue.rows)
            self._settled()

    def _expire(self, item: Item, now: float) -> None:
        """Its deadline passed, while it waited or while it ran; or will have, before its batch is done."""
        self._withdraw(item)
        waited_s = now - item.enqueued
        verb = "cannot" if item.deadline is not None and now < item.deadline else "did not"
        late = f"{self._ref} {verb} answer before the deadline, {waited_s:.3f} s after it was asked"
        self._tally.fail(item, DeadlineExceeded(late))

    def _settled(self) -> None:
        """A batch is over, or something left the queue, or what had not begun came back to it."""
        if not self._accepting and self._queue.items:
            for item in self._queue.clear():
                self._tally.fail(item, self._unavailable())
            self._observer.queue_changed(self._ref, 0)
        if self._quiet is not None and self.idle:
            self._quiet.set()
            self._quiet = None

    def _engines_changed(self) -> None:
        """An engine came or went. What waits is not kept waiting for one that backs off: a fallback may answer."""
        if self._closed is not None:
            return
        self._accepting = self._dispatcher.accepting
        if self._accepting:
            self._dispatcher.form()
        else:
            self._settled()

    def _faulty(self, fault: Exception) -> None:
        """A fault of our own must strand nobody."""
        log.error("the queue of %s stopped", self._ref, exc_info=fault)
        self._closed = f"its queue stopped: {type(fault).__name__}: {fault}"
        self._abandon()

    def _abandon(self) -> None:
        self._accepting = False
        self._alarm.stop()
        for item in self._dispatcher.abandon():
            self._tally.fail(item, self._unavailable())
        self._settled()
