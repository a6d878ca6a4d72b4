"""Metrics of the web workers themselves. Those of requests need none of their own: the node counts for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["WorkerCounts", "WorkerFamilies"]


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """``stale``: workers that leave what they are told unread. ``dropped_events``: seen by a worker, and lost since
    the node did not read them in time."""

    serving: int
    stale: int
    restarts: int
    dropped_events: int


class WorkerFamilies(Collector):
    """Asked by the registry, on whatever thread renders it."""

    def __init__(self, counts: Callable[[], WorkerCounts]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        workers = GaugeMetricFamily("gateway_workers", "Web workers by state.", labels=("state",))
        workers.add_metric(("serving",), counts.serving)
        workers.add_metric(("stale",), counts.stale)
        yield workers
        yield CounterMetricFamily(
            "gateway_worker_restarts", "Web workers that died and were replaced.", counts.restarts
        )
        yield CounterMetricFamily(
            "gateway_telemetry_dropped",
            "Events of web workers that the node did not take in time: requests that no metric counts.",
            counts.dropped_events,
        )
