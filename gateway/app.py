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
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from gateway.clock import SystemClock
from gateway.control.alarms import Alarm
from gateway.control.batch_records import BatchRecords
from gateway.control.plane import ControlPlane
from gateway.control.recording_watch import RecordingWatch
from gateway.control.shared_watch import SharedWatch
from gateway.control.store_access import coordination_for, open_for_serving
from gateway.dataplane import Dataplane, Records
from gateway.environment import recorder_environment
from gateway.errors import SettingsError
from gateway.events.fan_out import FanOut
from gateway.events.observer import Observer
from gateway.events.records import RequestRecord
from gateway.figures import gate_facts, memory_facts, notification_facts, standing_facts, store_facts, worker_counts
from gateway.live_secrets import LiveSecrets
from gateway.messages import VersionRef
from gateway.recording.child import ChildProcess
from gateway.recording.large import Wanted, content_policy
from gateway.recording.needs import SECRETS, recorder_needs, secrets_told
from gateway.recording.observing import recording_observers
from gateway.recording.recorder import KEEPS, Recorder
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
from gateway.telemetry.drift.looking import DriftAlarm
from gateway.telemetry.drift.subjects import Subjects
from gateway.telemetry.drift.watch import DriftWatch
from gateway.telemetry.drift_families import DriftFamilies
from gateway.telemetry.exposition import MetricsEndpoint
from gateway.telemetry.feedback.desk import JoinedLabel, TruthDesk
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
from gateway.web.identity import DecisionIds
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

    async def _start(self) -> None:
        settings, clock = self._settings, SystemClock()
        self._ends.callback(hold_home(settings.home).close)
        sockets = self._bind()
        secrets = LiveSecrets(clock)
        opened = await open_for_serving(settings, secrets)
        store = opened.store
        self._ends.push_async_callback(store.close)
        blobs = open_blobs(settings, secrets)
        self._ends.callback(blobs.close)

        observer = FanOut(clock=clock)
        coordination = coordination_for(settings, store, clock)
        recorder = await self._start_recorder(coordination.replica, clock, secrets)
        self._ends.callback(observer.flush)
        deaths = fleet_observer(observer, clock, lambda: self.fleet) if settings.server.workers > 1 else None
        self.dataplane = dataplane = Dataplane(observer=observer, clock=clock, records=_records(recorder))
        fork_server = ForkServer(preload=preloads(settings.runtimes.preload))
        self._ends.push_async_callback(fork_server.close)
        self.fleet = fleet = Fleet(
            engine_factory(fork_server),
            clock=clock,
            observer=deaths or observer,
            loads_at_once=settings.runtimes.parallel_loads,
            drain_timeout_s=settings.server.drain_s,
            probe_interval_s=settings.runtimes.readiness_s,
        )
        self._ends.push_async_callback(fleet.close)
        self.control = control = ControlPlane(
            store=store,
            blobs=blobs,
            fleet=fleet,
            dataplane=dataplane,
            settings=settings,
            clock=clock,
            observer=observer,
            coordination=coordination,
            batch_records=_batch_records(recorder, clock),
            secrets=secrets,
            address=f"http{'s' if settings.server.tls_key else ''}://{settings.server.host}:{settings.server.port}",
        )
        statistics = ModelStatistics()
        metrics = self._metrics(recorder, clock)
        endpoint = MetricsEndpoint(metrics.registry, clock=clock, before=observer.flush)
        self._ends.callback(endpoint.close)
        recording = () if recorder is None else self._recording(recorder, metrics, clock)
        watching: tuple[Observer, ...] = (metrics, statistics, control.holdings, *recording)
        for part in (*watching, *control.observers):
            observer.add(part)
        self._ends.push_async_callback(control.close)
        await control.start(settings.home, last=opened.last)
        drift = self._watch_drift(observer, metrics, clock)
        if recorder is not None and "decisions" in recorder.options:
            self._watch_recording(recorder, clock)

        limits = web_limits(settings.limits)
        large = large_bodies(limits, clock, cores=len(os.sched_getaffinity(0)))
        self._ends.push_async_callback(large.close)
        services = Services(
            dataplane=dataplane,
            observer=observer,
            clock=clock,
            verify=control.ring.verify,
            labels=None if recorder is None else self._labels(recorder, metrics, clock),
            repository=ControlRepository(control.residents),
            statistics=statistics,
            limits=limits,
            trace_ratio=settings.telemetry.trace_ratio,
            whereabouts=control.whereabouts,
            large=large,
            degraded=lambda: [*control.degraded(), *([] if recorder is None else recorder.degraded())],
            drift=None if drift is None else drift.reports,
        )
        applications = self._applications(services, control, endpoint, self._decision_reader(clock))
        if deaths is not None:
            parts = NodeParts(settings, clock, observer, fleet, dataplane, control, recorder)
            applications = await self._start_crew(parts, deaths, applications, metrics)
        self._listen(applications, sockets)

    async def _start_crew(
        self, parts: NodeParts, deaths: Deaths, applications: list[ASGIApplication], metrics: Metrics
    ) -> list[ASGIApplication]:
        """Web workers take the public address; what is left for this process to listen to is the admin plane's own."""
        if self._address is None:
            raise SettingsError("no address is shared")
        public, *others = applications
        crew = assemble_crew(parts, deaths, self._address, public)
        self._ends.push_async_callback(crew.stop, drain_s=0.0)
        await crew.start()
        self._crew = crew
        parts.control.presence.settled = crew.in_force  # the others are told what all workers serve
        metrics.registry.register(WorkerFamilies(lambda: worker_counts(crew)))
        return [Settled(other, crew.in_force) for other in others]

    def _bind(self) -> list[socket.socket]:
        """What this process listens on itself: with web workers, only the admin plane's own address, if it has one."""
        server = self._settings.server
        addresses = [(server.host, server.port)]
        self._address: SharedAddress | None = None
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

    def _metrics(self, recorder: Recorder | None, clock: SystemClock) -> Metrics:
        """Told of events, and asked of the parts at each scrape."""
        control, dataplane, fleet, settings = self.control, self.dataplane, self.fleet, self._settings
        metrics = Metrics(
            table=lambda: dataplane.current.table,
            memory=lambda: memory_facts(fleet),
            flags=control.flag_watch.sources,
            told_of_traces=recorder is not None and "traces" in recorder.options,
        )
        metrics.registry.register(StoreFamilies(lambda: store_facts(control)))
        metrics.registry.register(NotificationFamilies(lambda: notification_facts(control, clock)))
        metrics.registry.register(StandingFamilies(lambda: standing_facts(control, fleet, settings)))
        metrics.registry.register(GateFamilies(lambda: gate_facts(control)))
        return metrics

    def _watch_drift(self, observer: FanOut, metrics: Metrics, clock: SystemClock) -> DriftWatch | None:
        """Ends before the control plane that it shares its counts through."""
        if not self._settings.telemetry.drift.enabled:
            return None
        control, dataplane, fleet = self.control, self.dataplane, self.fleet
        subjects = Subjects(
            lambda: dataplane.current.table,
            lambda: _profiles(fleet),
            control.blobs.read,
            self._settings.telemetry.drift,
        )
        watch = DriftWatch(
            shared=SharedWatch(control.coordination, "drift"),
            subjects=subjects,
            alarmed=lambda alarm: control.alarms.told(_told_of(alarm)),
            standing=control.alarms.standing,
            clock=clock,
            looks=LooksElsewhere(subjects.read, clock=clock, environment=recorder_environment()),
        )
        observer.add(watch)
        metrics.registry.register(DriftFamilies(watch.figures, watch.looked_at))
        self._ends.push_async_callback(watch.close)
        watch.start()
        return watch

    def _watch_recording(self, recorder: Recorder, clock: SystemClock) -> None:
        where = f"{socket.gethostname()}:{self._settings.home.absolute()}"
        told = self.control.alarms.told
        watch = RecordingWatch(lambda: recorder.shown("decisions"), told, where=where, clock=clock)
        self._ends.push_async_callback(watch.close)
        watch.start()

    async def _start_recorder(self, replica: str, clock: SystemClock, secrets: LiveSecrets) -> Recorder | None:
        """None where nothing is to be recorded. It ends after all that could tell it something."""
        needs = recorder_needs(self._settings, gateway=replica, read=secrets.read)
        self._ends.callback(needs.close)
        if not needs.options:
            return None
        recorder = Recorder(
            needs.options,
            descriptors=needs.descriptors,
            policy=self._content_policy,
            limit_bytes=self._settings.telemetry.recorder_bytes,
            clock=clock,
            spawn=partial(ChildProcess, environment=recorder_environment()),
        )
        await recorder.start()
        secrets.on_change(lambda: recorder.hand(SECRETS, secrets_told(self._settings, secrets.read)))
        self._ends.push_async_callback(recorder.close)
        return recorder

    def _content_policy(self, route: str) -> Wanted:
        return content_policy(self.dataplane.current.table, route)

    def _recording(self, recorder: Recorder, metrics: Metrics, clock: SystemClock) -> Iterable[Observer]:
        fleet, dataplane = self.fleet, self.dataplane
        return recording_observers(
            recorder,
            metrics,
            clock,
            self._settings,
            table=lambda: dataplane.current.table,
            loaded=lambda ref: _loaded(fleet, ref),
            ends=self._ends.callback,
        )

    def _labels(self, recorder: Recorder, metrics: Metrics, clock: SystemClock) -> TruthDesk:
        """What labels say of versions becomes evidence of the rollouts."""
        control, dataplane = self.control, self.dataplane
        desk = TruthDesk(
            recorder.ask,
            wanted=lambda: any(route.truth is not None for route in dataplane.current.table.routes.values()),
            joined=lambda label: _told_label(control, label),
            clock=clock,
            shared=None if self._settings.store.url is None else control.coordination,
        )
        metrics.registry.register(TruthFamilies(lambda: desk.scores, lambda: dataplane.current.table))
        self._ends.push_async_callback(desk.close)
        desk.start()
        return desk

    def _applications(
        self, services: Services, control: ControlPlane, endpoint: MetricsEndpoint, decisions: DecisionReader | None
    ) -> list[ASGIApplication]:
        """The public one, and the admin plane's where it has an address of its own."""
        uploads = Uploads(
            self._settings.home / "uploads",
            max_bytes=self._settings.limits.upload_bytes,
            idle_s=self._settings.limits.receive_s,
        )
        uploads.sweep()
        sources = self._settings.registry.source_directories
        admin = AdminPlane(control, services, uploads=uploads, sources=sources, decisions=decisions)
        if self._settings.server.admin_port is None:
            return [build_application(services, metrics=endpoint, admin_routes=admin.routes(), admin_paths=admin.paths)]
        return [
            build_application(services),
            build_admin_application(services, metrics=endpoint, admin_routes=admin.routes()),
        ]

    def _decision_reader(self, clock: SystemClock) -> DecisionReader | None:
        if not self._settings.telemetry.decisions.enabled:
            return None
        reader = DecisionReader(self._settings.home / DECISIONS_FOLDER, clock=clock)
        self._ends.push_async_callback(reader.close)
        return reader

    def _listen(self, applications: list[ASGIApplication], sockets: list[socket.socket]) -> None:
        server = self._settings.server
        pairs = zip(applications, sockets, strict=True)
        self.listeners = tuple(Listener(application, listening, server) for application, listening in pairs)
        self._serving = [asyncio.create_task(listener.serve()) for listener in self.listeners]
        shared = () if self._address is None else (self._address.url(server),)
        self.urls = (*shared, *(listener.url for listener in self.listeners))

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


