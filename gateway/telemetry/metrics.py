"""The metrics of the gateway, on a registry that lives as long as the app and no longer.

No name that a client can choose becomes a series: a route is labelled only while the routing
table has it, a version only while the fleet or a route does; all else is counted under ``unknown`` or not
at all. When a version is retired or a route removed, its series go with it, and a request that
ends later cannot bring them back. Requests are counted for the version that was *chosen*, also
when its fallback answered: ``gateway_fallbacks_total`` says how often that was, and why.

Metrics of parts that do not exist yet (drift, feedback, decision log) are
not there at all rather than forever zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector

from gateway.events.bursts import Burst
from gateway.events.observer import Observer
from gateway.events.records import (
    SHADOW_OUTCOMES,
    BatchRecord,
    FlagMiss,
    FlagSource,
    RequestRecord,
    RollbackRecord,
    ShadowRecord,
)
from gateway.messages import Decision, VersionRef
from gateway.routing.table import Route, RoutingTable
from gateway.telemetry.families import Families, VersionMemory
from gateway.telemetry.series import CacheSeries, RequestSeries, Tally, VersionSeries

__all__ = ["FALLBACK_CAUSES", "OTHER", "REJECTIONS", "UNKNOWN", "Metrics", "MetricsStatistics", "VersionMemory"]

UNKNOWN = "unknown"
"""The route label of requests for routes that the table does not have."""

REJECTIONS = frozenset({"queue-full", "deadline", "rate-limit", "draining", "decision-log-full"})
FALLBACK_CAUSES = frozenset(
    {
        "VersionFailed",
        "VersionUnavailable",
        "NotBegun",
        "ModelError",
        "VersionCrashed",
        "VersionHung",
        "DeviceMemoryExhausted",
    }
)
OTHER = "other"

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class MetricsStatistics:
    """How many routes and versions have series, and how many requests were counted."""

    routes: int
    versions: int
    requests: int


class Metrics(Observer):
    """Counts what happens, on the event loop, and has the registry show it.

    ``table`` gives the routing table in force; ``memory`` what the resident versions hold. Both
    are asked at a scrape, on the thread that renders it; ``memory`` may read files of the
    system. Without a ``registry`` it makes its own. The state of the store counts as reachable
    from the first table on until told otherwise. ``told_of_traces``: ``exemplify`` is told of every request whose
    trace is kept; else those that were sampled are taken to be.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        table: Callable[[], RoutingTable],
        memory: Callable[[], Iterable[VersionMemory]] = tuple,
        flags: Callable[[], Iterable[FlagSource]] = tuple,
        told_of_traces: bool = False,
    ) -> None:
        self._table = table
        self._told_of_traces = told_of_traces
        self._routes: frozenset[str] = frozenset()
        self._named: frozenset[VersionRef] = frozenset()
        self._tally = Tally()
        self.registry = CollectorRegistry() if registry is None else registry
        self.registry.register(Families(self._tally, table=table, memory=memory, flags=flags))
        ProcessCollector(registry=self.registry)

    def __repr__(self) -> str:
        return f"<Metrics [{len(self._routes)} routes | {len(self._tally.versions)} versions]>"

    def statistics(self) -> MetricsStatistics:
        decided = sum(series.duration.count for series in list(self._tally.requests.values()))
        undecided = sum(list(self._tally.undecided.values()))
        return MetricsStatistics(len(self._routes), len(self._tally.versions), decided + undecided)

    def request_started(self, route: str, count: int = 1) -> None:
        if route in self._tally.inflight:
            self._tally.inflight[route] += count

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        burst = Burst.of(records)
        for good in burst.good:
            series = self._tally.requests.get((good.route, good.version))
            if series is None:
                for record in good.records:
                    self._finished(record)
                continue
            self._ended(good.route, len(good))
            series.codes[200] = series.codes.get(200, 0) + len(good)
            series.duration.observe_all(good.durations)
        for record in burst.others:
            self._finished(record)

    def _ended(self, route: str, count: int) -> None:
        if route in self._tally.inflight:
            self._tally.inflight[route] = max(0, self._tally.inflight[route] - count)

    def _finished(self, record: RequestRecord) -> None:
        inflight, route, code = self._tally.inflight, record.route, record.code
        if inflight.get(route, 0) > 0:
            inflight[route] -= 1
        series = self._series(record.decision)
        if series is None:
            _add(self._tally.undecided, (self._known(route), code))
            return
        codes = series.codes
        codes[code] = codes.get(code, 0) + 1
        if record.sampled and record.trace_id is not None and not self._told_of_traces:
            series.duration.observe_traced(record.duration_s, record.trace_id, record.started_wall + record.duration_s)
        else:
            series.duration.observe(record.duration_s)

    def exemplify(self, record: RequestRecord) -> None:
        """The request, which was counted before, is traced: its trace stands for its bucket."""
        series = self._series(record.decision)
        if series is not None and record.trace_id is not None:
            series.duration.exemplify(record.duration_s, record.trace_id, record.started_wall + record.duration_s)

    def exemplify_batch(self, record: RequestRecord, batch: BatchRecord) -> None:
        """The same for what was counted of its batch, and of its wait, where they are this very request's."""
        series, trace_id = self._tally.versions.get(batch.version), record.trace_id
        if series is None or trace_id is None:
            return
        series.compute.exemplify(batch.compute_s, trace_id, batch.ended_wall)
        if record.queue_s in batch.waits_s:
            series.queue.exemplify(record.queue_s, trace_id, batch.ended_wall)

    def requests_lost(self, route: str, count: int) -> None:
        self._ended(route, count)

    def request_rejected(self, route: str, reason: str) -> None:
        _add(self._tally.rejected, (self._known(route), reason if reason in REJECTIONS else OTHER))

    def fell_back(self, decision: Decision, cause: str) -> None:
        if self._lives(decision):
            known = cause if cause in FALLBACK_CAUSES else OTHER
            _add(self._tally.fallbacks, (decision.route, decision.version, known))

    def batch_finished(self, record: BatchRecord) -> None:
        series = self._tally.versions.get(record.version)
        if series is None:
            return
        series.rows.observe(record.rows)
        series.compute.observe(record.compute_s)
        series.queue.observe_all(record.waits_s)

    def queue_changed(self, version: VersionRef, rows: int) -> None:
        series = self._tally.versions.get(version)
        if series is not None:
            series.waiting_rows = rows

    def shadow_compared(self, record: ShadowRecord) -> None:
        outcomes = self._tally.shadows.get((record.route, record.shadow))
        if outcomes is None or record.outcome not in outcomes:
            return
        outcomes[record.outcome] += 1

    def version_state(self, version: VersionRef, state: str, reason: str) -> None:
        series = self._tally.versions.get(version)
        if series is None:
            self._tally.versions[version] = VersionSeries(state)
        else:
            series.state = state

    def version_retired(self, version: VersionRef) -> None:
        self._tally.versions.pop(version, None)
        _forget(self._tally.requests, lambda key: key[1] == version)
        _forget(self._tally.fallbacks, lambda key: key[1] == version)
        _forget(self._tally.shadows, lambda key: key[1] == version and not self._is_shadow(*key))

    def table_applied(self, revision: int) -> None:
        if self._tally.store_up is None:
            self._tally.store_up = True
        self._tally.revision = revision
        routes = self._table().routes
        self._routes = frozenset(routes)
        self._named = frozenset(ref for route in routes.values() for ref in _named_by(route))
        for name, route in routes.items():
            self._tally.inflight.setdefault(name, 0)
            if route.cache is not None and name not in self._tally.caches:
                self._tally.caches[name] = CacheSeries()
            for shadow in route.shadows:
                self._tally.shadows.setdefault((name, route.ref(shadow.version)), dict.fromkeys(SHADOW_OUTCOMES, 0))
        self._forget_what_is_gone()

    def store_reachable(self, up: bool) -> None:
        self._tally.store_up = up

    def rolled_back(self, record: RollbackRecord) -> None:
        if record.route in self._routes:
            _add(self._tally.rollbacks, (record.route, record.trigger))

    def cache_asked(self, route: str, outcome: str) -> None:
        cache = self._tally.caches.get(route)
        if cache is not None and outcome in cache.asked:
            cache.asked[outcome] += 1

    def cache_changed(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        cache = self._tally.caches.get(route)
        if cache is not None:
            cache.entries += entries
            cache.held_bytes += held_bytes
            cache.evicted += evicted

    def flag_missed(self, record: FlagMiss) -> None:
        if record.route in self._routes:
            _add(self._tally.flag_misses, (record.route, record.rule, record.cause))

    def _forget_what_is_gone(self) -> None:
        tally, kept = self._tally, self._routes | {UNKNOWN}
        _forget(tally.inflight, lambda route: route not in self._routes)
        _forget(tally.caches, lambda route: route not in self._routes or self._table().routes[route].cache is None)
        _forget(tally.requests, lambda key: not self._has(*key))
        _forget(tally.fallbacks, lambda key: not self._has(key[0], key[1]))
        _forget(tally.shadows, lambda key: not self._has(*key))
        _forget(tally.flag_misses, lambda key: not self._has_rule(key[0], key[1]))
        _forget(tally.rollbacks, lambda key: key[0] not in self._routes)
        _forget(tally.undecided, lambda key: key[0] not in kept)
        _forget(tally.rejected, lambda key: key[0] not in kept)

    def _lives(self, decision: Decision) -> bool:
        return self._has(decision.route, decision.version)

    def _has(self, route: str, version: VersionRef) -> bool:
        """The route is in force, and the version is resident or named by a route (perhaps it never loaded)."""
        return route in self._routes and (version in self._tally.versions or version in self._named)

    def _has_rule(self, route: str, name: str) -> bool:
        found = self._table().routes.get(route)
        return found is not None and any(rule.name == name for rule in found.rules)

    def _is_shadow(self, name: str, version: VersionRef) -> bool:
        route = self._table().routes.get(name)
        return route is not None and any(route.ref(shadow.version) == version for shadow in route.shadows)

    def _known(self, route: str) -> str:
        return route if route in self._routes else UNKNOWN

    def _series(self, decision: Decision | None) -> RequestSeries | None:
        """The series of the version that was chosen; None when none was, or it or its route is gone."""
        if decision is None:
            return None
        key = (decision.route, decision.version)
        series = self._tally.requests.get(key)
        if series is None and self._lives(decision):
            series = self._tally.requests[key] = RequestSeries()
        return series


def _named_by(route: Route) -> Iterable[VersionRef]:
    others = {number for number in (route.fallback, route.known_good) if number is not None}
    shadows = {shadow.version for shadow in route.shadows}
    return map(route.ref, {arm.version for arm in route.arms} | others | shadows | route.pinnable)


def _add(counts: dict[_Key, int], key: _Key) -> None:
    counts[key] = counts.get(key, 0) + 1


def _forget(series: dict[_Key, Any], gone: Callable[[_Key], bool]) -> None:
    for key in [key for key in series if gone(key)]:
        del series[key]
