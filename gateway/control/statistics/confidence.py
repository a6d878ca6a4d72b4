"""How much worse a candidate may still be: a sequential test of "harm is max_harm or more", and intervals.

**Difference of two shares**, after Turner and Grünwald, "Exact anytime-valid confidence intervals for contingency
tables and beyond" (2023). For each difference d of a grid there is a bet against the null "candidate less baseline
>= d" in every block: the product over its outcomes of p(outcome) / q(outcome), where p are rates guessed from *earlier*
blocks and q = (q_a, q_b) the rates of the null nearest to p, by Kullback-Leibler divergence weighted by the block's
units. Its mean is at most 1 under the null: the logarithm of the mean is, in the true rates, a sum of logarithms of
linear functions and so concave; it is 0 at q, where its slope is that of minus the divergence, and q being the nearest
point of a convex set makes that slope point nowhere upward within it. (For "<= d" the same.) Half the stake guesses
that both arms have one rate, half that each has its own. Blocks end by their number of units alone.

**One share** (disagreement): as ``gateway.intervals.share_sequence``, whose mixture is a test as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.control.statistics.e_values import divergence
from gateway.intervals import log_likelihood, log_mixture

__all__ = ["DifferenceTest", "expected_health_gain", "nearest", "share_log_e"]

Floats = NDArray[np.float64]

_HALF = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75)
DIFFERENCES = (*(-d for d in reversed(_HALF)), 0.0, *_HALF)
LEARN_UNITS = 50
"""Rates are guessed from so many units before any bet: 2.5 of a candidate with 5% of the keys."""
PRIOR_UNITS = 20.0
"""The candidate's own rate is guessed as if so many units had shown the baseline's."""


@dataclass(frozen=True, slots=True)
class DifferenceTest:
    """Bets against each difference of the grid: ``over`` against "d or more", ``under`` against "d or less", both as
    logarithms, for either way to guess (both at one rate; each at its own). The four counts are what has been seen."""

    differences: tuple[float, ...]
    over: tuple[tuple[float, ...], ...]
    under: tuple[tuple[float, ...], ...]
    candidate: int = 0
    candidate_bad: int = 0
    baseline: int = 0
    baseline_bad: int = 0

    @classmethod
    def begin(cls, max_harm: float) -> DifferenceTest:
        differences = tuple(sorted({*DIFFERENCES, max_harm}))
        nothing = (tuple(0.0 for _ in differences),) * 2
        return cls(differences, nothing, nothing)

    def taken(self, candidate: int, candidate_bad: int, baseline: int, baseline_bad: int) -> DifferenceTest:
        """With one more block. A block that is large beside what is known only teaches."""
        over, under = self.over, self.under
        known = self.candidate + self.baseline
        if known >= max(LEARN_UNITS, (candidate + baseline) // 4):
            gain, over_it = self._gains(candidate, candidate_bad, baseline, baseline_bad)
            over = _rows(np.array(over) + np.where(over_it, gain, 0.0))
            under = _rows(np.array(under) + np.where(over_it, 0.0, gain))
        return DifferenceTest(
            self.differences,
            over,
            under,
            self.candidate + candidate,
            self.candidate_bad + candidate_bad,
            self.baseline + baseline,
            self.baseline_bad + baseline_bad,
        )

    def _gains(self, candidate: int, candidate_bad: int, baseline: int, baseline_bad: int) -> tuple[Floats, Any]:
        p_a, p_b = self._guesses()
        d = np.array(self.differences)[None, :]
        q_a, q_b = nearest(p_a, p_b, candidate, baseline, d)
        gain = _log_ratio(candidate_bad, candidate - candidate_bad, p_a, q_a)
        gain = gain + _log_ratio(baseline_bad, baseline - baseline_bad, p_b, q_b)
        return gain, p_a - p_b < d

    def _guesses(self) -> tuple[Floats, Floats]:
        both = (self.candidate_bad + self.baseline_bad + 0.5) / (self.candidate + self.baseline + 1.0)
        baseline = (self.baseline_bad + 0.5) / (self.baseline + 1.0)
        own = (self.candidate_bad + PRIOR_UNITS * baseline) / (self.candidate + PRIOR_UNITS)
        return np.array([[both], [own]]), np.array([[both], [baseline]])

    def log_health(self, max_harm: float) -> float:
        """Against "the harm is max_harm or more"."""
        return float(_mean_of(self.over)[self.differences.index(max_harm)])

    def interval(self, level: float) -> tuple[float, float]:
        """Each side is wrong at any time with the chance ``level`` at most. It goes from its end of the grid as far as
        each difference is excluded: it passes the true one only if one bet, against the next of the grid, was won."""
        wanted = log(1.0 / level)
        under = list(zip(self.differences, _mean_of(self.under), strict=True))
        over = list(zip(self.differences, _mean_of(self.over), strict=True))
        low = [d for d, _ in takewhile(lambda pair: pair[1] >= wanted, under)]
        high = [d for d, _ in takewhile(lambda pair: pair[1] >= wanted, reversed(over))]
        return max(low, default=-1.0), min(high, default=1.0)

    def to_json(self) -> dict[str, Any]:
        return {
            "differences": list(self.differences),
            "over": [list(row) for row in self.over],
            "under": [list(row) for row in self.under],
            "counts": [self.candidate, self.candidate_bad, self.baseline, self.baseline_bad],
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> DifferenceTest:
        over, under = (tuple(tuple(row) for row in body[side]) for side in ("over", "under"))
        return cls(tuple(body["differences"]), over, under, *body["counts"])


def _rows(values: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(x) for x in row) for row in values)


def _mean_of(rows: tuple[tuple[float, ...], ...]) -> Floats:
    equal, own = (np.array(row) for row in rows)
    found: Floats = np.logaddexp(equal, own) - log(2.0)
    return found


def _log_ratio(bad: int, good: int, p: Floats, q: Floats) -> Floats:
    found: Floats = bad * np.log(p / q) + good * np.log((1.0 - p) / (1.0 - q))
    return found


def nearest(p_a: Floats, p_b: Floats, units_a: float, units_b: float, d: Floats) -> tuple[Floats, Floats]:
    """The rates with q_a - q_b = d nearest to p: the root of a cubic, in closed form (Miettinen and Nurminen,
    Statistics in Medicine 4, 1985, appendix I), a tenth of the time that halving takes; but where d is 0 that is
    too coarse for rates of one in a billion."""
    units, bad_b = units_a + units_b, units_b * p_b
    bad = units_a * p_a + bad_b
    square = ((units_a + 2.0 * units_b) * d - units - bad) / (3.0 * units)
    linear = ((units_b * d - units - 2.0 * bad_b) * d + bad) / (3.0 * units)
    turn = square**3 - 1.5 * square * linear + bad_b * d * (1.0 - d) / (2.0 * units)
    radius = np.copysign(np.sqrt(np.maximum(square**2 - linear, 1e-100)), turn)
    angle = np.arccos(np.minimum(np.maximum(turn / radius**3, -1.0), 1.0))
    b = np.where(d == 0.0, bad / units, 2.0 * radius * np.cos((np.pi + angle) / 3.0) - square)
    b = np.clip(b, np.maximum(0.0, -d) + 1e-15, np.minimum(1.0, 1.0 - d) - 1e-15)
    return b + d, b


def expected_health_gain(candidate_rate: float, baseline_rate: float, share: float, max_harm: float) -> float:
    """For each candidate unit, against "max_harm or more", were these the true rates."""
    if candidate_rate - baseline_rate >= max_harm:
        return 0.0
    p_a, p_b, d = (np.array([x]) for x in (candidate_rate, baseline_rate, max_harm))
    ratio = (1.0 - share) / share
    q_a, q_b = (float(q[0]) for q in nearest(p_a, p_b, 1.0, ratio, d))
    return divergence(candidate_rate, q_a) + ratio * divergence(baseline_rate, q_b)


def share_log_e(units: int, bad: int, limit: float) -> float:
    """Against "the share is the limit or more": the mixture of ``share_sequence``, as long as the share found lies
    below it."""
    if not units or bad / units >= limit:
        return 0.0
    return log_mixture(bad, units, limit) - log_likelihood(bad, units, limit)
