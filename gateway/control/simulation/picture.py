"""What is drawn of a simulation, whoever draws it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """``rate``: requests a second on average. ``alpha``: the promised chance of a false rollback."""

    title: str
    subtitle: str
    curves: Sequence[Curve]
    requests: int
    rate: float
    alpha: float
