"""What a route's status holds of its rollout: plan, place in it, weights over time; and the versions proved by one.

Times are seconds since the epoch, for records: how long a step has lasted is measured on the monotonic clock of who
drives it, so that a clock that jumps neither hurries nor stalls a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

from gateway.control.rollout_plan import PlanSpec

__all__ = ["ENDED", "MAX_MARKS", "MAX_TELLINGS", "Mark", "Phase", "Proof", "RolloutState", "Telling"]

MAX_MARKS = 200
"""Changes of weight that are kept; a plan has 50 steps at most, the rest are pauses and new epochs."""

MAX_TELLINGS = 64
"""Changes that webhooks are owed; older ones have long been told, or given up."""


class Phase(StrEnum):
    """Where a rollout stands. The last three are ends."""

    PREPARING = "preparing"
    SHADOWING = "shadowing"
    STEPPING = "stepping"
    WAITING = "waiting"
    PAUSED = "paused"
    BAKING = "baking"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"


ENDED = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED})


@dataclass(frozen=True, slots=True)
class Mark:
    """From ``at`` on the candidate had ``percent`` of the split; ``by`` whom, and what for."""

    at: float
    percent: float
    phase: str
    by: str

    def to_json(self) -> dict[str, Any]:
        return {"at": self.at, "percent": self.percent, "phase": self.phase, "by": self.by}


@dataclass(frozen=True, slots=True)
class Telling:
    """A change that the plan's ``event`` webhooks are owed: stored with the change itself, so that whoever leads next
    tells what a leader that died did not. ``number`` counts them within the rollout; deliveries are named by it."""

    number: int
    event: str
    at: float
    by: str
    phase: str
    percent: float
    next_phase: str
    next_percent: float
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Proof:
    """A version that earned its place as known good: by the rollout named, on the evidence shown, or by an operator."""

    version: int
    at: float
    by: str
    rollout: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "at": self.at,
            "by": self.by,
            "rollout": self.rollout,
            "evidence": dict(self.evidence),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Proof:
        return cls(
            int(body["version"]), float(body["at"]), str(body["by"]), str(body["rollout"]), dict(body["evidence"])
        )


@dataclass(frozen=True, slots=True)
class RolloutState:
    """``id`` is unique for ever: evidence is kept under it, so that no rollout inherits another's. ``step`` is the
    place in ``plan.climb`` (-1: none yet; past the last: the bake). ``paused_in`` is the phase to go on in. ``harm``
    names the stream that was found harmful. ``reason`` says why it is paused, or how it ended. ``renewals``: how often
    the evidence began anew because it was lost. ``tellings``: what webhooks are owed after each change."""

    id: str
    plan: PlanSpec
    baseline: int
    phase: Phase
    by: str
    started_at: float
    entered_at: float
    step: int = -1
    before: Mapping[int, int] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    paused_in: Phase | None = None
    harm: str = ""
    reason: str = ""
    ended_at: float | None = None
    ended_by: str = ""
    renewals: int = 0
    tellings: tuple[Telling, ...] = ()

    @property
    def candidate(self) -> int:
        return self.plan.candidate

    @property
    def last_step(self) -> bool:
        return self.step >= len(self.plan.climb) - 1

    @property
    def percent(self) -> float:
        """The candidate's part of the split, as the step has it; before the first, and after an abort, what it had."""
        if self.phase is Phase.PROMOTED:
            return 100.0
        if self.phase is Phase.ROLLED_BACK:
            return 0.0
        if self.phase is Phase.ABORTED or self.step < 0:
            return round(100 * self.before.get(self.candidate, 0) / max(1, sum(self.before.values())), 4)
        if self.step < len(self.plan.climb):
            return self.plan.climb[self.step].weight
        return 100.0 if self.plan.bake is None else 100.0 - self.plan.bake.holdback

    @property
    def active_phase(self) -> Phase:
        """The phase that it is in, or was in when it was paused."""
        return self.paused_in if self.phase is Phase.PAUSED and self.paused_in is not None else self.phase

    def moved(self, phase: Phase, *, at: float, by: str, **changes: Any) -> RolloutState:
        """The next state; a mark is left where the weight changes, and a telling where webhooks are owed one."""
        fresh = replace(self, phase=phase, entered_at=at, **changes)
        fresh = replace(fresh, tellings=self._owed(fresh, at=at, by=by))
        if fresh.percent == self.percent and self.marks:
            return fresh
        mark = Mark(at, fresh.percent, str(phase), by)
        return replace(fresh, marks=(*self.marks, mark)[-MAX_MARKS:])

    def _owed(self, fresh: RolloutState, *, at: float, by: str) -> tuple[Telling, ...]:
        """What webhooks are owed once the state is ``fresh``. Its beginning is told by who began it."""
        event = "rolled_back" if fresh.phase is Phase.ROLLED_BACK else "after"
        if not self.marks or not getattr(self.plan.webhooks, event):
            return self.tellings
        number = self.tellings[-1].number + 1 if self.tellings else 1
        was, now = (str(self.phase), self.percent), (str(fresh.phase), fresh.percent)
        telling = Telling(number, event, at, by, *was, *now, fresh.reason)
        return (*self.tellings, telling)[-MAX_TELLINGS:]

    def ended(self, phase: Phase, *, at: float, by: str, reason: str, harm: str = "") -> RolloutState:
        fresh = self.moved(phase, at=at, by=by, paused_in=None, reason=reason, harm=harm or self.harm)
        return replace(fresh, entered_at=self.entered_at, ended_at=at, ended_by=by)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "candidate": self.candidate,
            "baseline": self.baseline,
            "phase": str(self.phase),
            "step": self.step,
            "percent": self.percent,
            "by": self.by,
            "started_at": self.started_at,
            "entered_at": self.entered_at,
            "before": {str(version): weight for version, weight in self.before.items()},
            "weights": [mark.to_json() for mark in self.marks],
            "paused_in": None if self.paused_in is None else str(self.paused_in),
            "harm": self.harm,
            "reason": self.reason,
            "ended_at": self.ended_at,
            "ended_by": self.ended_by,
            "renewals": self.renewals,
            "tellings": [telling.to_json() for telling in self.tellings],
            "plan": self.plan.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> RolloutState:
        return cls(
            id=str(body["id"]),
            plan=PlanSpec.parse(body["plan"]),
            baseline=int(body["baseline"]),
            phase=Phase(body["phase"]),
            by=str(body["by"]),
            started_at=float(body["started_at"]),
            entered_at=float(body["entered_at"]),
            step=int(body["step"]),
            before={int(version): int(weight) for version, weight in body["before"].items()},
            marks=tuple(Mark(m["at"], m["percent"], m["phase"], m["by"]) for m in body["weights"]),
            paused_in=None if body["paused_in"] is None else Phase(body["paused_in"]),
            harm=str(body["harm"]),
            reason=str(body["reason"]),
            ended_at=None if body["ended_at"] is None else float(body["ended_at"]),
            ended_by=str(body["ended_by"]),
            renewals=int(body.get("renewals", 0)),
            tellings=tuple(Telling(**telling) for telling in body.get("tellings", ())),
        )
