"""The control plane without a gateway: the same verbs on the same documents, for commands that work on a home."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.clock import SystemClock
from gateway.control.artifact_control import ArtifactControl, retention_rule
from gateway.control.assembly import Assembly
from gateway.control.audit import record_to_json, verify_store
from gateway.control.batch_control import BatchScoring
from gateway.control.catalogue_control import CatalogueControl
from gateway.control.checkpoint_keeper import CheckpointKeeper
from gateway.control.coordination import Coordination
from gateway.control.follow_control import FollowControl
from gateway.control.gate_control import GateControl
from gateway.control.gate_run import GateRunner
from gateway.control.gatekeeping import OpenGate
from gateway.control.model_control import ModelControl
from gateway.control.replica import ReplicaAbsent
from gateway.control.rollout_control import RolloutControl
from gateway.control.route_control import RouteControl
from gateway.control.signature_rule import signed_gate
from gateway.control.source_access import permissions, unrestricted
from gateway.control.store_access import AnyStore, coordination_for, open_store, store_view
from gateway.control.target_control import TargetControl
from gateway.control.token_control import TokenControl
from gateway.registry.blobs import BlobStore
from gateway.registry.environments import FOLDER, Environments
from gateway.registry.opening import open_blobs
from gateway.settings import Settings

__all__ = ["LocalControl", "open_control"]

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LocalControl:
    """Desired state and registry of a home."""

    store: AnyStore
    blobs: BlobStore
    routes: RouteControl
    models: ModelControl
    artifacts: ArtifactControl
    batches: BatchScoring
    catalogue: CatalogueControl
    targets: TargetControl
    gates: GateControl
    tokens: TokenControl
    rollouts: RolloutControl
    follow: FollowControl
    coordination: Coordination
    checkpoints: CheckpointKeeper

    async def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[View]:
        return [record_to_json(record) for record in await self.store.audit(after=after, limit=limit)]

    async def verify_audit(self) -> View:
        return (await verify_store(self.store)).to_json()

    async def audit_checkpoint(self) -> View:
        """Signed by the home's key, which is made if it has none."""
        await self.checkpoints.open()
        return {**(await self.checkpoints.now()).to_json(), "key": str(self.checkpoints.key.public)}

    async def replicas(self) -> View:
        views = [view.to_json() for view in await self.coordination.replicas()]
        return {"replicas": views, "store": await store_view(self.store)}


@asynccontextmanager
async def open_control(settings: Settings) -> AsyncIterator[LocalControl]:
    """Opens a home that a gateway may be serving at the same time: it notices what is changed here."""
    clock = SystemClock()
    settings.home.mkdir(parents=True, exist_ok=True)
    store = await open_store(settings)
    try:
        blobs, replica = open_blobs(settings), ReplicaAbsent(store, clock)
        coordination = coordination_for(settings, store, clock)
        environments = Environments(settings.home / FOLDER, settings.registry.environments)
        routes = RouteControl(store, replica, clock=clock, coordination=coordination)
        assemble = Assembly(blobs, settings.runtimes, environments).spec
        runner = GateRunner(blobs, assemble, clock, environments)
        gates = GateControl(store, runner, home=settings.home, clock=clock, targets=settings.targets or None)
        gatekeeper = signed_gate(settings, store, blobs, gates)
        rollouts = RolloutControl(store, replica, clock=clock, blobs=blobs, coordination=coordination, gates=gatekeeper)
        models = ModelControl(
            store,
            blobs,
            clock=clock,
            permissions=unrestricted(permissions(settings, environments)),
            targets=settings.targets,
            gates=gatekeeper,
        )
        yield LocalControl(
            store=store,
            blobs=blobs,
            artifacts=ArtifactControl(
                store, blobs, clock=clock, rule=retention_rule(settings), environments=environments
            ),
            routes=routes,
            models=models,
            batches=BatchScoring(models, assemble, settings.batch),
            catalogue=CatalogueControl(store, blobs, settings.home),
            targets=TargetControl(
                settings.targets,
                store,
                gates=gatekeeper,
                rollouts=rollouts,
                routes=routes,
                clock=clock,
                ungated=signed_gate(settings, store, blobs, OpenGate()),
            ),
            gates=gates,
            tokens=TokenControl(store, replica, clock=clock),
            rollouts=rollouts,
            follow=FollowControl(store, clock=clock),
            coordination=coordination,
            checkpoints=CheckpointKeeper(store, settings.home, settings.audit, clock=clock),
        )
    finally:
        await store.close()
