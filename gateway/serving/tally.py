"""What a version's queue has done so far: counted by the batch where it can be."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.clock import Clock
from gateway.errors import TurnoutError
from gateway.serving.item import Item

__all__ = ["BatcherStatistics", "Tally"]


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


class Tally:
    """Counters of one queue, written by the queue and by whoever runs its failed batches again."""

    __slots__ = ("answered", "batches", "clock", "compute_s", "failed", "failed_s", "last_answer", "queue_s", "rows")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.answered = self.failed = self.batches = self.rows = 0
        self.queue_s = self.compute_s = self.failed_s = 0.0
        self.last_answer: float | None = None

    def __repr__(self) -> str:
        return f"<Tally [{self.answered} answered | {self.failed} failed | {self.batches} batches]>"

    def statistics(self, *, queued_items: int, queued_rows: int, running_items: int) -> BatcherStatistics:
        return BatcherStatistics(
            queued_items=queued_items,
            queued_rows=queued_rows,
            running_items=running_items,
            answered=self.answered,
            failed=self.failed,
            batches=self.batches,
            rows=self.rows,
            queue_s=self.queue_s,
            compute_s=self.compute_s,
            failed_s=self.failed_s,
            last_answer_wall=self._last_answer_wall(),
        )

    def ran(self, rows: int, compute_s: float) -> None:
        """A good batch."""
        self.batches += 1
        self.rows += rows
        self.compute_s += compute_s

    def answer(self, waits: list[float], now: float) -> None:
        """Items were answered that had waited so long."""
        self.answered += len(waits)
        self.queue_s += sum(waits)
        self.last_answer = now

    def fail(self, item: Item, failure: TurnoutError) -> None:
        """Fails an item with an exception made for it alone, unless nobody waits for it."""
        if not item.left:
            item.fail(failure)
            self._count(item)

    def fail_with_batch(self, item: Item, cause: TurnoutError) -> None:
        """Fails an item by what its batch met."""
        if not item.left:
            item.fail_with_batch(cause)
            self._count(item)

    def _last_answer_wall(self) -> float | None:
        if self.last_answer is None:
            return None
        return self.clock.wall() - (self.clock.monotonic() - self.last_answer)

    def _count(self, item: Item) -> None:
        self.failed += 1
        self.failed_s += self.clock.monotonic() - item.enqueued
