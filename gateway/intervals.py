"""Intervals of shares and means. Pure: figures in, figures out.

``wilson`` is the usual interval of a share, for one look. The others stay valid however often one looks, since
dashboards and rollouts look all the time:

``share_sequence``: a Beta mixture of likelihoods over the likelihood of each p is a martingale under p (Robbins, 1970),
so the p at which it is below 1/alpha hold the true share at all times at once, with chance 1 - alpha.
``mean_sequence``: the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (*Time-uniform
central limit theory and asymptotic confidence sequences*, 2024), for means of what has no bounds; like any central
limit, from some dozens of rows on.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, lgamma, log, sqrt
from statistics import NormalDist

__all__ = ["ALPHA", "Interval", "log_likelihood", "log_mixture", "mean_sequence", "share_sequence", "wilson"]

ALPHA = 0.05

Interval = tuple[float, float]

_STEPS = 48
_TUNED_FOR_ROWS = 500.0
"""The mixture of ``mean_sequence`` is narrowest at about so many rows, and 1.7 times a fixed-size interval there."""


def wilson(hits: float, units: float, alpha: float = ALPHA) -> Interval:
    """Of ``hits / units``; (0, 1) where there are none."""
    if units <= 0:
        return 0.0, 1.0
    z = _z(alpha)
    centre, spread = (hits + z * z / 2.0) / (units + z * z), z / (units + z * z)
    half = spread * sqrt(hits * (units - hits) / units + z * z / 4.0)
    return max(0.0, centre - half), min(1.0, centre + half)


def share_sequence(hits: int, units: int, alpha: float = ALPHA, *, centre: float = 0.5) -> Interval:
    """``centre``: where its prior lies."""
    floor = log_mixture(hits, units, centre) - log(1.0 / alpha)
    middle = hits / units if units else centre
    return _edge(hits, units, floor, 0.0, middle), _edge(hits, units, floor, 1.0, middle)


def log_mixture(hits: int, units: int, centre: float) -> float:
    a, b = 0.5, 0.5 * (1.0 - centre) / centre
    mixed = lgamma(hits + a) + lgamma(units - hits + b) - lgamma(units + a + b)
    return mixed + lgamma(a + b) - lgamma(a) - lgamma(b)


def log_likelihood(hits: int, units: int, p: float) -> float:
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


def _edge(hits: int, units: int, floor: float, outside: float, inside: float) -> float:
    """Where the likelihood falls to the floor, between the most likely share and the end; the end if it never does."""
    if log_likelihood(hits, units, outside) >= floor:
        return outside
    for _ in range(_STEPS):
        middle = 0.5 * (outside + inside)
        if log_likelihood(hits, units, middle) >= floor:
            inside = middle
        else:
            outside = middle
    return outside


@lru_cache(maxsize=64)
def _z(alpha: float) -> float:
    return NormalDist().inv_cdf(1.0 - alpha / 2.0)
