"""Which routes have a rollout, and whose outcomes it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.control.desired import DesiredRoute
from gateway.control.rollout_evidence import shares_of
from gateway.control.tallies import BASELINE, CANDIDATE
from gateway.messages import VersionRef

__all__ = ["ScoreRange", "Watch", "watches_of"]


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """``of`` what: ``error``, ``brier`` or ``grade``; ``worst`` may be above ``best``."""

    of: str
    worst: float
    best: float


@dataclass(frozen=True, slots=True)
class Watch:
    """A rollout whose outcomes are counted: under ``scope``, for one epoch of its route. ``score``: that which its plan
    judges by. ``shares``: the candidate's of the keys that the two have, by split."""

    scope: str
    epoch: int
    candidate: VersionRef
    baseline: VersionRef
    score: ScoreRange | None = None
    shares: Mapping[str, float] = field(default_factory=dict, compare=False)

    def arm_of(self, version: VersionRef) -> str | None:
        if version == self.candidate:
            return CANDIDATE
        return BASELINE if version == self.baseline else None


def watches_of(routes: Mapping[str, DesiredRoute]) -> dict[str, Watch]:
    """By route: those whose document has a rollout that runs."""
    found = {}
    for name, route in routes.items():
        rollout = route.document.status.rollout
        if rollout is not None:
            epoch = route.document.status.epoch
            scope = f"{name}/{rollout.id}"
            plan = rollout.plan
            score = None if plan.score is None else ScoreRange(plan.score.of, plan.score.worst, plan.score.best)
            arms = route.ref(rollout.candidate), route.ref(rollout.baseline)
            found[name] = Watch(scope, epoch, *arms, score, shares_of(route.document))
    return found
