"""The door of a queue: how many rows a batch takes, how long the wait is, and who need not come in.

All of it costs the same however many wait. A wait is predicted from what is ahead of an item: what runs, what waits
in its class and above, and its own batch.
"""

from __future__ import annotations

from gateway.errors import DeadlineUnreachable, QueueFull
from gateway.messages import VersionRef
from gateway.serving.cost import CostCurve
from gateway.serving.pace import Pace

__all__ = ["Admission"]

REVIEW_BATCHES = 16
"""Batches between two looks at the best batch size."""

TRIAL_BATCHES = 64
"""Of so many full batches one is larger than the best size, if enough waits: else a size that was slow once, while
the machine was busy with something else, would never be seen to be quick."""

ALLOWED_WEIGHT = 0.02
"""Of the newest item in the time that items allow: the last hundred count, so one impatient client changes nothing."""

SHARE_OF_ALLOWED = 0.45
"""Of the time allowed that a batch may take: an item waits for the batch that runs, then for its own."""


class Admission:
    """Batch limit and predicted wait of one queue, learned from every batch."""

    def __init__(self, ref: VersionRef, curve: CostCurve, *, max_rows: int, alone: bool) -> None:
        """``alone``: one item a batch, whatever its rows."""
        self.pace = Pace(curve)
        self.limit = 1 if alone else max_rows
        self._ref = ref
        self._max_rows = max_rows
        self._alone = alone
        self._allowed_s: float | None = None
        self._batches = 0
        self._trial = max_rows
        self._review()

    def __repr__(self) -> str:
        return f"<Admission [{self.limit} rows a batch | {self._full_s * 1000:.3g} ms each]>"

    def ran(self, rows: int, seconds: float) -> None:
        """A good batch took so long, from the end of the one before it, or from its hand-over."""
        self.pace.ran(rows, seconds)
        self._batches += 1
        if self._batches % REVIEW_BATCHES == 0:
            self._review()
        else:
            self._full_s = self.pace.batch_s(self.limit)

    def batch_rows(self, waiting_rows: int) -> int:
        """The limit of the next batch."""
        if waiting_rows >= self._trial > self.limit and self._batches % TRIAL_BATCHES == TRIAL_BATCHES - 1:
            return self._trial
        return self.limit

    def wait_s(self, rows: int, lanes: int) -> float:
        """Until so many rows are answered by engines that are free now."""
        return max(self.pace.batch_s(min(rows, self.limit)), self.pace.queue_s(rows, self.limit) / max(lanes, 1))

    def full(self, waiting_rows: int, rows: int, bound: int, lanes: int) -> QueueFull:
        """The wait it names is what the rows now waiting will take at the pace of the last batches."""
        wait = self.wait_s(waiting_rows, lanes) if self.pace.known else 1.0
        return QueueFull(
            f"the queue of {self._ref} is full: {waiting_rows} rows wait, {rows} more would pass the limit"
            f" of {bound}; try again in {wait:.3g} s",
            retry_after_s=wait,
        )

    def pushed_out(self, waiting_rows: int, lanes: int) -> QueueFull:
        """For an item that waited and made room for one that has more right to it."""
        wait = self.wait_s(waiting_rows, lanes) if self.pace.known else 1.0
        return QueueFull(
            f"the queue of {self._ref} is full, and this request gave way to one of higher priority, or of a client"
            f" with less in the queue; try again in {wait:.3g} s",
            retry_after_s=wait,
        )

    def require_reachable(self, ahead_rows: int, rows: int, *, left_s: float, busy_s: float, lanes: int) -> None:
        """Raises DeadlineUnreachable for what would be answered after its deadline, ``left_s`` from now.
        ``busy_s``: until an engine is free."""
        if self._allowed_s is None:
            self._allowed_s = left_s
        self._allowed_s += ALLOWED_WEIGHT * (left_s - self._allowed_s)
        # At most this long, which is enough to know for most; the exact wait is looked up for the others.
        batches = (ahead_rows + rows - 1) // self.limit + 1
        if self.pace.safe_s(busy_s + batches * self._full_s) <= left_s:
            return
        wait_s = self.pace.safe_s(busy_s + self.wait_s(ahead_rows + rows, lanes))
        if wait_s > left_s:
            raise DeadlineUnreachable(
                f"{ahead_rows} rows wait for {self._ref}; an answer takes {wait_s:.3g} s, the deadline"
                f" is in {left_s:.3g} s; try again in {wait_s - left_s:.3g} s, or allow more time",
                retry_after_s=wait_s - left_s,
            )

    def _review(self) -> None:
        if not self._alone:
            within_s = float("inf") if self._allowed_s is None else self._allowed_s * SHARE_OF_ALLOWED
            self.limit = self.pace.best_size(self._max_rows, within_s=within_s)
            self._trial = min(2 * self.limit, self._max_rows)
        self._full_s = self.pace.batch_s(self.limit)
