"""Who could serve now, as a rollout must know it: the candidate on every replica, and the versions to go back to."""

from __future__ import annotations

from gateway.control.compatibility import incompatibility
from gateway.control.coordination import Coordination
from gateway.control.desired import DesiredRoute
from gateway.control.reconcile import Reconciler
from gateway.control.rollout_state import RolloutState
from gateway.messages import VersionRef
from gateway.serving.handle import Handle, VersionState

__all__ = ["Standing"]


class Standing:
    """Of this replica by its reconciler, of the others by what they announce."""

    def __init__(self, reconciler: Reconciler, coordination: Coordination) -> None:
        self._reconciler = reconciler
        self._coordination = coordination

    def __repr__(self) -> str:
        return f"<Standing {self._coordination.replica}>"

    def handle(self, ref: VersionRef) -> Handle | None:
        handle = self._reconciler.fleet.handles.get(ref)
        return handle if handle is not None and handle.state is VersionState.ACTIVE else None

    def fit(self, route: DesiredRoute, number: int, rollout: RolloutState) -> bool:
        """Loaded, warm, and fit to take the known good's place."""
        handle, baseline = self.handle(route.ref(number)), self.handle(route.ref(rollout.baseline))
        if handle is None or baseline is None:
            return handle is not None
        return not incompatibility(baseline.signature, handle.signature)

    async def ready(self, name: str, route: DesiredRoute) -> bool:
        """The candidate answers on every replica: a step must not send its keys where it is not."""
        rollout = route.document.status.rollout
        if rollout is None or self.handle(route.ref(rollout.candidate)) is None:
            return False
        others = [view for view in await self._coordination.replicas() if view.replica != self._coordination.replica]
        return all(view.revision >= route.revision and name not in view.behind for view in others)

    def refused(self, route: DesiredRoute, rollout: RolloutState) -> str:
        """Why the candidate will never do: it did not load, or clients of the known good could not use it."""
        ref = route.ref(rollout.candidate)
        handle, baseline = self.handle(ref), self.handle(route.ref(rollout.baseline))
        if handle is None:
            return self._reconciler.failure(ref) or ""
        return "" if baseline is None else incompatibility(baseline.signature, handle.signature)
