"""What a warm batch costs, by its rows: measured at load, read when a batch is given its time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

__all__ = ["CostCurve", "hang_limit_s"]

HANG_FACTOR = 10


def hang_limit_s(floor_ms: int, cost_s: float) -> float:
    """Time a run that should cost ``cost_s`` is given before its child counts as hung."""
    return max(floor_ms / 1000, HANG_FACTOR * cost_s)


@dataclass(frozen=True, slots=True)
class CostCurve:
    """Seconds a batch took, by rows in rising order; empty when nothing could be measured."""

    points: tuple[tuple[int, float], ...] = ()

    def predict(self, rows: int) -> float:
        """Seconds for a batch of ``rows``: straight lines between the points, past the last in proportion to it."""
        if not self.points:
            return 0.0
        sizes = [size for size, _ in self.points]
        place = bisect_left(sizes, rows)
        if place == len(sizes):
            size, seconds = self.points[-1]
            return seconds * rows / size
        size, seconds = self.points[place]
        if size == rows or place == 0:
            return seconds
        below, base = self.points[place - 1]
        return base + (seconds - base) * (rows - below) / (size - below)

    def per_row_s(self) -> float | None:
        """Seconds a row at the largest measured batch; None when nothing was measured."""
        if not self.points:
            return None
        size, seconds = self.points[-1]
        return seconds / size
