"""Numeric quality scores: an empirical-Bernstein confidence sequence on each arm's mean, and so on their difference.

After Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting" (2024), theorem 2, with the
guess of the mean and the size of the bet held through a block: both come from earlier blocks, which is all that its
proof asks. Scores are integers of ``SCALE`` to the policy's range, so that sums and squares add up over replicas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import log, log1p, sqrt
from typing import Any, NamedTuple, Self

from gateway.control.statistics.findings import Finding
from gateway.control.tallies import ARMS

__all__ = ["SCALE", "Scores", "scaled"]

SCALE = 10_000
LARGEST_BET = 0.5
TUNED_FOR = log(2.0 / 0.05)
"""The level that the bets are best for; they hold at any."""


def scaled(value: float, low: float, high: float) -> int:
    return round(SCALE * min(max((value - low) / (high - low), 0.0), 1.0))


class _Sums(NamedTuple):
    units: int = 0
    total: int = 0
    squares: int = 0


NOTHING = _Sums()


@dataclass(frozen=True, slots=True)
class Mean:
    """One arm. ``weight``, ``weighted``, ``spread``: sums of bets, of bets times scores, and what they may err by."""

    sums: _Sums = NOTHING
    taken: _Sums = NOTHING
    weight: float = 0.0
    weighted: float = 0.0
    spread: float = 0.0

    def advanced(self, total: _Sums) -> Mean:
        new = _Sums(*(one - two for one, two in zip(total, self.taken, strict=True)))
        if min(new) < 0:  # counts were lost
            return replace(self, taken=total)
        if not new.units:
            return self
        guess, variance = self._guesses()
        until = self.sums.units + new.units
        bet = min(LARGEST_BET, sqrt(2.0 * TUNED_FOR / (variance * until * log1p(until))))
        x, xx = new.total / SCALE, new.squares / SCALE**2
        off = max(xx - 2.0 * guess * x + new.units * guess * guess, 0.0)
        return Mean(
            _Sums(*(one + two for one, two in zip(self.sums, new, strict=True))),
            total,
            self.weight + bet * new.units,
            self.weighted + bet * x,
            self.spread + (-log1p(-bet) - bet) * off,
        )

    def _guesses(self) -> tuple[float, float]:
        units, x, xx = self.sums.units, self.sums.total / SCALE, self.sums.squares / SCALE**2
        mean = (0.5 + x) / (units + 1.0)
        return mean, max((0.25 + xx - 2.0 * mean * x + units * mean * mean) / (units + 1.0), 1e-6)


@dataclass(frozen=True, slots=True)
class Scores:
    candidate: Mean = Mean()
    baseline: Mean = Mean()

    def new_epoch(self) -> Self:
        return replace(
            self, candidate=replace(self.candidate, taken=NOTHING), baseline=replace(self.baseline, taken=NOTHING)
        )

    def advanced(self, totals: Mapping[str, Mapping[str, int]]) -> Self:
        candidate, baseline = (
            _Sums(
                *(
                    sum(outcomes.get(f"{arm}/{part}", 0) for outcomes in totals.values())
                    for part in ("units", "sum", "squares")
                )
            )
            for arm in ARMS
        )
        return replace(self, candidate=self.candidate.advanced(candidate), baseline=self.baseline.advanced(baseline))

    def finding(self, max_harm: float, level: float, low: float, high: float) -> Finding:
        a, b, span = self.candidate, self.baseline, high - low
        units = a.sums.units, 0, b.sums.units, 0
        if not a.weight or not b.weight:
            return Finding(*units, 0.0, 0.0, None, -span, span)
        gap = a.weighted / a.weight - b.weighted / b.weight
        per_nat = 1.0 / a.weight + 1.0 / b.weight
        err = a.spread / a.weight + b.spread / b.weight
        radius = err + log(2.0 / level) * per_nat
        found = span * (a.sums.total / a.sums.units - b.sums.total / b.sums.units) / SCALE
        log_harm = max((-gap - err) / per_nat - log(2.0), 0.0)
        log_health = max((gap + max_harm / span - err) / per_nat - log(2.0), 0.0)
        return Finding(
            *units,
            log_harm,
            log_health,
            found,
            max(span * (gap - radius), -span),
            min(span * (gap + radius), span),
            log_harm / a.sums.units,
            log_health / a.sums.units,
        )

    def to_json(self) -> dict[str, Any]:
        return {"candidate": _mean_to_json(self.candidate), "baseline": _mean_to_json(self.baseline)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        return cls(_mean_from_json(body["candidate"]), _mean_from_json(body["baseline"]))


def _mean_to_json(mean: Mean) -> dict[str, Any]:
    return {
        "sums": list(mean.sums),
        "taken": list(mean.taken),
        "weight": mean.weight,
        "weighted": mean.weighted,
        "spread": mean.spread,
    }


def _mean_from_json(body: Mapping[str, Any]) -> Mean:
    return Mean(_Sums(*body["sums"]), _Sums(*body["taken"]), body["weight"], body["weighted"], body["spread"])
