"""How one simulated rollout went, and what many of them come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gateway.control.simulation.arrivals import Arrivals, Booleans, Integers
from gateway.control.simulation.world import Outcomes

__all__ = ["PAUSED", "PROMOTED", "ROLLED_BACK", "UNFINISHED", "Figures", "Run", "Share", "Stage", "figures"]

PROMOTED, ROLLED_BACK, PAUSED, UNFINISHED = "promoted", "rolled-back", "paused", "unfinished"
_Z_95 = 1.959963984540054


class Run(NamedTuple):
    """``end`` is one of this module's words; ``cause`` the outcome that decided. ``requests`` and ``users`` are the
    route's until ``at_s``; ``met`` the users that the candidate answered, ``hit`` those whom it failed.
    ``weights``: from when on the candidate had which percent."""

    end: str
    cause: str
    at_s: float
    requests: int
    users: int
    candidate_requests: int
    met: int
    hit: int
    weights: tuple[tuple[float, float], ...]

    @property
    def detected(self) -> bool:
        """Harm was found, whatever the plan then does."""
        return self.end == ROLLED_BACK or (self.end == PAUSED and bool(self.cause))


@dataclass(frozen=True, slots=True)
class Stage:
    """What every rule is tried on: the requests, where in the key space the key of each lies, and what both versions
    make of it."""

    arrivals: Arrivals
    places: Integers
    outcomes: Outcomes

    def ended(
        self, asked: Booleans, end: str, at_s: float, *, cause: str = "", weights: Sequence[tuple[float, float]]
    ) -> Run:
        """``asked``: which requests the candidate answered."""
        requests = int(np.searchsorted(self.arrivals.times_s, at_s, side="left"))
        keys, asked = self.arrivals.keys[:requests], asked[:requests]
        failed = self.outcomes.candidate_failed[:requests]
        return Run(
            end=end,
            cause=cause,
            at_s=at_s,
            requests=requests,
            users=_distinct(keys),
            candidate_requests=int(np.count_nonzero(asked)),
            met=_distinct(keys[asked]),
            hit=_distinct(keys[asked & failed]),
            weights=tuple(weights),
        )


def _distinct(keys: Integers) -> int:
    return len(np.unique(keys))


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``of``, with its 95% interval (Wilson's score interval)."""

    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of if self.of else 0.0

    def interval(self) -> tuple[float, float]:
        if not self.of:
            return 0.0, 1.0
        square = _Z_95**2
        centre = (self.count + square / 2) / (self.of + square)
        spread = _Z_95 / (self.of + square) * math.sqrt(self.count * (1 - self.value) + square / 4)
        low = 0.0 if self.count == 0 else max(0.0, centre - spread)
        return low, 1.0 if self.count == self.of else min(1.0, centre + spread)

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval()
        return {"count": self.count, "of": self.of, "share": self.value, "low": low, "high": high}


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of the runs that it is about; None where there were none."""

    median: float | None
    most: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Quantiles:
        if not values:
            return cls(None, None)
        median, most = np.quantile(np.asarray(values, dtype=np.float64), (0.5, 0.9))
        return cls(float(median), float(most))

    def to_json(self) -> dict[str, Any]:
        return {"median": self.median, "p90": self.most}


@dataclass(frozen=True, slots=True)
class Figures:
    """``rolled_back``: those in which harm was found, also where the plan then pauses; ``detection_*`` are of
    these, ``promotion_s`` of those promoted, users and
    candidate requests of all runs until their end."""

    rolled_back: Share
    promoted: Share
    detection_requests: Quantiles
    detection_s: Quantiles
    promotion_s: Quantiles
    candidate_requests: Quantiles
    users_met: Quantiles
    users_hit: Quantiles
    ends: dict[str, int]
    causes: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in self.__slots__}
        return {name: part if isinstance(part, dict) else part.to_json() for name, part in parts.items()}


def figures(runs: Sequence[Run]) -> Figures:
    back = [run for run in runs if run.detected]
    promoted = [run for run in runs if run.end == PROMOTED]
    return Figures(
        rolled_back=Share(len(back), len(runs)),
        promoted=Share(len(promoted), len(runs)),
        detection_requests=Quantiles.of([run.requests for run in back]),
        detection_s=Quantiles.of([run.at_s for run in back]),
        promotion_s=Quantiles.of([run.at_s for run in promoted]),
        candidate_requests=Quantiles.of([run.candidate_requests for run in runs]),
        users_met=Quantiles.of([run.met / max(1, run.users) for run in runs]),
        users_hit=Quantiles.of([run.hit / max(1, run.users) for run in runs]),
        ends=dict(Counter(run.end for run in runs)),
        causes=dict(Counter(run.cause for run in back if run.cause)),
    )