def _records(recorder: Recorder | None) -> Records | None:
    """What the data plane keeps answers for: a recorder that only writes lines needs nothing of them."""
    return recorder.road if recorder is not None and not KEEPS.isdisjoint(recorder.options) else None


class _BatchesTaken:
    """The recorder, for records that come past the observers."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    @property
    def full(self) -> bool:
        return self._recorder.road.full

    def take(self, records: Sequence[RequestRecord]) -> None:
        self._recorder.requests_finished(records)


def _batch_records(recorder: Recorder | None, clock: SystemClock) -> BatchRecords | None:
    if recorder is None or "decisions" not in recorder.options:
        return None
    return BatchRecords(_BatchesTaken(recorder), DecisionIds(clock), clock)


def _told_label(control: ControlPlane, label: JoinedLabel) -> None:
    route, version, bucket, epoch, split, wrong, scored, age_s = label
    tell = control.collector
    if wrong is not None:
        tell.label(route, bucket, version, wrong=wrong, split=split, epoch=epoch, age_s=age_s)
    if scored is not None:
        of, score = scored
        tell.score(route, bucket, version, score, of=of, split=split, epoch=epoch, age_s=age_s)


def _loaded(fleet: Fleet, ref: VersionRef) -> Mapping[str, Any] | None:
    handle = fleet.handles.get(ref)
    info = None if handle is None else handle.info
    if handle is None or info is None:
        return None
    return {"digest": handle.spec.digest, "loaded": dict(info.loaded), "device": info.device}


def _profiles(fleet: Fleet) -> Mapping[VersionRef, str]:
    specs = [handle.spec for handle in fleet.handles.values()]
    return {spec.ref: spec.profile.digest for spec in specs if spec.profile is not None}


def _told_of(alarm: DriftAlarm) -> Alarm:
    """As it stands in the audit log, and is notified of."""
    also_on = {"also_on": ", ".join(alarm.others)} if alarm.others else {}
    return Alarm(
        name=alarm.name,
        kind="data-pipeline" if alarm.broken_data else "drift",
        subject=f"route/{alarm.route}",
        raised=alarm.raised,
        reason=alarm.reason,
        advice=alarm.advice,
        numbers={"blame": alarm.blame, "version": str(alarm.version), **also_on, **alarm.numbers},
    )
