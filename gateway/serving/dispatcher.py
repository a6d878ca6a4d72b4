"""Hands waiting items to free engines in batches, and their outcomes back: driven by what happens, not by a task.

The engine's word that a batch is done forms the next batch and then answers its items, in that order, so that the
engine idles least; nobody is woken but the clients. Only a batch that failed gets a task, which runs it again and
cuts it until what is at fault stands alone; batches that had not begun when their engine ended go back to the front
of the queue. A batch is launched behind a running one only when waiting longer would add nothing to it: when it is
full, or when the running one is about to end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from gateway.clock import Clock
from gateway.errors import NotBegun, TurnoutError
from gateway.events.observer import Observer
from gateway.messages import Arrays, Signature
from gateway.serving.admission import Admission
from gateway.serving.batch_teller import BatchTeller
from gateway.serving.cost import CostCurve, hang_limit_s
from gateway.serving.devices import Devices
from gateway.serving.engine import BatchResult, VersionSpec
from gateway.serving.isolation import BatchRunner, unforeseen
from gateway.serving.item import Item, answer_all
from gateway.serving.lanes import HAND_OVER_S, WORTH_FORESEEING_S, Batch, Lane
from gateway.serving.parts import Parts
from gateway.serving.queue import WaitingQueue
from gateway.serving.supervision import Supervisor
from gateway.serving.tally import Tally

__all__ = ["Dispatcher"]

_MOST_LIMITS = 4096

NEVER = 1 << 62
"""Rows that no queue has."""


class Dispatcher:
    """The lanes of one queue. Used from the event loop only."""

    def __init__(
        self,
        spec: VersionSpec,
        supervisors: Sequence[Supervisor],
        queue: WaitingQueue[Item],
        *,
        signature: Signature,
        max_rows: int,
        curve: CostCurve,
        clock: Clock,
        observer: Observer,
        tally: Tally,
        succeeded: Callable[[], None],
        withdraw: Callable[[Item], None],
        expired: Callable[[Item, float], None],
        settled: Callable[[], None],
        faulty: Callable[[Exception], None],
        devices: Devices | None,
    ) -> None:
        """``withdraw`` takes an item out of the queue if it is there; ``expired`` is told of items found too late when
        a batch is formed, ``settled`` whenever a batch is over, ``faulty`` of a fault of our own, which must strand
        nobody."""
        self._spec = spec
        self._signature = signature
        self._queue = queue
        self._curve = curve
        self._limits_s: dict[int, float] = {}
        self._clock = clock
        self._observer = observer
        self._tally = tally
        self._succeeded = succeeded
        self._withdraw = withdraw
        self._expired = expired
        self._settled = settled
        self._faulty = faulty
        # Effects that must not repeat leave no room for halving: such a version gets one item a batch.
        self._alone = not signature.batched or not spec.retry
        # Of what is not batched, the rows mean nothing, and cannot be cut.
        self._most_rows = max_rows if signature.batched else NEVER
        self.admission = Admission(spec.ref, curve, max_rows=max_rows, alone=self._alone)
        self.lanes = tuple(self._lane(*numbered, devices) for numbered in enumerate(supervisors))
        # Rows waiting from which on a new item schedules the forming of a batch: 0 while an engine is free.
        self.form_at = 0
        # Batches launched, failed ones until they are settled.
        self.under_way = 0
        self._forming = False
        self._closed = False

    def __repr__(self) -> str:
        return f"<Dispatcher {self._spec.ref} [{self.under_way} under way | {self.admission.limit} rows a batch]>"

    @property
    def accepting(self) -> bool:
        """Work may be queued: an engine is up, or will be at once."""
        return not self._closed and any(lane.supervisor.accepting for lane in self.lanes)

    def limit_s(self, rows: int) -> float:
        """Time a batch is given before its child counts as hung."""
        limit_s = self._limits_s.get(rows)
        if limit_s is None:
            limit_s = hang_limit_s(self._spec.batch.hang_floor_ms, self._curve.predict(rows))
            if len(self._limits_s) < _MOST_LIMITS:
                self._limits_s[rows] = limit_s
        return limit_s

    def running(self) -> list[Item]:
        """Items of all batches under way."""
        return [item for lane in self.lanes for item in lane.items()]

    def free_in_s(self, now: float) -> tuple[float, int]:
        """Seconds until an engine is free, and how many engines there are."""
        ends = [lane.ends_at for lane in self.lanes if lane.engine is not None]
        return (max(0.0, min(ends) - now), len(ends)) if ends else (0.0, 1)

    def stage(self, inputs: Arrays) -> None:
        """A large item has arrived: where it will probably run may take it in already."""
        for lane in self.lanes:
            if lane.engine is not None:
                lane.engine.stage(inputs)
                return

    def form(self, about_to_end: Lane | None = None) -> None:
        """Launches batches while something waits and an engine takes it."""
        if self._forming or self._closed:
            return  # the forming under way goes on until nothing more can be launched
        self._forming = True
        before = self._queue.rows
        try:
            while self._queue.items and (lane := self._taker(about_to_end)) is not None:
                self._launch_next(lane)
        except Exception as fault:  # noqa: BLE001 - the batch boundary: a fault of our own must strand nobody
            self._faulty(fault)
        finally:
            self._forming = False
        self.form_at = self._threshold()
        if self._queue.rows != before:
            self._observer.queue_changed(self._spec.ref, self._queue.rows)

    def abandon(self) -> list[Item]:
        """Nothing is launched any more, and outcomes are not awaited; the items that were under way."""
        self._closed = True
        items = self.running()
        for lane in self.lanes:
            lane.give_up()
        self.under_way = 0
        self.form_at = NEVER
        return items

    async def close(self) -> None:
        """After ``abandon``: ends the engines."""
        recoveries = [lane.recovery for lane in self.lanes if lane.recovery is not None]
        for recovery in recoveries:
            recovery.cancel()
        await asyncio.gather(*(lane.supervisor.close() for lane in self.lanes))
        if recoveries:
            await asyncio.wait(recoveries)

    def _lane(self, instance: int, supervisor: Supervisor, devices: Devices | None) -> Lane:
        teller = BatchTeller(
            self._spec,
            supervisor,
            instance=instance,
            signature=self._signature,
            clock=self._clock,
            observer=self._observer,
        )
        runner = BatchRunner(
            self._spec,
            supervisor,
            teller,
            batched=self._most_rows < NEVER,
            limit_s=self.limit_s,
            succeeded=self._succeeded,
            tally=self._tally,
            clock=self._clock,
        )
        turn = None
        if devices is not None and supervisor.info is not None:
            turn = devices.turn(supervisor.info.device, self.form)
        return Lane(supervisor, runner, teller, turn)

    def _taker(self, about_to_end: Lane | None) -> Lane | None:
        """The lane that takes a batch now: an idle one, or one that may be given its next."""
        urgent_rows = self._queue.urgent_rows
        behind = None
        for lane in self.lanes:
            engine = lane.engine
            if engine is None:
                continue
            if not lane.runs:
                if lane.turn is None or lane.turn.take(spare=not urgent_rows):
                    return lane
            elif len(lane.runs) < engine.depth and behind is None:
                full = urgent_rows >= self.admission.limit
                if full or (lane is about_to_end and urgent_rows):
                    behind = lane
        if behind is not None and (behind.turn is None or behind.turn.take()):
            return behind
        return None

    def _threshold(self) -> int:
        at = NEVER
        for lane in self.lanes:
            engine, turn = lane.engine, lane.turn
            # A turn that waits with spare work must be asked for anew when other work comes.
            if engine is None or (turn is not None and turn.waits and not turn.spare):
                continue
            if not lane.runs:
                return 0
            if len(lane.runs) < engine.depth:
                at = self.admission.limit
        return at

    def _launch_next(self, lane: Lane) -> None:
        engine = lane.engine
        now = self._clock.monotonic()
        urgent_rows = self._queue.urgent_rows
        limit = self._most_rows if self._alone else self.admission.batch_rows(urgent_rows)
        release = "idle" if not lane.runs else "full" if urgent_rows >= self.admission.limit else "ending"
        items, rows, expired = self._queue.take(
            limit, self._in_time_from(lane, limit, now), alone=self._alone, cut=self._cut
        )
        for item in expired:
            self._expired(item, now)
        if not items or engine is None:
            if lane.turn is not None:
                lane.turn.give_back(0.0)
            return
        batch = Batch(items, rows, now, engine, release=release, limit=0 if limit == NEVER else limit)
        lane.runs.append(batch)
        self.under_way += 1
        lane.ends_at = max(now, lane.ends_at if len(lane.runs) > 1 else 0.0) + self.admission.pace.batch_s(rows)
        self._foresee(lane, now)
        done = partial(self._done, lane, batch)
        try:
            engine.launch([item.inputs for item in items], limit_s=self.limit_s(rows), done=done)
        except Exception as fault:  # noqa: BLE001 - the batch boundary: whatever went wrong, all items are answered
            done(unforeseen(self._spec, fault))

    def _in_time_from(self, lane: Lane, limit: int, now: float) -> float:
        """The earliest deadline that the lane's next batch can meet. What was let in may have been pushed back by
        higher work since: run all the same, it would make those behind it late, too, until nobody is answered in time.
        An idle engine gives up nothing that its deadline leaves alive: whether it is quick enough is its to show."""
        if not lane.runs:
            return now
        pace = self.admission.pace
        batch_s = pace.batch_s(min(limit, self._queue.rows))
        return now + pace.safe_s(max(0.0, lane.ends_at - now) + batch_s)

    def _foresee(self, lane: Lane, now: float) -> None:
        """Sees to it that the next batch is launched a hand-over before the one that runs alone is done."""
        if len(lane.runs) == 1 and lane.ends_at - now > WORTH_FORESEEING_S and lane.runs[0].engine.depth > 1:
            lane.ending = self._clock.call_at(lane.ends_at - HAND_OVER_S, partial(self.form, lane))

    def _cut(self, item: Item, rows: int) -> tuple[Item, Item]:
        parts = item.parts or Parts(item, self._withdraw)
        return parts.cut(item, rows)

    def _done(self, lane: Lane, batch: Batch, outcome: BatchResult | TurnoutError) -> None:
        if self._closed or batch not in lane.runs:
            return
        try:
            self._over(lane, batch, outcome)
        except Exception as fault:  # noqa: BLE001 - the batch boundary: a fault of our own must strand nobody
            self._faulty(fault)

    def _over(self, lane: Lane, batch: Batch, outcome: BatchResult | TurnoutError) -> None:
        now = self._clock.monotonic()
        lane.runs.remove(batch)
        lane.quiet()
        seconds = now - max(batch.began, lane.freed_at)
        lane.freed_at = now
        if lane.turn is not None:
            lane.turn.give_back(seconds)
        good = outcome if isinstance(outcome, BatchResult) else None
        if isinstance(outcome, TurnoutError):
            self._failed(lane, batch, outcome)
        else:
            self.admission.ran(batch.rows, seconds)
            if lane.runs:
                lane.ends_at = now + self.admission.pace.batch_s(lane.runs[0].rows)
                self._foresee(lane, now)
            else:
                lane.ends_at = now
        if lane.failed and not lane.runs and lane.recovery is None and not self._closed:
            lane.recovery = asyncio.ensure_future(self._recover(lane))
            lane.recovery.add_done_callback(partial(self._recovered, lane))
        self.form()
        if lane.turn is not None:
            lane.turn.pass_on()
        if good is not None:
            self._answer(lane, batch, good, seconds, now)
        self.under_way -= 1
        self._settled()

    def _answer(self, lane: Lane, batch: Batch, result: BatchResult, seconds: float, now: float) -> None:
        items, rows = batch.items, batch.rows
        try:
            waits = answer_all(items, rows, result, batch.began, batch.launched.serial)
        except ValueError as mismatch:  # rows handed to the wrong clients would be worse than an error
            failure = unforeseen(self._spec, mismatch)
            self._tell(lane, batch, result.compute_s, failure)
            for item in items:
                self._tally.fail_with_batch(item, failure)
            return
        lane.supervisor.succeeded()
        lane.runner.succeeded()
        self._tally.ran(rows, seconds)
        self._tally.answer(waits, now)
        self._succeeded()
        lane.teller.tell(
            batch.launched, result.compute_s, tuple(waits), took_s=now - batch.began, ran_rows=result.ran_rows
        )

    def _failed(self, lane: Lane, batch: Batch, failure: TurnoutError) -> None:
        """What had not begun goes back to the front; what failed is run again by itself, by a task."""
        if isinstance(failure, NotBegun):
            self._queue.put_back([item for item in batch.items if not item.left])
        else:
            self._tell(lane, batch, self._clock.monotonic() - batch.began, failure)
            self.under_way += 1
            lane.failed.append((batch.items, failure))
        lane.supervisor.failed(batch.engine, failure)

    def _tell(self, lane: Lane, batch: Batch, seconds: float, failure: TurnoutError) -> None:
        items = batch.items
        waits = tuple(batch.began - item.enqueued for item in items if not item.attempts)
        for item in items:
            item.attempts += 1
        lane.teller.tell(batch.launched, seconds, waits, took_s=seconds, failure=type(failure).__name__)

    async def _recover(self, lane: Lane) -> None:
        while lane.failed:
            lane.settling, failure = lane.failed.popleft()
            await lane.runner.settle(lane.settling, failure)
            lane.settling = []
            self.under_way -= 1

    def _recovered(self, lane: Lane, recovery: asyncio.Task[None]) -> None:
        lane.recovery = None
        if self._closed or recovery.cancelled():
            return
        fault = recovery.exception()
        if isinstance(fault, Exception):
            self._faulty(fault)
            return
        lane.freed_at = self._clock.monotonic()
        self.form()
        self._settled()
