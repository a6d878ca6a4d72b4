"""A version's queue: greedy, bounded in rows, and true to deadlines.

A free engine takes what waits, at once; while it is busy the queue gathers, so batches grow with
the load and no delay is ever added. The loop waits on an event and never polls. One timer stands
at the earliest deadline of all items, waiting or running, and answers each at its time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import chain

from gateway.clock import Clock
from gateway.errors import DeadlineExceeded, DeadlineUnreachable, QueueFull, VersionUnavailable
from gateway.events import Observer
from gateway.messages import Arrays
from gateway.serving.batch import plan, shape_key
from gateway.serving.cost import CostCurve, hang_limit_s
from gateway.serving.deadlines import DeadlineAlarm
from gateway.serving.engine import VersionSpec
from gateway.serving.isolation import BatchRunner
from gateway.serving.item import Answer, Item, Priority
from gateway.serving.pace import Pace
from gateway.serving.supervision import Supervisor

__all__ = ["Batcher", "BatcherStatistics"]

log = logging.getLogger("turnout.serving")


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """Now: what waits and runs. Since the start: items answered and failed, good batches, their rows and seconds."""

    queued_items: int
    queued_rows: int
    running_items: int
    answered: int
    failed: int
    batches: int
    rows: int
    queue_s: float
    compute_s: float
    failed_s: float
    last_answer_wall: float | None


class Batcher:
    """Takes items, forms batches, sees each item answered. Owned by a handle; used from the event loop only."""

    def __init__(
        self,
        spec: VersionSpec,
        supervisor: Supervisor,
        *,
        batched: bool,
        max_rows: int,
        curve: CostCurve,
        clock: Clock,
        observer: Observer,
        succeeded: Callable[[], None] = lambda: None,
    ) -> None:
        """``max_rows`` is what the device took at warm-up, ``succeeded`` is told of every good batch."""
        self._spec = spec
        self._supervisor = supervisor
        self._batched = batched
        self._max_rows = max_rows
        self._curve = curve
        self._clock = clock
        self._observer = observer
        self._succeeded = succeeded
        self._runner = BatchRunner(
            spec,
            supervisor,
            batched=batched,
            limit_s=self.limit_s,
            succeeded=self._batch_succeeded,
            clock=clock,
            observer=observer,
        )
        # Insertion-ordered, so that an item whose client leaves goes without a search.
        self._waiting: dict[Item, None] = {}
        self._waiting_rows = 0
        self._running: tuple[Item, ...] = ()
        self._running_since = 0.0
        self._pace = Pace(curve)
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._alarm = DeadlineAlarm(lambda: (*self._waiting, *self._running), self._expire, clock=clock)
        self._closed: str | None = None
        self._answered = self._failed = self._batches = self._rows = 0
        self._queue_s = self._compute_s = self._failed_s = 0.0
        self._last_answer_wall: float | None = None
        self._loop = asyncio.get_running_loop()
        self._serving = asyncio.ensure_future(self._serve())
        self._serving.add_done_callback(self._ended)

    def __repr__(self) -> str:
        state = "active" if self._closed is None else "closed"
        return f"<Batcher {self._spec.ref} [{state} | {len(self._waiting)} queued | {len(self._running)} running]>"

    @property
    def idle(self) -> bool:
        return self._idle.is_set()

    def limit_s(self, rows: int) -> float:
        """Time a batch is given before its child counts as hung."""
        return hang_limit_s(self._spec.batch.hang_floor_ms, self._curve.predict(rows))

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
        DeadlineExceeded, InvalidInput and any VersionFailed.
        """
        item = self._admit(inputs, rows, deadline, queue_rows, priority, client)
        item.future.add_done_callback(partial(self._settled, item))
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
        if item in self._waiting:
            self._take(item)
            self._observer.queue_changed(self._spec.ref, self._waiting_rows)

    def _settled(self, item: Item, future: asyncio.Future[Answer]) -> None:
        if future.cancelled():
            return
        if future.exception() is not None:
            self._failed += 1
            self._failed_s += self._clock.monotonic() - item.enqueued
            return
        self._answered += 1
        self._queue_s += future.result().queue_s
        self._last_answer_wall = self._clock.wall()

    async def drained(self) -> None:
        """Returns when nothing waits and nothing runs."""
        await self._idle.wait()

    async def close(self, reason: str) -> None:
        """Ends at once. What waits or runs fails with VersionUnavailable before the engine of a running batch,
        which is cancelled and so ended, is gone: that can take its time."""
        if self._closed is None:
            self._closed = reason
        self._abandon()
        self._serving.cancel()
        await asyncio.wait({self._serving})

    def statistics(self) -> BatcherStatistics:
        return BatcherStatistics(
            queued_items=len(self._waiting),
            queued_rows=self._waiting_rows,
            running_items=len(self._running),
            answered=self._answered,
            failed=self._failed,
            batches=self._batches,
            rows=self._rows,
            queue_s=self._queue_s,
            compute_s=self._compute_s,
            failed_s=self._failed_s,
            last_answer_wall=self._last_answer_wall,
        )

    def _admit(  # noqa: PLR0917
        self,
        inputs: Arrays,
        rows: int,
        deadline: float | None,
        queue_rows: int | None,
        priority: Priority,
        client: str,
    ) -> Item:
        ref = self._spec.ref
        now = self._clock.monotonic()
        if self._closed is not None:
            raise VersionUnavailable(f"{ref} is gone: {self._closed}")
        if not self._supervisor.accepting:
            raise VersionUnavailable(f"{ref} cannot answer now: {self._supervisor.reason}")
        if deadline is not None and deadline <= now:
            raise DeadlineExceeded(f"the deadline had passed {now - deadline:.3f} s before {ref} was asked")
        bound = self._spec.batch.queue_rows
        if queue_rows is not None:
            bound = min(bound, queue_rows)
        if self._waiting and self._waiting_rows + rows > bound:
            raise self._full(rows, bound)
        if deadline is not None and self._running:
            self._require_reachable(rows, deadline - now, now)
        key = shape_key(inputs, batched=self._batched)
        item = Item(inputs, rows, key, deadline, now, self._loop.create_future(), priority, client)
        self._waiting[item] = None
        self._waiting_rows += rows
        self._idle.clear()
        self._work.set()
        self._alarm.watch(deadline)
        return item

    def _full(self, rows: int, bound: int) -> QueueFull:
        """The wait it names is what the rows now waiting will take at the pace of the last batches."""
        wait = self._pace.queue_s(self._waiting_rows, self._most_rows) if self._pace.known else 1.0
        return QueueFull(
            f"the queue of {self._spec.ref} is full: {self._waiting_rows} rows wait, {rows} more would pass the limit"
            f" of {bound}; try again in {wait:.3g} s",
            retry_after_s=wait,
        )

    def _require_reachable(self, rows: int, left_s: float, now: float) -> None:
        """Refuses what would be answered after its deadline. An engine that is free refuses nothing: whether the
        model is quick enough for a deadline is then the model's to show."""
        running_rows = sum(item.rows for item in self._running)
        running_s = max(0.0, self._pace.batch_s(running_rows) - (now - self._running_since))
        wait_s = self._pace.safe_s(running_s + self._pace.queue_s(self._waiting_rows + rows, self._most_rows))
        if wait_s > left_s:
            raise DeadlineUnreachable(
                f"{self._waiting_rows} rows wait for {self._spec.ref}; an answer takes {wait_s:.3g} s, the deadline"
                f" is in {left_s:.3g} s; try again in {wait_s - left_s:.3g} s, or allow more time",
                retry_after_s=wait_s - left_s,
            )

    @property
    def _most_rows(self) -> int:
        """Rows of a batch when plenty wait."""
        return self._max_rows if self._batched and self._spec.retry else 1

    async def _serve(self) -> None:
        while True:
            batch = self._next_batch()
            if batch:
                self._running = batch
                self._running_since = self._clock.monotonic()
                good = self._batches
                await self._runner.settle(batch)
                if self._batches == good + 1:  # else it was halved or run again, which says nothing of the pace
                    seconds = self._clock.monotonic() - self._running_since
                    self._pace.ran(sum(item.rows for item in batch), seconds)
                self._running = ()
            else:
                self._idle.set()
                self._work.clear()
                await self._work.wait()

    def _ended(self, serving: asyncio.Task[None]) -> None:
        """The loop is over: by ``close``, or by a fault of our own, which must strand nobody."""
        if serving.cancelled():
            return
        fault = serving.exception()
        log.error("the queue of %s stopped", self._spec.ref, exc_info=fault)
        self._closed = f"its queue stopped: {type(fault).__name__}: {fault}"
        self._abandon()

    def _abandon(self) -> None:
        self._alarm.stop()
        for item in chain(self._running, self._waiting):
            item.fail(VersionUnavailable(f"{self._spec.ref} is gone: {self._closed}"))
        self._running = ()
        self._waiting.clear()
        self._waiting_rows = 0
        self._idle.set()

    def _next_batch(self) -> tuple[Item, ...]:
        if not self._waiting:
            return ()
        now = self._clock.monotonic()
        # Effects that must not repeat leave no room for halving: such a version gets one item a batch.
        alone = not self._batched or not self._spec.retry
        planned = plan(self._waiting, now, max_rows=self._max_rows, alone=alone)
        for item in chain(planned.batch, planned.expired, planned.left):
            self._take(item)
        for item in planned.expired:
            self._expire(item, now)
        self._observer.queue_changed(self._spec.ref, self._waiting_rows)
        return planned.batch

    def _take(self, item: Item) -> None:
        del self._waiting[item]
        self._waiting_rows -= item.rows

    def _batch_succeeded(self, rows: int, seconds: float) -> None:
        self._batches += 1
        self._rows += rows
        self._compute_s += seconds
        self._succeeded()

    def _expire(self, item: Item, now: float) -> None:
        """Its deadline passed, while it waited or while it ran."""
        if item in self._waiting:
            self._take(item)
            self._observer.queue_changed(self._spec.ref, self._waiting_rows)
        item.fail(
            DeadlineExceeded(
                f"{self._spec.ref} did not answer before the deadline, {now - item.enqueued:.3f} s after it was asked"
            )
        )
