"""How far a route is with the name that it follows in another system. Pure.

    (nothing seen) ──► importing ──► current      what the name points at is what answers here already
                           │  ├────► offered      registered, gates passed: an operator may roll it out
                           │  ├────► waiting      it would be rolled out, and something stands in the way for now
                           │  ├────► started ──► current | ended
                           │  ├────► refused      by its gates, by registration, or since it is in quarantine here
                           │  └────► failed       nothing is wrong with it; tried again
                           ▼
    any of them ◄────► unreachable                the other system does not answer, or has no such name any more

Whatever the state, the route serves what it serves: only a rollout moves it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gateway.control.rollout_state import Phase

if TYPE_CHECKING:
    from gateway.control.documents import RouteDocument

__all__ = ["FollowPhase", "FollowState", "Identity", "standing_of"]

Identity = Mapping[str, str | None]
"""``{"system", "name", "version", "digest", "algorithm", "url"}``: who a version is in the other system."""

_MAX_PROBLEM = 2000


class FollowPhase(StrEnum):
    IMPORTING = "importing"
    CURRENT = "current"
    OFFERED = "offered"
    WAITING = "waiting"
    STARTED = "started"
    ENDED = "ended"
    REFUSED = "refused"
    FAILED = "failed"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class FollowState:
    """``identity`` is who the name was last seen to point at, ``version`` its number here once it has one. ``since``:
    when the state was entered, seconds since the epoch. ``before``: the state that an unreachable system left."""

    source: str
    phase: FollowPhase
    since: float
    identity: Identity = field(default_factory=dict)
    version: int | None = None
    problem: str = ""
    before: FollowPhase | None = None

    def moved(self, phase: FollowPhase, *, at: float, problem: str = "", **changes: Any) -> FollowState:
        """The next state; what says the same again is the same, with its ``since``."""
        fresh = replace(self, phase=phase, problem=problem[:_MAX_PROBLEM], before=None, **changes)
        return self if replace(fresh, since=self.since) == self else replace(fresh, since=at)

    def unreachable(self, problem: str, *, at: float) -> FollowState:
        """An outage is one state, whatever words it finds from time to time: the first ones stay."""
        if self.phase is FollowPhase.UNREACHABLE:
            return self
        return replace(self.moved(FollowPhase.UNREACHABLE, at=at, problem=problem), before=self.phase)

    def answered(self, *, at: float) -> FollowState:
        """The system answers again: the state is what it was. What it failed with is told anew where it fails again."""
        if self.phase is not FollowPhase.UNREACHABLE or self.before is None:
            return self
        return self.moved(self.before, at=at)

    def sees(self, identity: Identity) -> bool:
        """The version that it saw last; or the same bytes under a later name, as after a commit in a repository of DVC
        that leaves the model as it was."""
        if not self.identity or identity.get("digest") is None:
            return bool(self.identity) and dict(self.identity) == dict(identity)
        return all(self.identity.get(name) == identity.get(name) for name in ("system", "name", "digest", "algorithm"))

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "state": str(self.phase),
            "since": self.since,
            "identity": dict(self.identity),
            "version": self.version,
            "problem": self.problem,
            "before": None if self.before is None else str(self.before),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> FollowState:
        """Raises KeyError, TypeError or ValueError."""
        return cls(
            source=str(body["source"]),
            phase=FollowPhase(body["state"]),
            since=float(body["since"]),
            identity=dict(body["identity"]),
            version=None if body["version"] is None else int(body["version"]),
            problem=str(body["problem"]),
            before=None if body["before"] is None else FollowPhase(body["before"]),
        )


def standing_of(document: RouteDocument, version: int, *, since: float) -> tuple[FollowPhase, str] | None:
    """What the route does with the version by itself, with the reason where its rollout ended badly; None: nothing."""
    status = document.status
    if status.rollout is not None and status.rollout.candidate == version:
        return FollowPhase.STARTED, ""
    weights = {arm.version: arm.weight for arm in status.split}
    alone = status.rollout is None and weights.get(version, 0) == sum(weights.values())
    if alone or status.known_good == version:
        return FollowPhase.CURRENT, ""
    last = status.last_rollout
    ended = last is not None and last.candidate == version and (last.ended_at or 0.0) >= since
    if last is not None and ended and last.phase is not Phase.PROMOTED:
        return FollowPhase.ENDED, f"its rollout ended: {last.phase}: {last.reason or 'no reason was given'}"
    return None
