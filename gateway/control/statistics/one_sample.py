"""The one-sample test of a stream that has its limit in the policy: answers that differ from the known good's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from gateway.control.statistics.confidence import share_log_e
from gateway.control.statistics.e_values import Mixture, divergence, share_gain
from gateway.control.statistics.findings import Finding
from gateway.control.tallies import CANDIDATE
from gateway.intervals import share_sequence

__all__ = ["OneSample"]


@dataclass(frozen=True, slots=True)
class OneSample:
    """``units`` and ``bad``: all that was used; ``taken``: of this epoch's counters."""

    harm: Mixture = field(default_factory=Mixture)
    units: int = 0
    bad: int = 0
    taken: tuple[int, int] = (0, 0)

    def new_epoch(self) -> Self:
        return replace(self, harm=self.harm.started_anew(), taken=(0, 0))

    def advanced(self, totals: Mapping[str, Mapping[str, int]], limit: float) -> Self:
        bad, good = (
            sum(outcomes.get(f"{CANDIDATE}/{outcome}", 0) for outcomes in totals.values())
            for outcome in ("bad", "good")
        )
        new, new_bad = bad + good - self.taken[0], bad - self.taken[1]
        if new < new_bad or new_bad < 0:  # counts were lost
            return replace(self, taken=(bad + good, bad))
        if not new:
            return self
        harm = self.harm.at(self.units).multiplied(share_gain(new, new_bad, limit))
        return replace(self, harm=harm, units=self.units + new, bad=self.bad + new_bad, taken=(bad + good, bad))

    def finding(self, limit: float, level: float) -> Finding:
        low, high = share_sequence(self.bad, self.units, level, centre=limit)
        found = self.bad / self.units if self.units else None
        pace = 0.0 if found is None else divergence(found, limit)
        harms = found is not None and found > limit
        return Finding(
            self.units,
            self.bad,
            0,
            0,
            self.harm.log_e,
            share_log_e(self.units, self.bad, limit),
            found,
            low,
            high,
            pace if harms else 0.0,
            0.0 if harms else pace,
        )

    def to_json(self) -> dict[str, Any]:
        return {"harm": self.harm.to_json(), "units": self.units, "bad": self.bad, "taken": list(self.taken)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        units, bad = body["taken"]
        return cls(Mixture.from_json(body["harm"]), body["units"], body["bad"], (units, bad))
