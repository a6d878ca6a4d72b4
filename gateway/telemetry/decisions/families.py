"""What an operator sees of the decision log: what it lost, what it holds, how far it is durable and signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["DecisionFamilies"]

_GAUGES = (
    ("gateway_decision_log_bytes", "held_bytes", "Bytes of the decision log's files."),
    ("gateway_decision_log_segments", "segments", "Segments of the decision log, the open one included."),
    ("gateway_decision_log_damaged_segments", "damaged_segments", "Segments that are not as they were written."),
    ("gateway_decision_log_unsynced_seconds", "unsynced_s", "Since when there are records that are not durable."),
)


class DecisionFamilies(Collector):
    """``standing`` is what the log last said of itself (``decisions.statistics``); ``lost`` the records that never
    reached it. A recorder that is replaced counts from nothing: what the one before had counted is kept here."""

    def __init__(self, standing: Callable[[], Mapping[str, Any]], lost: Callable[[], int]) -> None:
        self._standing = standing
        self._lost = lost
        self._before: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def collect(self) -> Iterator[Metric]:
        told = self._standing()
        dropped = CounterMetricFamily(
            "gateway_decision_log_dropped", "Records that are missing in the decision log; gap records say where."
        )
        dropped.add_metric((), self._counted("dropped", told) + self._lost())
        yield dropped
        records = CounterMetricFamily("gateway_decision_log_records", "Records written to the decision log.")
        records.add_metric((), self._counted("written", told))
        yield records
        yield GaugeMetricFamily(
            "gateway_decision_log_full",
            "1 while the decision log cannot be written.",
            value=float(bool(told.get("full"))),
        )
        for name, field, says in _GAUGES:
            yield GaugeMetricFamily(name, says, value=float(told.get(field, 0.0)))

    def _counted(self, field: str, told: Mapping[str, Any]) -> int:
        now, last = int(told.get(field, 0)), self._last.get(field, 0)
        if now < last:
            self._before[field] = self._before.get(field, 0) + last
        self._last[field] = now
        return self._before.get(field, 0) + now
