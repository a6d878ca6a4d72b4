"""What a warm batch costs, by its rows; and which number of rows is the right one."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Choice", "CostCurve", "best_size", "compare", "hang_limit_s"]

HANG_FACTOR = 10

WORTH = 1.05
"""A larger batch is worth its longer wait when it does at least so many times the rows a second."""


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


def best_size(curve: CostCurve, max_rows: int, *, within_s: float) -> int:
    """Rows of a batch when plenty wait: the smallest measured size beyond which rows per second no longer improve
    worth the wait, among those that take at most ``within_s`` (the smallest of all when none does).

    ``max_rows`` when nothing was measured.
    """
    points = [(size, seconds) for size, seconds in curve.points if size <= max_rows and seconds > 0]
    if not points:
        return max_rows
    fitting = [point for point in points if point[1] <= within_s] or points[:1]
    most = max(size / seconds for size, seconds in fitting)
    return next(size for size, seconds in fitting if size / seconds * WORTH >= most)


@dataclass(frozen=True, slots=True)
class Choice:
    """The size chosen by the curve beside the best one measured: rows a second of both, and chosen over best."""

    chosen: int
    chosen_rows_per_s: float
    best: int
    best_rows_per_s: float

    @property
    def share(self) -> float:
        return self.chosen_rows_per_s / self.best_rows_per_s if self.best_rows_per_s else 1.0


def compare(chosen: int, fixed_rows_per_s: Mapping[int, float]) -> Choice:
    """How the size that a version's curve chose does beside every fixed size: ``fixed_rows_per_s`` holds what each
    size answered when it was the only one allowed, the chosen one among them. KeyError when it is not."""
    best = max(fixed_rows_per_s, key=fixed_rows_per_s.__getitem__)
    return Choice(chosen, fixed_rows_per_s[chosen], best, fixed_rows_per_s[best])
