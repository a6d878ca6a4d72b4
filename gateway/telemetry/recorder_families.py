"""A metric of the recorder itself. What of its records was lost when one died is counted by those who miss them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["RecorderFamilies"]


class RecorderFamilies(Collector):
    """Asked by the registry, on whatever thread renders it."""

    def __init__(self, restarts: Callable[[], int]) -> None:
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "gateway_recorder_restarts", "Recorders that died and were replaced.", self._restarts()
        )
