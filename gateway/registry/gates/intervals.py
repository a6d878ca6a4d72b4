"""Intervals and tests for figures of rows, single and paired. Pure.

Newcombe's (method 10 of Statistics in Medicine 17, 1998, 873-890) for the
difference of two; Tango's score interval (Statistics in Medicine 17, 1998, 891-908) and McNemar's exact test for two
proportions of the same rows; and for all else the percentile bootstrap of sums over blocks of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from gateway.intervals import Interval, wilson
from gateway.messages import Array

__all__ = ["BLOCKS", "bootstrap", "mcnemar", "newcombe", "tango"]

BLOCKS = 1000
"""Sums are kept for so many blocks of rows. Of fewer rows, each is a block of its own: the plain bootstrap."""

DRAWS = 2000
SEED = 1
_DRAWS_AT_ONCE = 100
_HALVINGS = 60


def newcombe(first: tuple[float, float], second: tuple[float, float], confidence: float) -> Interval:
    """Of ``first - second``, each ``(hits, n)``, of different rows."""
    one, other = first[0] / first[1], second[0] / second[1]
    one_low, one_high = wilson(*first, 1 - confidence)
    other_low, other_high = wilson(*second, 1 - confidence)
    difference = one - other
    below = math.hypot(one - one_low, other_high - other)
    above = math.hypot(one_high - one, other - other_low)
    return max(-1.0, difference - below), min(1.0, difference + above)


def tango(gained: int, lost: int, n: int, confidence: float) -> Interval:
    """Of ``(gained - lost) / n``: rows that only the first has right, less those that only the second has."""
    if n <= 0:
        return -1.0, 1.0
    z, difference = _z(confidence), (gained - lost) / n

    def score(delta: float) -> float:
        a = 2 * n
        b = -gained - lost + (2 * n - gained + lost) * delta
        c = -lost * delta * (1 - delta)
        lost_share = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = n * (2 * lost_share + delta * (1 - delta))
        spread = gained - lost - n * delta
        return 0.0 if spread == 0 else spread / math.sqrt(variance) if variance > 0 else math.copysign(1e9, spread)

    return _root(score, z, -1.0, difference), _root(score, -z, difference, 1.0)


def _root(score: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where the score, which falls, has the value."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if score(middle) > target else (low, middle)
    return (low + high) / 2


def mcnemar(gained: int, lost: int) -> float:
    """The chance of so uneven a split of the rows where the two differ, if neither were better: exact, two-sided."""
    n, few = gained + lost, min(gained, lost)
    if n == 0:
        return 1.0
    if n > 10_000:  # far beyond where the normal approximation with its correction is good to three digits
        z = max(0.0, abs(gained - lost) - 1) / math.sqrt(n)
        return min(1.0, 2 * (1 - NormalDist().cdf(z)))
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2) for k in range(few + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log) for log in logs))


def bootstrap(sums: Array, value: Callable[[Array], Array], confidence: float) -> Interval:
    """The percentile interval of ``value``, which turns sums ``[…, terms]`` into figures ``[…]``.

    ``sums`` has a row for each block ``[blocks, terms]``. The draws are the same each time, so a report is the same for
    the same data. (nan, nan) where more draws than lie outside of an end have no figure.
    """
    if not len(sums):
        return math.nan, math.nan
    weights = _draws(len(sums))
    # A stretch at a time: all at once would hold as many rows of every term.
    stretches = range(0, DRAWS, _DRAWS_AT_ONCE)
    drawn = np.concatenate([value(weights[at : at + _DRAWS_AT_ONCE] @ sums) for at in stretches])
    told, rest = np.isfinite(drawn), (1 - confidence) / 2
    if np.mean(~told) > rest:
        return math.nan, math.nan
    drawn = drawn[told]
    low, high = np.quantile(drawn, [rest, 1 - rest])
    return float(low), float(high)


@lru_cache(maxsize=2)
def _draws(blocks: int) -> Array:
    """How often each block is drawn, ``[draws, blocks]``; making them takes as long as using them."""
    draw = np.random.default_rng(SEED)
    return draw.multinomial(blocks, np.full(blocks, 1 / blocks), DRAWS).astype(np.float64)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
