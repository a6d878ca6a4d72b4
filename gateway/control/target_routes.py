"""The routes that serve a target: which they are, what a promotion begins on them, what ends before a demotion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.control.desired import Desired, DesiredRoute, read_desired
from gateway.control.rollout_control import RolloutControl
from gateway.control.route_control import RouteControl
from gateway.control.store import Snapshot, Store
from gateway.errors import Conflict, StoreUnavailable, TurnoutError

__all__ = ["TargetRoutes"]

View = dict[str, Any]


class TargetRoutes:
    def __init__(self, store: Store, routes: RouteControl, rollouts: RolloutControl) -> None:
        self._store = store
        self._routes = routes
        self._rollouts = rollouts
        self._read = Desired()

    def desired(self, snapshot: Snapshot) -> Desired:
        """Parsed once each, as long as it does not change."""
        self._read = read_desired(snapshot, self._read)
        return self._read

    def of(self, snapshot: Snapshot, model: str, target: str) -> Mapping[str, DesiredRoute]:
        """The model's routes that serve the target. StoreUnavailable where a route cannot be read: it may be one."""
        desired = self.desired(snapshot)
        broken = sorted(str(key) for key in desired.unreadable if key.kind == "route")
        if broken:
            raise StoreUnavailable(f"nothing was changed: {', '.join(broken)} cannot be read, and may serve {target}")
        return {
            name: route
            for name, route in desired.routes.items()
            if route.document.spec.model == model and route.document.spec.target == target
        }

    def check_free(self, snapshot: Snapshot, model: str, target: str, number: int) -> None:
        """Before gates run for minutes: where a promotion begins rollouts, none of another version is under way."""
        for name, route in self.of(snapshot, model, target).items():
            rollout = route.document.status.rollout
            if rollout is not None and rollout.candidate != number:
                raise Conflict(
                    f"route {name} of {target} is rolling out {model}/{rollout.candidate}, and a promotion would begin "
                    f"with {number}; wait for its end, or end it (turnout rollout {name} --abort)"
                )

    def check_unused(self, snapshot: Snapshot, model: str, target: str, number: int) -> None:
        """Conflict where the version may answer."""
        for name, route in self.of(snapshot, model, target).items():
            if number in route.document.may_answer():
                raise Conflict(
                    f"{model}/{number} may answer on route {name}, which serves {target}; take it off there first: "
                    f"turnout rollback {name}, or --roll-back with the demotion (arms of weight 0, rules, fallback and "
                    "known good count too)"
                )

    async def begin(
        self, model: str, target: str, number: int, plan: Mapping[str, Any], *, actor: str
    ) -> Sequence[View]:
        """A rollout on each route that does not serve the version already. What did not begin says why: the version
        stands in the target all the same."""
        found = []
        for name, route in self.of(await self._store.snapshot(), model, target).items():
            if _has(route, number):
                continue
            try:
                begun = await self._rollouts.start(name, {**plan, "candidate": number}, actor=actor)
                found.append({"route": name, "started": True, "rollout": begun["rollout"]["id"]})
            except TurnoutError as error:
                found.append({"route": name, "started": False, "problem": str(error)})
        return found

    async def roll_back(self, model: str, target: str, number: int, *, reason: str, actor: str) -> Sequence[str]:
        """Routes that the version may answer on go back to their known good. Conflict, and nothing is done, where the
        version is that itself."""
        found = {
            name: route
            for name, route in self.of(await self._store.snapshot(), model, target).items()
            if number in route.document.may_answer()
        }
        for name, route in found.items():
            if route.document.status.known_good == number:
                raise Conflict(
                    f"{model}/{number} is the known good of route {name}; say where to go first: "
                    f"turnout rollback {name} --to VERSION"
                )
        for name in found:
            await self._routes.rollback(name, to=None, reason=reason, actor=actor)
        return list(found)


def _has(route: DesiredRoute, number: int) -> bool:
    """All traffic, or a rollout of it."""
    status = route.document.status
    if status.rollout is not None:
        return status.rollout.candidate == number
    return [arm.version for arm in status.split if arm.weight] == [number]
