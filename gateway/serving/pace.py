"""How long batches really take: the warm cost curve, corrected by every batch; and the batch size that follows.

A request that would be answered after its deadline costs an engine's time for nothing. Under
overload such requests crowd out those that could still be answered, until none is: so they are
refused at the door, by the wait that is predicted for them.

A batch corrects two things: the pace of the whole curve, quickly, since what slows one size down (a neighbour on
the machine, a lower clock) mostly slows all; and the pace of its own sizes, slowly, since caches and kernels make
one size dear and not another. In the end every size that is used has its own true cost.
"""

from __future__ import annotations

from bisect import bisect_left

from gateway.serving.cost import CostCurve, best_size

__all__ = ["Pace"]

WEIGHT = 0.2
"""Of the newest batch in the pace of all: about the last ten count."""

SIZE_WEIGHT = 0.05
"""Of the newest batch in the pace of its own sizes."""

FORGETTING = 0.01
"""Of what a size differs from the others: while one size alone is used, its change counts as a change of all."""

LONGEST_S = 1.0
"""A batch that took longer counts so much towards the jitter: one stall is not a habit."""

MARGIN = 1.05
JITTERS = 3

LARGEST_FACTOR = 50.0
"""Of one batch over its warm cost: a single stall must not shut the door for long."""

STRANGE = 4.0
"""Times off what was expected: such a batch says nothing of its size, only of the moment."""


_MOST_PLACES = 4096

_Place = tuple[float, int, int, float]
"""Of a number of rows: its warm cost, the measured sizes around it, and how far it is from the first to the second."""


class Pace:
    """Seconds from the hand-over of a batch to its answers. Without a curve, what a row took lately stands in."""

    def __init__(self, curve: CostCurve) -> None:
        self._curve = curve
        self._sizes = [size for size, _ in curve.points]
        self._factors = [1.0] * len(self._sizes)
        # The curve does not change, and is asked several times a batch.
        self._places: dict[int, _Place] = {}
        self._factor = 1.0
        self._jitter_s = 0.0
        self._row_s = curve.per_row_s() or None

    def __repr__(self) -> str:
        return f"<Pace [{self._factor:.2f} of the warm cost]>"

    def ran(self, rows: int, seconds: float) -> None:
        """A good batch went through."""
        row_s = seconds / max(rows, 1)
        if self._row_s is None:
            self._row_s = row_s
            return
        expected_s = self.batch_s(rows)
        self._jitter_s += WEIGHT * (abs(min(seconds, LONGEST_S) - expected_s) - self._jitter_s)
        self._row_s += WEIGHT * (row_s - self._row_s)
        if not expected_s or not self._sizes:
            return
        warm_s, below, above, share = self._place(rows)
        if warm_s <= 0:
            return
        size_factor = self._factors[below] * (1 - share) + self._factors[above] * share
        if expected_s / STRANGE < seconds < expected_s * STRANGE:
            miss = SIZE_WEIGHT * (seconds / (warm_s * self._factor) - size_factor) - FORGETTING * (size_factor - 1)
            self._factors[below] += miss * (1 - share)
            self._factors[above] += miss * share
        self._factor += WEIGHT * (min(LARGEST_FACTOR, seconds / (warm_s * size_factor)) - self._factor)

    def batch_s(self, rows: int) -> float:
        """0 while nothing is known."""
        if not self._sizes:
            return (self._row_s or 0.0) * rows
        warm_s, below, above, share = self._place(rows)
        if warm_s <= 0:
            return (self._row_s or 0.0) * rows
        return warm_s * self._factor * (self._factors[below] * (1 - share) + self._factors[above] * share)

    def queue_s(self, rows: int, max_rows: int) -> float:
        """Until an engine that is free now has answered ``rows`` in batches of at most ``max_rows``."""
        full, rest = divmod(rows, max_rows)
        return full * self.batch_s(max_rows) + (self.batch_s(rest) if rest else 0.0)

    def safe_s(self, seconds: float) -> float:
        """``seconds`` as predicted, so much longer that it is rarely passed: an answer at the deadline's very edge is
        late as often as not, and has cost as much as one in time."""
        return seconds * MARGIN + JITTERS * self._jitter_s

    def curve(self) -> CostCurve:
        """The warm curve as corrected so far."""
        return CostCurve(tuple((size, self.batch_s(size)) for size in self._sizes))

    def best_size(self, max_rows: int, *, within_s: float) -> int:
        """Rows of a batch when plenty wait; ``max_rows`` while the curve is not known."""
        return best_size(self.curve(), max_rows, within_s=within_s)

    @property
    def known(self) -> bool:
        return self._row_s is not None

    def _place(self, rows: int) -> _Place:
        place = self._places.get(rows)
        if place is None:
            place = self._located(rows)
            if len(self._places) < _MOST_PLACES:
                self._places[rows] = place
        return place

    def _located(self, rows: int) -> _Place:
        sizes, warm_s = self._sizes, self._curve.predict(rows)
        above = bisect_left(sizes, rows)
        if above == len(sizes):
            return warm_s, above - 1, above - 1, 0.0
        if above == 0 or sizes[above] == rows:
            return warm_s, above, above, 0.0
        return warm_s, above - 1, above, (rows - sizes[above - 1]) / (sizes[above] - sizes[above - 1])
