"""The few functions of probability that judging drift needs, on whole arrays, with numpy alone."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["chi_square_tail", "effect_bounds", "log_gamma", "normal_quantile"]

Floats = NDArray[np.float64]

_SHIFT = 8.0
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680)
_HALVINGS = 44
_DEEP_TAIL = 600.0
"""Beyond it a tail underflows: it is 0 to every reader."""


def log_gamma(values: Floats) -> Floats:
    """Of numbers above 0: Stirling's series, error below 1e-12 of the value. The standard library's takes one number
    at a time, and scipy, 40 MB resident, is no dependency of a gateway."""
    small = values < _SHIFT
    x = np.where(small, values + _SHIFT, values)
    inverse = 1.0 / x
    squared = inverse * inverse
    series = inverse * (_STIRLING[0] + squared * (_STIRLING[1] + squared * (_STIRLING[2] + squared * _STIRLING[3])))
    found: Floats = (x - 0.5) * np.log(x) - x + 0.5 * math.log(2.0 * math.pi) + series
    if small.any():
        low = values[small]
        product = np.ones_like(low)
        for step in range(int(_SHIFT)):
            product *= low + step
        found[small] -= np.log(product)
    return found


def chi_square_tail(value: float, degrees: int) -> float:
    """P(X >= value) for chi-square with ``degrees`` of freedom: the finite sums, so exact."""
    if degrees < 1 or value <= 0.0:
        return 1.0
    half = value / 2.0
    if half - degrees * math.log(max(half, 1.0)) > _DEEP_TAIL:
        return 0.0
    if degrees % 2 == 0:
        terms = [k * math.log(half) - math.lgamma(k + 1.0) - half for k in range(degrees // 2)]
        return min(1.0, math.fsum(math.exp(term) for term in terms))
    terms = [(k + 0.5) * math.log(half) - math.lgamma(k + 1.5) - half for k in range((degrees - 1) // 2)]
    return min(1.0, math.erfc(math.sqrt(half)) + math.fsum(math.exp(term) for term in terms))


def normal_quantile(share: float) -> float:
    """Bisection on the error function: called some hundred times for a profile, never for a row."""
    low, high = -9.0, 9.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if 0.5 * math.erfc(-middle / math.sqrt(2.0)) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2.0


def effect_bounds(squares: Floats, degrees: Floats, rows: Floats, quantile: float = 1.96) -> tuple[Floats, Floats]:
    """Bounds of effects whose estimated squares are ``squares`` (their chance part, ``degrees / rows``, still in them).

    ``rows * square`` is noncentral chi-square with noncentrality ``rows * effect^2``; its quantiles are those of
    Sankaran, "On the non-central chi-square distribution" (Biometrika 1959): off by a thousandth of the probability.
    """
    rows, degrees = np.maximum(rows, 1e-9), np.maximum(degrees, 1.0)
    seen = rows * squares
    low = np.sqrt(_noncentrality(seen, degrees, quantile) / rows)
    return low, np.sqrt(_noncentrality(seen, degrees, -quantile) / rows)


def _noncentrality(seen: Floats, degrees: Floats, quantile: float) -> Floats:
    """The noncentrality under which ``seen`` stands ``quantile`` deviations above the middle; 0 when none does."""
    low, high = np.zeros_like(seen), 2.0 * (seen + quantile * quantile) + 100.0
    none = _deviations(seen, degrees, low) <= quantile
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        more = _deviations(seen, degrees, middle) > quantile
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.where(none, 0.0, (low + high) / 2.0)


def _deviations(seen: Floats, degrees: Floats, noncentrality: Floats) -> Floats:
    mean = degrees + noncentrality
    twice = degrees + 2.0 * noncentrality
    power = 1.0 - 2.0 * mean * (degrees + 3.0 * noncentrality) / (3.0 * twice * twice)
    spread = twice / (mean * mean)
    slope = (power - 1.0) * (1.0 - 3.0 * power)
    middle = 1.0 + power * spread * (power - 1.0 - 0.5 * (2.0 - power) * slope * spread)
    deviation = power * np.sqrt(2.0 * spread) * (1.0 + 0.5 * slope * spread)
    found: Floats = ((seen / mean) ** power - middle) / deviation
    return found
