"""What one test of one stream has found so far, whichever kind of outcome it tests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``log_harm`` and ``log_health``: logarithms of e-values. ``low`` and ``high`` bound the difference, each side at
    the level asked. ``harm_pace`` and ``health_pace``: what a unit of the candidate adds at the rates found so far.
    ``means``: of scores, the candidate's and the baseline's."""

    units: int
    bad: int
    baseline_units: int
    baseline_bad: int
    log_harm: float
    log_health: float
    difference: float | None
    low: float
    high: float
    harm_pace: float = 0.0
    health_pace: float = 0.0
    means: tuple[float, float] | None = None
