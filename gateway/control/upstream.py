"""The registries of others, put together: names there are followed, and told what is served of what they have."""

from __future__ import annotations

from gateway.clock import Clock
from gateway.control.coordination import Coordination
from gateway.control.follow_control import FollowControl
from gateway.control.follower import Follower
from gateway.control.following import Following
from gateway.control.gatekeeping import Gatekeeper
from gateway.control.jobs import Jobs
from gateway.control.mlflow_standing import Naming
from gateway.control.mlflow_writer import MlflowWriter
from gateway.control.model_control import ModelControl
from gateway.control.reconcile import Reconciler
from gateway.control.rollout_control import RolloutControl
from gateway.control.source_access import mlflow_teller, resolving
from gateway.control.store import Store
from gateway.registry.sources import SourceAccess
from gateway.settings import Settings

__all__ = ["Upstream"]


class Upstream:
    """``follow``: the verbs. ``follower`` and ``mlflow`` run from ``start`` to ``close``."""

    def __init__(
        self,
        settings: Settings,
        access: SourceAccess,
        store: Store,
        *,
        models: ModelControl,
        rollouts: RolloutControl,
        gates: Gatekeeper,
        jobs: Jobs,
        coordination: Coordination,
        reconciler: Reconciler,
        clock: Clock,
    ) -> None:
        """What is followed is imported by ``models``, let in by ``gates`` and served by ``rollouts``."""
        mlflow = settings.registry.mlflow
        self.follow = FollowControl(store, clock=clock)
        self.follower = Follower(
            Following(
                store=store,
                models=models,
                rollouts=rollouts,
                gates=gates,
                jobs=jobs,
                resolve=resolving(access),
                clock=clock,
            ),
            coordination=coordination,
            reconciler=reconciler,
            clock=clock,
        )
        self.mlflow = MlflowWriter(
            store=store,
            coordination=coordination,
            reconciler=reconciler,
            naming=Naming(mlflow.aliases, mlflow.routes),
            tell=mlflow_teller(settings, access),
            clock=clock,
            retry_s=mlflow.retry_s,
        )

    def __repr__(self) -> str:
        return f"<Upstream {self.follower!r} {self.mlflow!r}>"

    def start(self) -> None:
        self.follower.start()
        self.mlflow.start()

    async def close(self) -> None:
        await self.follower.close()
        await self.mlflow.close()
