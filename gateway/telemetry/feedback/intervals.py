"""Intervals of shares and means that stay valid however often one looks, since a dashboard looks all the time.

``share_sequence``: a Beta(1/2, 1/2) mixture of likelihoods over the likelihood of each p is a martingale under p
(Robbins, 1970), so the p at which it is below 1/alpha hold the true share at all times at once, with chance 1 - alpha.
``mean_sequence``: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (*Time-uniform
central limit theory and asymptotic confidence sequences*, 2024), for means of what has no bounds; like any central
limit, from some dozens of rows on. ``wilson`` is the usual interval, for one look.
"""

from __future__ import annotations

from math import inf, lgamma, log, sqrt
from statistics import NormalDist

__all__ = ["ALPHA", "Interval", "mean_sequence", "share_sequence", "wilson"]

ALPHA = 0.05

Interval = tuple[float, float]

_STEPS = 40
_TUNED_FOR_ROWS = 500.0
"""The mixture of ``mean_sequence`` is narrowest at about so many rows, and 1.7 times a fixed-size interval there."""


def share_sequence(hits: int, units: int, alpha: float = ALPHA) -> Interval:
    if not units:
        return 0.0, 1.0
    mixed = lgamma(hits + 0.5) + lgamma(units - hits + 0.5) - lgamma(units + 1.0) - 2.0 * lgamma(0.5)
    floor = mixed - log(1.0 / alpha)
    middle = hits / units
    return _edge(hits, units, floor, 0.0, middle), _edge(hits, units, floor, 1.0, middle)


def _edge(hits: int, units: int, floor: float, outside: float, inside: float) -> float:
    if _log_likelihood(hits, units, outside) >= floor:
        return outside
    for _ in range(_STEPS):
        middle = 0.5 * (outside + inside)
        if _log_likelihood(hits, units, middle) >= floor:
            inside = middle
        else:
            outside = middle
    return outside


def _log_likelihood(hits: int, units: int, p: float) -> float:
    if (p <= 0.0 and hits) or (p >= 1.0 and hits < units):
        return -inf
    return (hits * log(p) if hits else 0.0) + ((units - hits) * log(1.0 - p) if hits < units else 0.0)


def mean_sequence(units: int, mean: float, variance: float, alpha: float = ALPHA) -> Interval:
    """``variance`` of one row."""
    if units < 2 or not variance < inf:
        return -inf, inf
    rho = (-2.0 * log(alpha) + log(-2.0 * log(alpha) + 1.0)) / _TUNED_FOR_ROWS
    weight = units * rho + 1.0
    half = sqrt(max(variance, 0.0)) * sqrt(2.0 * weight / (units * units * rho) * log(sqrt(weight) / alpha))
    return mean - half, mean + half


def wilson(hits: int, units: int, alpha: float = ALPHA) -> Interval:
    if not units:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(1.0 - alpha / 2.0)
    centre, spread = (hits + z * z / 2.0) / (units + z * z), z / (units + z * z)
    half = spread * sqrt(hits * (units - hits) / units + z * z / 4.0)
    return max(0.0, centre - half), min(1.0, centre + half)
