"""What is drawn of a simulation, whoever draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.control.simulation.arrivals import Floats
from gateway.control.simulation.runs import Run

__all__ = ["Curve", "Picture"]


@dataclass(frozen=True, slots=True)
class Curve:
    """One candidate: what it is called, whether it is as good as the baseline, and how its rollouts went."""

    label: str
    equal: bool
    runs: Sequence[Run]


@dataclass(frozen=True, slots=True)
class Picture:
    """``rate``: requests a second on average; ``times_s``: when each came, where that was recorded. ``alpha``: the
    promised chance of a false rollback."""

    title: str
    subtitle: str
    curves: Sequence[Curve]
    requests: int
    rate: float
    alpha: float
    times_s: Floats | None = None

    def requests_by(self, second: float) -> float:
        if self.times_s is None:
            return second * self.rate
        return float(np.searchsorted(self.times_s, second))
