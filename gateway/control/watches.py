"""Which routes have a rollout, and whose outcomes it is judged by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.control.desired import DesiredRoute
from gateway.control.tallies import BASELINE, CANDIDATE
from gateway.messages import VersionRef

__all__ = ["Watch", "watches_of"]


@dataclass(frozen=True, slots=True)
class Watch:
    """A rollout whose outcomes are counted: under ``scope``, for one epoch of its route."""

    scope: str
    epoch: int
    candidate: VersionRef
    baseline: VersionRef

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
            found[name] = Watch(scope, epoch, route.ref(rollout.candidate), route.ref(rollout.baseline))
    return found
