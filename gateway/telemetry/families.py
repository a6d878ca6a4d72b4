"""What a scrape sees: the tally, the weights in force and the memory held, as Prometheus metric families."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.events.records import FlagSource
from gateway.messages import VersionRef
from gateway.routing.table import RoutingTable
from gateway.telemetry.series import Tally

__all__ = ["STATES", "Families", "VersionMemory"]

STATES = ("registered", "gated", "loading", "warming", "active", "draining", "retired", "failed")
"""The states of a version's life, one gauge each: alerts want a 0 to compare with, not an absent series."""


@dataclass(frozen=True, slots=True)
class VersionMemory:
    """What one resident version holds, and on which device."""

    version: VersionRef
    device: str
    bytes: int


class Families(Collector):
    """Asked by the registry, on whatever thread renders it. Copies each mapping before it walks over it."""

    def __init__(
        self,
        tally: Tally,
        *,
        table: Callable[[], RoutingTable],
        memory: Callable[[], Iterable[VersionMemory]],
        flags: Callable[[], Iterable[FlagSource]],
    ) -> None:
        self._tally = tally
        self._table = table
        self._memory = memory
        self._flags = flags

    def collect(self) -> Iterator[Metric]:
        yield from self._request_families()
        yield from self._version_families()
        yield from self._route_families()
        yield from self._cache_families()
        yield from self._shadow_families()
        yield from self._flag_families()
        yield GaugeMetricFamily(
            "gateway_state_revision", "Revision of desired state that is served.", self._tally.revision
        )
        up = 1.0 if self._tally.store_up else 0.0
        yield GaugeMetricFamily("gateway_state_store_up", "1 while the store of desired state answers.", up)

    def _request_families(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "gateway_requests",
            "Requests by the version chosen, before any fallback, and the HTTP status answered.",
            labels=("route", "model", "version", "code"),
        )
        duration = HistogramMetricFamily(
            "gateway_request_duration_seconds",
            "Time from a request's arrival to its answer, by the version chosen.",
            labels=("route", "model", "version"),
        )
        for (route, code), count in list(self._tally.undecided.items()):
            requests.add_metric((route, "", "", str(code)), count)
        for (route, version), series in list(self._tally.requests.items()):
            names = (route, *_names(version))
            duration.add_metric(names, *series.duration.exposed())
            for code, count in list(series.codes.items()):
                requests.add_metric((*names, str(code)), count)
        yield requests
        yield duration
        yield _counter(
            "gateway_rejected", "Requests refused at the door.", ("route", "reason"), self._tally.rejected.items()
        )
        fallbacks = [
            ((route, str(version.number), cause), count)
            for (route, version, cause), count in list(self._tally.fallbacks.items())
        ]
        yield _counter(
            "gateway_fallbacks",
            "Failures of the chosen version that the route's fallback was asked to make good.",
            ("route", "version", "cause"),
            fallbacks,
        )
        yield _counter(
            "gateway_rollbacks",
            "Times a route went back, by what asked for it.",
            ("route", "trigger"),
            self._tally.rollbacks.items(),
        )

    def _version_families(self) -> Iterator[Metric]:
        labels = ("model", "version")
        queue = HistogramMetricFamily("gateway_queue_duration_seconds", "Time in a version's queue.", labels=labels)
        compute = HistogramMetricFamily("gateway_compute_duration_seconds", "Time of a batch's run.", labels=labels)
        rows = HistogramMetricFamily("gateway_batch_rows", "Rows in a batch.", labels=labels)
        waiting = GaugeMetricFamily("gateway_queue_rows", "Rows waiting for a version.", labels=labels)
        state = GaugeMetricFamily(
            "gateway_version_state", "1 for the state a version is in.", labels=(*labels, "state")
        )
        memory = GaugeMetricFamily(
            "gateway_version_memory_bytes", "Memory that a version holds.", labels=(*labels, "device")
        )
        for version, series in list(self._tally.versions.items()):
            names = _names(version)
            for family, distribution in ((queue, series.queue), (compute, series.compute), (rows, series.rows)):
                family.add_metric(names, *distribution.exposed())
            waiting.add_metric(names, series.waiting_rows)
            for name in STATES:
                state.add_metric((*names, name), 1.0 if series.state == name else 0.0)
        for held in self._memory():
            if held.version in self._tally.versions:
                memory.add_metric((*_names(held.version), held.device), held.bytes)
        yield from (queue, compute, rows, waiting, state, memory)

    def _route_families(self) -> Iterator[Metric]:
        inflight = GaugeMetricFamily("gateway_inflight_requests", "Requests under way on a route.", labels=("route",))
        weight = GaugeMetricFamily(
            "gateway_route_weight", "Weight in force of a version in a route's split.", labels=("route", "version")
        )
        for route, count in list(self._tally.inflight.items()):
            inflight.add_metric((route,), count)
        for name, document in self._table().routes.items():
            weights: dict[int, int] = {}
            for arm in document.arms:
                effective = 0 if arm.version in document.quarantined else arm.weight
                weights[arm.version] = weights.get(arm.version, 0) + effective
            for version, total in weights.items():
                weight.add_metric((name, str(version)), total)
        rollout = GaugeMetricFamily(
            "gateway_rollout_weight", "Percent of a route's split that its rollout's candidate has.", labels=("route",)
        )
        for name, document in self._table().routes.items():
            if document.trial is not None:
                total = sum(arm.weight for arm in document.arms) or 1
                mine = sum(arm.weight for arm in document.arms if arm.version == document.trial.candidate)
                rollout.add_metric((name,), 100.0 * mine / total)
        yield from (inflight, weight, rollout)

    def _flag_families(self) -> Iterator[Metric]:
        """Only where there is a provider. The oldest data of any process counts; infinite: one has none to go by."""
        age = GaugeMetricFamily(
            "gateway_flag_age_seconds", "Age of the flag data that is in use.", labels=("provider",)
        )
        ready = GaugeMetricFamily(
            "gateway_flag_ready", "1 while every process has flag data that is current.", labels=("provider",)
        )
        ages: dict[str, float] = {}
        fine: dict[str, bool] = {}
        for source in self._flags():
            if source.state != "absent":
                oldest = math.inf if source.age_s is None else source.age_s
                ages[source.provider] = max(oldest, ages.get(source.provider, 0.0))
                fine[source.provider] = fine.get(source.provider, True) and source.state == "ready"
        for provider, seconds in ages.items():
            age.add_metric((provider,), seconds)
            ready.add_metric((provider,), 1.0 if fine[provider] else 0.0)
        if ages:
            yield from (age, ready)
        if self._tally.flag_misses:
            yield _counter(
                "gateway_flag_misses",
                "Times that a rule could not do what its flag says, by cause.",
                ("route", "rule", "cause"),
                self._tally.flag_misses.items(),
            )

    def _cache_families(self) -> Iterator[Metric]:
        caches = list(self._tally.caches.items())
        asked = [((route, outcome), count) for route, cache in caches for outcome, count in list(cache.asked.items())]
        yield _counter(
            "gateway_cache_requests",
            "Requests of a route with a response cache, by what it did for them.",
            ("route", "outcome"),
            asked,
        )
        evicted = [((route,), cache.evicted) for route, cache in caches]
        yield _counter(
            "gateway_cache_evictions", "Answers that made room for others in a response cache.", ("route",), evicted
        )
        entries = GaugeMetricFamily("gateway_cache_entries", "Answers that a response cache holds.", labels=("route",))
        size = GaugeMetricFamily("gateway_cache_bytes", "Memory that a response cache holds.", labels=("route",))
        for route, cache in caches:
            entries.add_metric((route,), cache.entries)
            size.add_metric((route,), cache.held_bytes)
        yield from (entries, size)

    def _shadow_families(self) -> Iterator[Metric]:
        shadows = [
            ((route, str(version.number)), dict(outcomes))
            for (route, version), outcomes in list(self._tally.shadows.items())
        ]
        yield _counter(
            "gateway_shadow",
            "Copies of requests for a shadow, by what became of them.",
            ("route", "version", "outcome"),
            [((*names, outcome), count) for names, outcomes in shadows for outcome, count in outcomes.items()],
        )
        yield _counter(
            "gateway_shadow_disagreement",
            "Answers of a shadow that differed from the one that the client got.",
            ("route", "version"),
            [(names, outcomes["differs"]) for names, outcomes in shadows],
        )


def _names(version: VersionRef) -> tuple[str, str]:
    return (version.model, str(version.number))


def _counter(
    name: str, text: str, labels: Sequence[str], counts: Iterable[tuple[Sequence[str], int]]
) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in list(counts):
        family.add_metric(values, count)
    return family
