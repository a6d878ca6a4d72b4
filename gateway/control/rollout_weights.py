"""The weights of a rollout's step: the candidate's percent, the rest shared as before, in whole numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import gcd

from gateway.control.rollout_plan import percent_of
from gateway.control.route_spec import MAX_TOTAL_WEIGHT

__all__ = ["arms_at"]

SCALE = 1_000_000_000


def arms_at(before: Mapping[int, int], candidate: int, percent: float) -> dict[int, int]:
    """``percent`` for the candidate, the rest shared as before, in whole numbers: exactly, unless the sum would be too
    large for a split; then to a billionth. Totals that divide 100 are written as percents."""
    others = {version: weight for version, weight in before.items() if version != candidate and weight}
    part, total = percent_of(percent) / 100, sum(others.values())
    if part <= 0 or not others:
        return dict(before)
    exact = {version: weight * (part.denominator - part.numerator) for version, weight in others.items()}
    arms = _reduced(exact | {candidate: part.numerator * total})
    if sum(arms.values()) > MAX_TOTAL_WEIGHT:
        rest = 1 - part
        rounded = {version: max(1, round(rest * Fraction(weight, total) * SCALE)) for version, weight in others.items()}
        arms = rounded | {candidate: max(1, round(part * SCALE))}
    return {version: weight for version, weight in arms.items() if weight}


def _reduced(arms: Mapping[int, int]) -> dict[int, int]:
    common = gcd(*arms.values())
    total = sum(arms.values()) // common
    scale = 100 // total if 100 % total == 0 else 1
    return {version: weight // common * scale for version, weight in arms.items()}
