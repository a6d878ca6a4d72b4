"""The control plane of one process, put together: what the admin API calls, and what runs behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway import __version__
from gateway.clock import Clock
from gateway.control.alarms import Alarms
from gateway.control.assembly import Assembly
from gateway.control.audit import record_to_json, verify_store
from gateway.control.batch_control import BatchControl, BatchScoring
from gateway.control.batch_records import BatchRecords
from gateway.control.catalogue_control import CatalogueControl
from gateway.control.checkpoint_keeper import CheckpointKeeper
from gateway.control.collector import Collector
from gateway.control.coordination import Alone, Coordination
from gateway.control.flag_rules import FlagRules
from gateway.control.flag_watch import FlagWatch
from gateway.control.flags import Flags
from gateway.control.follow_control import FollowControl
from gateway.control.follower import Follower
from gateway.control.following import Following
from gateway.control.gate_control import GateControl
from gateway.control.gate_run import GateRunner
from gateway.control.gate_schedule import GateSchedule
from gateway.control.gatekeeping import OpenGate
from gateway.control.guard import SETTLE_S, Guard
from gateway.control.holdings import Holdings
from gateway.control.jobs import Jobs
from gateway.control.judge import GuardPolicy
from gateway.control.kept_rollbacks import KeptRollbacks
from gateway.control.memory_budget import MemoryLimits
from gateway.control.mlflow_standing import Naming
from gateway.control.mlflow_writer import MlflowWriter
from gateway.control.model_control import ModelControl
from gateway.control.notifications import Notifications
from gateway.control.presence import Presence
from gateway.control.profile_control import ProfileControl
from gateway.control.reconcile import Reconciler
from gateway.control.replica import ReplicaHere
from gateway.control.residents import Residents
from gateway.control.rollbacks import Rollbacks
from gateway.control.rollout_control import RolloutControl
from gateway.control.rollout_driver import RolloutDriver
from gateway.control.route_control import RouteControl
from gateway.control.shared_state import SharedState
from gateway.control.signature_rule import signed_gate, signed_loads
from gateway.control.source_access import mlflow_teller, resolving, source_access
from gateway.control.store import Snapshot, Store
from gateway.control.store_watch import StoreWatch
from gateway.control.target_control import TargetControl
from gateway.control.token_control import TokenControl
from gateway.control.tokens import TokenRing
from gateway.control.version_views import VersionViews
from gateway.control.watches import watches_of
from gateway.control.webhooks import Webhooks
from gateway.dataplane import Dataplane
from gateway.errors import StoreUnavailable
from gateway.events.observer import Observer
from gateway.live_secrets import LiveSecrets
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.environments import FOLDER, Environments
from gateway.registry.registration import Permissions
from gateway.registry.sources import SourceAccess
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet
from gateway.settings import Settings

__all__ = ["ControlPlane"]

View = dict[str, Any]

FIRST_LOOK_S = 5.0
"""Start waits this long for the first look at the store, so that no request finds a gateway without routes."""


class ControlPlane:
    """``routes``, ``models``, ``tokens``, ``residents``, ``shared``, ``jobs``, ``batches``: the verbs. ``alarms`` is
    told by who watches what is served. ``ring`` verifies tokens. ``guard`` and ``holdings`` are observers that the
    composition root adds to those that ``observer`` tells.

    Start it after the fleet can load, close it before the fleet is closed.
    """

    def __init__(
        self,
        *,
        store: Store,
        blobs: BlobStore,
        fleet: Fleet,
        dataplane: Dataplane,
        settings: Settings,
        clock: Clock,
        observer: Observer,
        assemble: Callable[[VersionRef, str], VersionSpec] | None = None,
        batch_records: BatchRecords | None = None,
        coordination: Coordination | None = None,
        address: str = "",
        secrets: LiveSecrets | None = None,
    ) -> None:
        self._follow: Callable[[], None] = lambda: None
        self._elsewhere: Callable[[VersionRef], int] = lambda _: 0
        self._queue_elsewhere: Callable[[VersionRef], Mapping[str, int]] = lambda _: {}
        self.workers: Callable[[], Sequence[View]] = tuple
        self.store = store
        self.clock = clock
        self.secrets = secrets or LiveSecrets(clock)
        self.coordination = coordination or Alone(settings.home, clock)
        self.blobs = blobs
        self.fleet = fleet
        self._access = source_access(settings)
        self.environments = Environments(settings.home / FOLDER, settings.registry.environments)
        self.ring = TokenRing(clock)
        self.checkpoints = CheckpointKeeper(store, settings.home, settings.audit, clock=clock)
        self.flags = Flags(settings.flags, clock=clock)
        self.flag_watch = FlagWatch(self.flags.standing, used=self._names_flags, clock=clock)
        assemble = (
            assemble
            or Assembly(
                blobs,
                settings.runtimes,
                self.environments,
                counted=settings.telemetry.drift.enabled,
                busy_share=settings.telemetry.drift.busy_share,
            ).spec
        )
        self.reconciler = Reconciler(
            store=store,
            fleet=fleet,
            dataplane=dataplane,
            assemble=signed_loads(settings, blobs, assemble, self._entry),
            clock=clock,
            observer=observer,
            default_route=settings.default_route,
            default_timeout_ms=settings.limits.timeout_ms,
            took=self._took,
            applied=lambda: self._applied(),  # noqa: PLW0108 - what it tells is made later
            memory=MemoryLimits(
                settings.runtimes.memory_bytes, settings.runtimes.device_memory_bytes, settings.runtimes.lazy
            ),
            flags=FlagRules(
                self.flags,
                here=lambda ref: ref in dataplane.current.handles,
                missed=lambda miss: observer.flag_missed(miss),  # noqa: PLW0108 - it has no observers yet
            ),
        )
        self.rollbacks = Rollbacks(
            store=store,
            reconciler=self.reconciler,
            clock=clock,
            observer=observer,
            kept=KeptRollbacks(settings.home),
        )
        self._version_views = VersionViews(self.reconciler)
        self.holdings = Holdings()
        self.presence = Presence(
            self.coordination,
            self.reconciler,
            clock=clock,
            address=address,
            version=__version__,
            beat_s=settings.store.lease_s / 3,
        )
        self.store_watch = StoreWatch(store, self.coordination, self.reconciler, clock=clock, posts=("rollouts",))
        self.shared = SharedState(
            store,
            self.coordination,
            self.reconciler,
            self.store_watch,
            clock=clock,
            workers=lambda: self.workers(),  # noqa: PLW0108 - set later, by ``share``
        )
        here = ReplicaHere(self.reconciler, self.rollbacks, self.holdings, self.presence)
        asked = FlagRules(self.flags, here=lambda ref: ref in dataplane.current.handles, missed=lambda _: None)
        self.routes = RouteControl(store, here, asked, clock=clock, coordination=self.coordination)
        self.webhooks = Webhooks(self.secrets.values(settings.webhooks.secrets, "webhooks.secrets"), clock=clock)
        self.jobs = Jobs(settings.home / "jobs", clock=clock)
        self.gates = GateControl(
            store,
            GateRunner(blobs, assemble, clock, self.environments),
            home=settings.home,
            clock=clock,
            jobs=self.jobs,
            targets=settings.targets or None,
        )
        gatekeeper = signed_gate(settings, store, blobs, self.gates)
        self.rollouts = RolloutControl(
            store,
            here,
            clock=clock,
            blobs=blobs,
            coordination=self.coordination,
            known_secrets=self.webhooks.known,
            gates=gatekeeper,
        )
        self.collector = Collector(
            coordination=self.coordination,
            watches=lambda: watches_of(self.reconciler.desired.routes),
            clock=clock,
            patience_s=GuardPolicy.of(settings.guard).patience_s,
        )
        self.driver = RolloutDriver(
            store=store,
            coordination=self.coordination,
            counts=self.collector,
            reconciler=self.reconciler,
            rollbacks=self.rollbacks,
            webhooks=self.webhooks,
            clock=clock,
        )
        self.alarms = Alarms(store, clock)
        self.gate_schedule = GateSchedule(
            self.gates, self.alarms, coordination=self.coordination, reconciler=self.reconciler, clock=clock
        )
        self.notifications = Notifications(
            settings.notifications, store=store, coordination=self.coordination, clock=clock, secrets=self.secrets
        )
        self.models = ModelControl(
            store,
            blobs,
            clock=clock,
            permissions=permissions(settings, self.environments, self._access),
            targets=settings.targets,
            gates=gatekeeper,
        )
        self.targets = TargetControl(
            settings.targets,
            store,
            gates=gatekeeper,
            rollouts=self.rollouts,
            routes=self.routes,
            clock=clock,
            ungated=signed_gate(settings, store, blobs, OpenGate()),
        )
        self.follow = FollowControl(store, clock=clock)
        self.follower = Follower(
            Following(
                store=store,
                models=self.models,
                rollouts=self.rollouts,
                gates=gatekeeper,
                jobs=self.jobs,
                resolve=resolving(self._access),
                clock=clock,
            ),
            coordination=self.coordination,
            reconciler=self.reconciler,
            clock=clock,
        )
        self.mlflow = MlflowWriter(
            store=store,
            coordination=self.coordination,
            reconciler=self.reconciler,
            naming=Naming(settings.registry.mlflow.aliases, settings.registry.mlflow.routes),
            tell=mlflow_teller(settings, self._access),
            clock=clock,
            retry_s=settings.registry.mlflow.retry_s,
        )
        self.catalogue = CatalogueControl(store, blobs, settings.home)
        self.batches = BatchControl(
            BatchScoring(self.models, assemble, settings.batch), self.jobs, settings.batch, records=batch_records
        )
        self.profiles = ProfileControl(store, blobs, fleet, clock=clock, counted=settings.telemetry.drift.enabled)
        self.tokens = TokenControl(store, here, clock=clock)
        self.residents = Residents(store, self.reconciler, load_timeout_s=settings.runtimes.load_timeout_s)
        self.guard: Guard | None = None
        if settings.guard.enabled:
            self.guard = Guard(
                dataplane=dataplane,
                rollbacks=self.rollbacks,
                store=store,
                policy=GuardPolicy.of(settings.guard),
                clock=clock,
                waiting=self._waiting,
                settle_s=SETTLE_S if settings.server.workers > 1 else 0.0,
            )

    @property
    def observers(self) -> Sequence[Observer]:
        """What of this wants to be told what becomes of requests."""
        return [self.reconciler.budget, self.flag_watch, self.collector, *([self.guard] if self.guard else [])]

    def __repr__(self) -> str:
        return f"<ControlPlane {self.reconciler!r}>"

    def _entry(self, ref: VersionRef) -> CatalogueEntry:
        return self.reconciler.desired.models[ref.model].version(ref.number)

    async def start(self, home: Path | None = None, *, last: Snapshot | None = None) -> None:
        """Returns when tokens and routes are known here and flags have data, or could not get any in time; versions
        are then loading. ``home``: where the first admin token is left. Raises StoreUnavailable when the store cannot
        be read and there is no ``last`` state to serve from."""
        if home is not None:
            await self._bootstrap(home, last)
            await self.checkpoints.start()
        await self.jobs.open()
        await self.flags.start()
        await self.reconciler.start(last)
        self.rollbacks.start()
        self.collector.start()
        self.driver.start()
        self.follower.start()
        self.mlflow.start()
        self.alarms.start()
        self.gate_schedule.start()
        self.secrets.start()
        self.notifications.start()
        self.presence.start()
        self.store_watch.start()

    async def _bootstrap(self, home: Path, last: Snapshot | None) -> None:
        try:
            await self.tokens.bootstrap(home)
        except StoreUnavailable:
            if last is None:
                raise

    async def close(self) -> None:
        """Stops deciding; what is in force stays in force. The store and the fleet are the caller's to close."""
        self._access.stopping.set()
        self.environments.close()
        await self.follower.close()
        await self.mlflow.close()
        await self.gate_schedule.close()
        await self.gates.close()
        await self.jobs.close()
        if self.guard is not None:
            await self.guard.close()
        await self.driver.close()
        await self.profiles.close()
        await self.alarms.close()
        await self.notifications.close()
        await self.collector.close()
        await self.webhooks.close()
        await self.store_watch.close()
        await self.presence.close()
        await self.coordination.close()
        await self.rollbacks.close()
        await self.reconciler.close()
        await self.flags.close()
        await self.secrets.close()
        await self.checkpoints.close()

    def share(
        self,
        *,
        follow: Callable[[], None],
        waiting: Callable[[VersionRef], int],
        queue: Callable[[VersionRef], Mapping[str, int]],
        view: Callable[[], Sequence[View]],
    ) -> None:
        """Other processes serve what is in force here: ``follow`` is told whenever it may have changed, ``waiting``
        gives the requests that a version holds there, ``queue`` what its queues there add to the one here, ``view``
        shows them."""
        self._follow, self._elsewhere, self._queue_elsewhere, self.workers = follow, waiting, queue, view

    def degraded(self) -> Sequence[str]:
        """What ``/readyz`` is to say of flags, the store, the audit log and who is to be notified."""
        troubles = (*self.flag_watch.degraded(), *self.store_watch.troubles(), *self.checkpoints.degraded())
        return [*troubles, *self.notifications.degraded(), *self.secrets.troubles()]

    async def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[View]:
        return [record_to_json(record) for record in await self.store.audit(after=after, limit=limit)]

    async def verify_audit(self) -> View:
        return (await verify_store(self.store)).to_json()

    async def audit_checkpoint(self) -> View:
        """The newest, signed now if anything has changed. Raises Conflict, NotFound or StoreUnavailable."""
        return {**(await self.checkpoints.now()).to_json(), "key": str(self.checkpoints.key.public)}

    async def versions(self) -> Sequence[View]:
        """Every version that is here, in whatever state; and those that could not even be tried."""
        return await self._version_views.all(self._queue_elsewhere)

    def whereabouts(self, ref: VersionRef) -> tuple[str, str]:
        """State and reason of a version that does not answer now: ``absent`` when nothing wants it here."""
        return self._version_views.whereabouts(ref)

    def _names_flags(self) -> bool:
        routes = self.reconciler.in_force.values()
        return any(rule.choose is not None for in_force in routes for rule in in_force.route.rules)

    def _applied(self) -> None:
        self._follow()
        self.profiles.follow(self.reconciler.desired)
        self.presence.changed()

    def _took(self, snapshot: Snapshot) -> None:
        self.ring.install(snapshot.documents.values())
        self.checkpoints.took(snapshot.revision)
        self.notifications.took(snapshot.revision)

    def _waiting(self, ref: VersionRef) -> int:
        handle = self.fleet.handles.get(ref)
        batcher = None if handle is None else handle.statistics().batcher
        here = 0 if batcher is None else batcher.queued_items + batcher.running_items
        return here + self._elsewhere(ref)


def permissions(settings: Settings, environments: Environments, access: SourceAccess | None = None) -> Permissions:
    """What the settings allow and assume at registration."""
    runtimes = settings.runtimes
    return Permissions(
        allow_pickle=runtimes.allow_pickle,
        allow_inline=runtimes.allow_inline,
        default_device=runtimes.device,
        default_threads=runtimes.threads,
        access=access or source_access(settings),
        environments=environments,
    )
