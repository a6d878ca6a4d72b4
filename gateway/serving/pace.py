"""How long a queue really takes: the warm cost curve, corrected by every batch, and the wait that follows from it.

A request that would be answered after its deadline costs an engine's time for nothing. Under
overload such requests crowd out those that could still be answered, until none is: so they are
refused at the door, by the wait that is predicted for them.
"""

from __future__ import annotations

from gateway.serving.cost import CostCurve

__all__ = ["Pace"]

WEIGHT = 0.2
"""Of the newest batch: about the last ten count."""

LONGEST_S = 1.0
"""A batch that took longer counts so much towards the jitter: one stall is not a habit."""

MARGIN = 1.05
JITTERS = 3

LARGEST_FACTOR = 50.0
"""Of one batch over its warm cost: a single stall must not shut the door for long."""


class Pace:
    """Seconds from the forming of a batch to its answers. Without a curve, what a row took lately stands in."""

    def __init__(self, curve: CostCurve) -> None:
        self._curve = curve
        self._factor = 1.0
        self._jitter_s = 0.0
        self._row_s = curve.per_row_s()

    def __repr__(self) -> str:
        return f"<Pace [{self._factor:.2f} of the warm cost]>"

    def ran(self, rows: int, seconds: float) -> None:
        """A good batch went through."""
        if self.known:
            miss_s = abs(min(seconds, LONGEST_S) - self.batch_s(rows))
            self._jitter_s += WEIGHT * (miss_s - self._jitter_s)
        row_s = seconds / max(rows, 1)
        self._row_s = row_s if self._row_s is None else self._row_s + WEIGHT * (row_s - self._row_s)
        warm_s = self._curve.predict(rows)
        if warm_s > 0:
            self._factor += WEIGHT * (min(LARGEST_FACTOR, seconds / warm_s) - self._factor)

    def batch_s(self, rows: int) -> float:
        """0 while nothing is known."""
        warm_s = self._curve.predict(rows)
        return warm_s * self._factor if warm_s > 0 else (self._row_s or 0.0) * rows

    def queue_s(self, rows: int, max_rows: int) -> float:
        """Until an engine that is free now has answered ``rows`` in batches of at most ``max_rows``."""
        full, rest = divmod(rows, max_rows)
        return full * self.batch_s(max_rows) + (self.batch_s(rest) if rest else 0.0)

    def safe_s(self, seconds: float) -> float:
        """``seconds`` as predicted, so much longer that it is rarely passed: an answer at the deadline's very edge is
        late as often as not, and has cost as much as one in time."""
        return seconds * MARGIN + JITTERS * self._jitter_s

    @property
    def known(self) -> bool:
        return self._row_s is not None
