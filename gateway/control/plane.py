"""The control plane of one process, put together: what the admin API calls, and what runs behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from gateway.control.gate_control import GateControl
from gateway.control.gate_run import GateRunner
from gateway.control.gate_schedule import GateSchedule
from gateway.control.gatekeeping import Gatekeeper, OpenGate
from gateway.control.guard import SETTLE_S, Guard
from gateway.control.holdings import Holdings
from gateway.control.in_force import InForce
from gateway.control.jobs import Jobs
from gateway.control.judge import GuardPolicy
from gateway.control.model_control import ModelControl
from gateway.control.notifications import Notifications
from gateway.control.presence import Presence
from gateway.control.profile_control import ProfileControl
from gateway.control.replica import ReplicaHere
from gateway.control.residents import Residents
from gateway.control.rollout_control import RolloutControl
from gateway.control.rollout_driver import RolloutDriver
from gateway.control.route_control import RouteControl
from gateway.control.shared_state import SharedState
from gateway.control.signature_rule import Assemble, signed_gate
from gateway.control.source_access import permissions, source_access
from gateway.control.store import Snapshot, Store
from gateway.control.store_watch import StoreWatch
from gateway.control.target_control import TargetControl
from gateway.control.token_control import TokenControl
from gateway.control.tokens import TokenRing
from gateway.control.upstream import Upstream
from gateway.control.version_views import VersionViews
from gateway.control.watches import watches_of
from gateway.control.webhooks import Webhooks
from gateway.dataplane import Dataplane
from gateway.errors import StoreUnavailable
from gateway.events.observer import Observer
from gateway.live_secrets import LiveSecrets
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.environments import FOLDER, Environments
from gateway.serving.fleet import Fleet
from gateway.settings import Settings

__all__ = ["ControlPlane"]

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """What other processes serve of what is in force here: by default there are none."""

    follow: Callable[[], None] = lambda: None
    waiting: Callable[[VersionRef], int] = lambda _: 0
    queue: Callable[[VersionRef], Mapping[str, int]] = lambda _: {}
    view: Callable[[], Sequence[View]] = tuple


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
        assemble: Assemble | None = None,
        batch_records: BatchRecords | None = None,
        coordination: Coordination | None = None,
        address: str = "",
        secrets: LiveSecrets | None = None,
    ) -> None:
        self._settings = settings
        self._dataplane = dataplane
        self._elsewhere = Elsewhere()
        self.store = store
        self.blobs = blobs
        self.fleet = fleet
        self.clock = clock
        self.secrets = secrets or LiveSecrets(clock)
        self.coordination = coordination or Alone(settings.home, clock)
        self.ring = TokenRing(clock)
        self.checkpoints = CheckpointKeeper(store, settings.home, settings.audit, clock=clock)
        self.jobs = Jobs(settings.home / "jobs", clock=clock)
        self._access = source_access(settings)
        self.environments = Environments(settings.home / FOLDER, settings.registry.environments)
        assemble = assemble or self._assembly().spec
        self._in_force = InForce(
            settings,
            store=store,
            blobs=blobs,
            fleet=fleet,
            dataplane=dataplane,
            assemble=assemble,
            clock=clock,
            observer=observer,
            took=self._took,
            applied=self._applied,
        )
        self.reconciler, self.rollbacks = self._in_force.reconciler, self._in_force.rollbacks
        self.memory_limits = self._in_force.limits
        self.flags, self.flag_watch = self._in_force.flags, self._in_force.flag_watch
        self._make_replica(address)
        self._make_alarms()
        gatekeeper = self._make_gates(assemble)
        self._make_routes(gatekeeper)
        self._make_models(gatekeeper)
        counted = settings.telemetry.drift.enabled
        self.profiles = ProfileControl(store, blobs, fleet, clock=clock, counted=counted)
        self.batches = BatchControl(
            BatchScoring(self.models, assemble, settings.batch), self.jobs, settings.batch, records=batch_records
        )
        self.guard = self._make_guard() if settings.guard.enabled else None

    def _assembly(self) -> Assembly:
        drift = self._settings.telemetry.drift
        return Assembly(
            self.blobs,
            self._settings.runtimes,
            self.environments,
            counted=drift.enabled,
            busy_share=drift.busy_share,
        )

    def _make_replica(self, address: str) -> None:
        """What is shown of this replica, and what is known here of the others and of the store."""
        self.residents = Residents(self.store, self.reconciler, load_timeout_s=self._settings.runtimes.load_timeout_s)
        self._version_views = VersionViews(self.reconciler)
        self.holdings = Holdings()
        self.presence = Presence(
            self.coordination,
            self.reconciler,
            clock=self.clock,
            address=address,
            version=__version__,
            beat_s=self._settings.store.lease_s / 3,
        )
        self.store_watch = StoreWatch(
            self.store, self.coordination, self.reconciler, clock=self.clock, posts=("rollouts",)
        )
        self.shared = SharedState(
            self.store,
            self.coordination,
            self.reconciler,
            self.store_watch,
            clock=self.clock,
            workers=lambda: self._elsewhere.view(),  # noqa: PLW0108 - set later, by ``share``
        )

    def _make_alarms(self) -> None:
        """What is raised here, and who is told of it and of all else that happens."""
        settings = self._settings
        self.alarms = Alarms(self.store, self.clock)
        self.webhooks = Webhooks(self.secrets.values(settings.webhooks.secrets, "webhooks.secrets"), clock=self.clock)
        self.notifications = Notifications(
            settings.notifications,
            store=self.store,
            coordination=self.coordination,
            clock=self.clock,
            secrets=self.secrets,
        )

    def _make_gates(self, assemble: Assemble) -> Gatekeeper:
        """Who is asked before a version is promoted, by whichever verb."""
        self.gates = GateControl(
            self.store,
            GateRunner(self.blobs, assemble, self.clock, self.environments),
            home=self._settings.home,
            clock=self.clock,
            jobs=self.jobs,
            targets=self._settings.targets or None,
        )
        self.gate_schedule = GateSchedule(
            self.gates, self.alarms, coordination=self.coordination, reconciler=self.reconciler, clock=self.clock
        )
        return signed_gate(self._settings, self.store, self.blobs, self.gates)

    def _make_routes(self, gatekeeper: Gatekeeper) -> None:
        """Who gets which version: routes, the tokens that may ask them, and rollouts with what drives them."""
        store, clock, coordination = self.store, self.clock, self.coordination
        here = ReplicaHere(self.reconciler, self.rollbacks, self.holdings, self.presence)
        self.routes = RouteControl(store, here, self._in_force.asked(), clock=clock, coordination=coordination)
        self.tokens = TokenControl(store, here, clock=clock)
        self.rollouts = RolloutControl(
            store,
            here,
            clock=clock,
            blobs=self.blobs,
            coordination=coordination,
            known_secrets=self.webhooks.known,
            gates=gatekeeper,
        )
        self.collector = Collector(
            coordination=coordination,
            watches=lambda: watches_of(self.reconciler.desired.routes),
            clock=clock,
            patience_s=GuardPolicy.of(self._settings.guard).patience_s,
        )
        self.driver = RolloutDriver(
            store=store,
            coordination=coordination,
            counts=self.collector,
            reconciler=self.reconciler,
            rollbacks=self.rollbacks,
            webhooks=self.webhooks,
            clock=clock,
        )

    def _make_models(self, gatekeeper: Gatekeeper) -> None:
        """Versions: how they come, from other registries too, and the path that they take over targets."""
        settings, store, clock = self._settings, self.store, self.clock
        self.models = ModelControl(
            store,
            self.blobs,
            clock=clock,
            permissions=permissions(settings, self.environments, self._access),
            targets=settings.targets,
            gates=gatekeeper,
        )
        self.catalogue = CatalogueControl(store, self.blobs, settings.home)
        self.targets = TargetControl(
            settings.targets,
            store,
            gates=gatekeeper,
            rollouts=self.rollouts,
            routes=self.routes,
            clock=clock,
            ungated=signed_gate(settings, store, self.blobs, OpenGate()),
        )
        self.upstream = Upstream(
            settings,
            self._access,
            store,
            models=self.models,
            rollouts=self.rollouts,
            gates=gatekeeper,
            jobs=self.jobs,
            coordination=self.coordination,
            reconciler=self.reconciler,
            clock=clock,
        )
        self.follow = self.upstream.follow

    def _make_guard(self) -> Guard:
        """What looks at errors of every answer, with or without a rollout."""
        settings = self._settings
        return Guard(
            dataplane=self._dataplane,
            rollbacks=self.rollbacks,
            store=self.store,
            policy=GuardPolicy.of(settings.guard),
            clock=self.clock,
            waiting=self._waiting,
            settle_s=SETTLE_S if settings.server.workers > 1 else 0.0,
        )

    @property
    def observers(self) -> Sequence[Observer]:
        """What of this wants to be told what becomes of requests."""
        return [self.reconciler.budget, self.flag_watch, self.collector, *([self.guard] if self.guard else [])]

    def __repr__(self) -> str:
        return f"<ControlPlane {self.reconciler!r}>"

    async def start(self, home: Path | None = None, *, last: Snapshot | None = None) -> None:
        """Returns when tokens and routes are known here and flags have data, or could not get any in time; versions
        are then loading. ``home``: where the first admin token is left. Raises StoreUnavailable when the store cannot
        be read and there is no ``last`` state to serve from."""
        if home is not None:
            await self._bootstrap(home, last)
            await self.checkpoints.start()
        await self.jobs.open()
        await self._in_force.start(last)
        self.collector.start()
        self.driver.start()
        self.upstream.start()
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
        await self.upstream.close()
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
        await self._in_force.close()
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
        self._elsewhere = Elsewhere(follow, waiting, queue, view)

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
        return await self._version_views.all(self._elsewhere.queue)

    def whereabouts(self, ref: VersionRef) -> tuple[str, str]:
        """State and reason of a version that does not answer now: ``absent`` when nothing wants it here."""
        return self._version_views.whereabouts(ref)

    def _applied(self) -> None:
        self._elsewhere.follow()
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
        return here + self._elsewhere.waiting(ref)
