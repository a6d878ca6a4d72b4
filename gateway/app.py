"""The composition root, the only module that knows everybody: builds the parts, starts them, ends them in reverse.

``gateway.cli.serve`` runs it. ``gateway.control.local_control`` opens the same desired state without serving, for
commands that work straight on a home.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterable
from functools import partial

from gateway.clock import SystemClock
from gateway.control.plane import ControlPlane
from gateway.control.recording_watch import RecordingWatch
from gateway.control.shared_watch import SharedWatch
from gateway.control.store import Snapshot
from gateway.control.store_access import coordination_for, open_for_serving
from gateway.dataplane import Dataplane
from gateway.environment import recorder_environment
from gateway.errors import SettingsError
from gateway.events.fan_out import FanOut
from gateway.events.observer import Observer
from gateway.figures import gate_facts, memory_facts, notification_facts, standing_facts, store_facts, worker_counts
from gateway.liaison import alarm_of, answers_kept, batch_records, label_told, loaded_of, profiles_of
from gateway.live_secrets import LiveSecrets
from gateway.recording.child import ChildProcess
from gateway.recording.large import Wanted, content_policy
from gateway.recording.needs import SECRETS, recorder_needs, secrets_told
from gateway.recording.observing import recording_observers
from gateway.recording.recorder import Recorder
from gateway.registry.opening import open_blobs
from gateway.server import (
    ASGIApplication,
    Listener,
    SharedAddress,
    bind,
    hold_home,
)
from gateway.serving.fleet import Fleet
from gateway.serving.fork_server import ForkServer
from gateway.serving.placement import engine_factory
from gateway.settings import Settings
from gateway.telemetry.decisions.asking import DecisionReader
from gateway.telemetry.decisions.segments import FOLDER as DECISIONS_FOLDER
from gateway.telemetry.drift.look_process import LooksElsewhere
from gateway.telemetry.drift.subjects import Subjects
from gateway.telemetry.drift.watch import DriftWatch
from gateway.telemetry.drift_families import DriftFamilies
from gateway.telemetry.exposition import MetricsEndpoint
from gateway.telemetry.feedback.desk import TruthDesk
from gateway.telemetry.feedback.families import TruthFamilies
from gateway.telemetry.gate_families import GateFamilies
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.notification_families import NotificationFamilies
from gateway.telemetry.standing_families import StandingFamilies
from gateway.telemetry.store_families import StoreFamilies
from gateway.telemetry.worker_families import WorkerFamilies
from gateway.web.admin import AdminPlane
from gateway.web.admin_repository import ControlRepository
from gateway.web.admin_upload import Uploads
from gateway.web.application import build_admin_application, build_application
from gateway.web.large_bodies import large_bodies
from gateway.web.services import Services
from gateway.web.statistics import ModelStatistics
from gateway.workers.assembly import NodeParts, assemble_crew, fleet_observer
from gateway.workers.begin import web_limits
from gateway.workers.crew import Crew
from gateway.workers.deaths import Deaths
from gateway.workers.face import Settled
from runtimes.catalog import preloads

__all__ = ["Gateway"]

log = logging.getLogger("turnout")

_WORKER_END_S = 8.0
"""Beyond the drain time: what a web worker takes to close its connections, and to tell what happened last."""


class Gateway:
    """One running gateway. ``start`` returns when it listens; ``stop`` when every admitted request is answered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._clock = SystemClock()
        self._secrets = LiveSecrets(self._clock)
        self._observer = FanOut(clock=self._clock)
        self._recorder: Recorder | None = None
        self._address: SharedAddress | None = None
        self._ends = contextlib.AsyncExitStack()
        self._serving: list[asyncio.Task[None]] = []
        self._crew: Crew | None = None
        self.listeners: tuple[Listener, ...] = ()
        self.urls: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Gateway {self._settings.home} {list(self.listeners)}>"

    async def start(self) -> None:
        """Raises TurnoutError; then nothing is left behind."""
        try:
            await self._start()
        except BaseException:
            await self._ends.aclose()
            raise

    async def failed(self) -> None:
        """Returns when a listener has ended by itself."""
        if not self._serving:
            await asyncio.Event().wait()
        await asyncio.wait(self._serving, return_when=asyncio.FIRST_COMPLETED)

    async def stop(self) -> None:
        """No new work; what was admitted is answered, within the drain time; then everything ends, last first."""
        drain_s = self._settings.server.drain_s
        self.dataplane.drain()
        if self._crew is not None:
            await self._crew.stop(drain_s=drain_s + _WORKER_END_S)
        try:
            async with asyncio.timeout(drain_s):
                await self.dataplane.drained()
        except TimeoutError:
            log.warning("%d requests are not answered after %g s and are given up", self.dataplane.inflight, drain_s)
            await self.fleet.close(abandon=True)
        if not self.fleet.idle:  # a shadow's copy: nobody waits for it
            await self.fleet.close(abandon=True)
        for listener in self.listeners:
            listener.stop()
        if self._serving:
            await asyncio.wait(self._serving, timeout=5.0)
        await self._ends.aclose()

    async def _start(self) -> None:
        """Whatever begins here leaves its end behind at once, since ends come in reverse."""
        self._ends.callback(hold_home(self._settings.home).close)
        sockets = self._bind()
        last = await self._open_state()
        self._recorder = await self._start_recorder()
        self._ends.callback(self._observer.flush)
        deaths = self._make_fleet()
        self._make_control()
        metrics, statistics = self._metrics(), ModelStatistics()
        endpoint = MetricsEndpoint(metrics.registry, clock=self._clock, before=self._observer.flush)
        self._ends.callback(endpoint.close)
        self._observe(metrics, statistics)
        self._ends.push_async_callback(self.control.close)
        await self.control.start(self._settings.home, last=last)
        drift = self._watch_drift(metrics)
        self._watch_recording()
        services = self._services(metrics, statistics, drift)
        applications = self._applications(services, endpoint)
        if deaths is not None:
            applications = await self._start_crew(deaths, applications, metrics)
        self._listen(applications, sockets)

    def _bind(self) -> list[socket.socket]:
        """What this process listens on itself: with web workers, only the admin plane's own address, if it has one."""
        server = self._settings.server
        addresses = [(server.host, server.port)]
        if server.workers > 1:
            self._address = SharedAddress(server.host, server.port, server.backlog)
            self._ends.callback(self._address.close)
            addresses = []
        if server.admin_port is not None:
            addresses.append((server.admin_host, server.admin_port))
        sockets = []
        for host, port in addresses:
            listening = bind(host, port, server.backlog)
            self._ends.callback(listening.close)
            sockets.append(listening)
        return sockets

    async def _open_state(self) -> Snapshot | None:
        """Store and blobs; what the store last held, where a replica may serve from that."""
        opened = await open_for_serving(self._settings, self._secrets)
        self._store = opened.store
        self._ends.push_async_callback(opened.store.close)
        self._blobs = open_blobs(self._settings, self._secrets)
        self._ends.callback(self._blobs.close)
        self._coordination = coordination_for(self._settings, opened.store, self._clock)
        return opened.last

    async def _start_recorder(self) -> Recorder | None:
        """None where nothing is to be recorded. It ends after all that could tell it something."""
        secrets = self._secrets
        needs = recorder_needs(self._settings, gateway=self._coordination.replica, read=secrets.read)
        self._ends.callback(needs.close)
        if not needs.options:
            return None
        recorder = Recorder(
            needs.options,
            descriptors=needs.descriptors,
            policy=self._content_policy,
            limit_bytes=self._settings.telemetry.recorder_bytes,
            clock=self._clock,
            spawn=partial(ChildProcess, environment=recorder_environment()),
        )
        await recorder.start()
        secrets.on_change(lambda: recorder.hand(SECRETS, secrets_told(self._settings, secrets.read)))
        self._ends.push_async_callback(recorder.close)
        return recorder

    def _content_policy(self, route: str) -> Wanted:
        return content_policy(self.dataplane.current.table, route)

    def _make_fleet(self) -> Deaths | None:
        """With the data plane that asks it. With web workers: who is told of deaths, by them and by the fleet."""
        settings, clock, observer = self._settings, self._clock, self._observer
        deaths = fleet_observer(observer, clock, lambda: self.fleet) if settings.server.workers > 1 else None
        self.dataplane = Dataplane(observer=observer, clock=clock, records=answers_kept(self._recorder))
        fork_server = ForkServer(preload=preloads(settings.runtimes.preload))
        self._ends.push_async_callback(fork_server.close)
        self.fleet = Fleet(
            engine_factory(fork_server),
            clock=clock,
            observer=deaths or observer,
            loads_at_once=settings.runtimes.parallel_loads,
            drain_timeout_s=settings.server.drain_s,
            probe_interval_s=settings.runtimes.readiness_s,
        )
        self._ends.push_async_callback(self.fleet.close)
        return deaths

    def _make_control(self) -> None:
        """Not started: who observes has to be told from the first change on."""
        server = self._settings.server
        self.control = ControlPlane(
            store=self._store,
            blobs=self._blobs,
            fleet=self.fleet,
            dataplane=self.dataplane,
            settings=self._settings,
            clock=self._clock,
            observer=self._observer,
            coordination=self._coordination,
            batch_records=batch_records(self._recorder, self._clock),
            secrets=self._secrets,
            address=f"http{'s' if server.tls_key else ''}://{server.host}:{server.port}",
        )

    def _metrics(self) -> Metrics:
        """Told of events, and asked of the parts at each scrape."""
        control, dataplane, fleet = self.control, self.dataplane, self.fleet
        clock, recorder = self._clock, self._recorder
        metrics = Metrics(
            table=lambda: dataplane.current.table,
            memory=lambda: memory_facts(fleet),
            flags=control.flag_watch.sources,
            told_of_traces=recorder is not None and "traces" in recorder.options,
        )
        metrics.registry.register(StoreFamilies(lambda: store_facts(control)))
        metrics.registry.register(NotificationFamilies(lambda: notification_facts(control, clock)))
        metrics.registry.register(StandingFamilies(lambda: standing_facts(control, fleet)))
        metrics.registry.register(GateFamilies(lambda: gate_facts(control)))
        return metrics

    def _observe(self, metrics: Metrics, statistics: ModelStatistics) -> None:
        """In this order: what is recorded of a trace refers to what the metrics counted."""
        recording = () if self._recorder is None else self._recording(self._recorder, metrics)
        for part in (metrics, statistics, self.control.holdings, *recording, *self.control.observers):
            self._observer.add(part)

    def _recording(self, recorder: Recorder, metrics: Metrics) -> Iterable[Observer]:
        fleet, dataplane = self.fleet, self.dataplane
        return recording_observers(
            recorder,
            metrics,
            self._clock,
            self._settings,
            table=lambda: dataplane.current.table,
            loaded=lambda ref: loaded_of(fleet, ref),
            ends=self._ends.callback,
        )

    def _watch_drift(self, metrics: Metrics) -> DriftWatch | None:
        """Ends before the control plane that it shares its counts through."""
        if not self._settings.telemetry.drift.enabled:
            return None
        control, dataplane, fleet = self.control, self.dataplane, self.fleet
        subjects = Subjects(
            lambda: dataplane.current.table,
            lambda: profiles_of(fleet),
            control.blobs.read,
            self._settings.telemetry.drift,
        )
        watch = DriftWatch(
            shared=SharedWatch(control.coordination, "drift"),
            subjects=subjects,
            alarmed=lambda alarm: control.alarms.told(alarm_of(alarm)),
            standing=control.alarms.standing,
            clock=self._clock,
            looks=LooksElsewhere(subjects.read, clock=self._clock, environment=recorder_environment()),
        )
        self._observer.add(watch)
        metrics.registry.register(DriftFamilies(watch.figures, watch.looked_at))
        self._ends.push_async_callback(watch.close)
        watch.start()
        return watch

    def _watch_recording(self) -> None:
        """An alarm where decisions are asked for and are not written."""
        recorder = self._recorder
        if recorder is None or "decisions" not in recorder.options:
            return
        where = f"{socket.gethostname()}:{self._settings.home.absolute()}"
        told = self.control.alarms.told
        watch = RecordingWatch(lambda: recorder.shown("decisions"), told, where=where, clock=self._clock)
        self._ends.push_async_callback(watch.close)
        watch.start()

    def _services(self, metrics: Metrics, statistics: ModelStatistics, drift: DriftWatch | None) -> Services:
        """What the web serves from."""
        control, recorder = self.control, self._recorder
        limits = web_limits(self._settings.limits)
        large = large_bodies(limits, self._clock, cores=len(os.sched_getaffinity(0)))
        self._ends.push_async_callback(large.close)
        return Services(
            dataplane=self.dataplane,
            observer=self._observer,
            clock=self._clock,
            verify=control.ring.verify,
            labels=None if recorder is None else self._labels(recorder, metrics),
            repository=ControlRepository(control.residents),
            statistics=statistics,
            limits=limits,
            trace_ratio=self._settings.telemetry.trace_ratio,
            whereabouts=control.whereabouts,
            large=large,
            degraded=lambda: [*control.degraded(), *([] if recorder is None else recorder.degraded())],
            drift=None if drift is None else drift.reports,
        )

    def _labels(self, recorder: Recorder, metrics: Metrics) -> TruthDesk:
        """What labels say of versions becomes evidence of the rollouts."""
        control, dataplane = self.control, self.dataplane
        desk = TruthDesk(
            recorder.ask,
            wanted=lambda: any(route.truth is not None for route in dataplane.current.table.routes.values()),
            joined=lambda label: label_told(control.collector, label),
            clock=self._clock,
            shared=None if self._settings.store.url is None else control.coordination,
        )
        metrics.registry.register(TruthFamilies(lambda: desk.scores, lambda: dataplane.current.table))
        self._ends.push_async_callback(desk.close)
        desk.start()
        return desk

    def _applications(self, services: Services, endpoint: MetricsEndpoint) -> list[ASGIApplication]:
        """The public one, and the admin plane's where it has an address of its own."""
        uploads = Uploads(
            self._settings.home / "uploads",
            max_bytes=self._settings.limits.upload_bytes,
            idle_s=self._settings.limits.receive_s,
        )
        uploads.sweep()
        sources = self._settings.registry.source_directories
        decisions = self._decision_reader()
        admin = AdminPlane(self.control, services, uploads=uploads, sources=sources, decisions=decisions)
        if self._settings.server.admin_port is None:
            return [build_application(services, metrics=endpoint, admin_routes=admin.routes(), admin_paths=admin.paths)]
        return [
            build_application(services),
            build_admin_application(services, metrics=endpoint, admin_routes=admin.routes()),
        ]

    def _decision_reader(self) -> DecisionReader | None:
        if not self._settings.telemetry.decisions.enabled:
            return None
        reader = DecisionReader(self._settings.home / DECISIONS_FOLDER, clock=self._clock)
        self._ends.push_async_callback(reader.close)
        return reader

    async def _start_crew(
        self, deaths: Deaths, applications: list[ASGIApplication], metrics: Metrics
    ) -> list[ASGIApplication]:
        """Web workers take the public address; what is left for this process to listen to is the admin plane's own."""
        if self._address is None:
            raise SettingsError("no address is shared")
        public, *others = applications
        clock, observer = self._clock, self._observer
        parts = NodeParts(self._settings, clock, observer, self.fleet, self.dataplane, self.control, self._recorder)
        crew = assemble_crew(parts, deaths, self._address, public)
        self._ends.push_async_callback(crew.stop, drain_s=0.0)
        await crew.start()
        self._crew = crew
        self.control.presence.settled = crew.in_force  # the others are told what all workers serve
        metrics.registry.register(WorkerFamilies(lambda: worker_counts(crew)))
        return [Settled(other, crew.in_force) for other in others]

    def _listen(self, applications: list[ASGIApplication], sockets: list[socket.socket]) -> None:
        server = self._settings.server
        pairs = zip(applications, sockets, strict=True)
        self.listeners = tuple(Listener(application, listening, server) for application, listening in pairs)
        self._serving = [asyncio.create_task(listener.serve()) for listener in self.listeners]
        shared = () if self._address is None else (self._address.url(server),)
        self.urls = (*shared, *(listener.url for listener in self.listeners))
