"""Metrics of the sinks: what each has sent, what it could not, and how far it is behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["SinkFamilies"]

_COUNTERS = (
    ("gateway_decision_sink_sent", "sent", "Records that a sink of the decision log has taken."),
    ("gateway_decision_sink_failed_attempts", "failed_attempts", "Batches that a sink did not take; tried again."),
    ("gateway_decision_sink_refused", "refused", "Records that a sink did not want; given up."),
    ("gateway_decision_sink_skipped", "skipped", "Lines of the log that were gone before they could be sent."),
)
_GAUGES = (
    ("gateway_decision_sink_lag_records", "lag_lines", "Lines of the log that a sink has still to look at."),
    ("gateway_decision_sink_lag_seconds", "lag_s", "Age of the first record that a sink has not taken; 0: none is."),
)


class SinkFamilies(Collector):
    """``standing`` is what the sinks last said of themselves. A recorder that is replaced counts from nothing: what
    the one before had counted is kept here."""

    def __init__(self, standing: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._standing = standing
        self._before: dict[tuple[str, str], int] = {}
        self._last: dict[tuple[str, str], int] = {}

    def collect(self) -> Iterator[Metric]:
        sinks = [dict(one) for one in self._standing()]
        for name, field, says in _COUNTERS:
            counted = CounterMetricFamily(name, says, labels=("sink",))
            for sink in sinks:
                counted.add_metric((sink["name"],), self._counted(sink["name"], field, int(sink[field])))
            yield counted
        for name, field, says in _GAUGES:
            gauge = GaugeMetricFamily(name, says, labels=("sink",))
            for sink in sinks:
                gauge.add_metric((sink["name"],), float(sink[field]))
            yield gauge

    def _counted(self, sink: str, field: str, now: int) -> int:
        key, last = (sink, field), self._last.get((sink, field), 0)
        if now < last:
            self._before[key] = self._before.get(key, 0) + last
        self._last[key] = now
        return self._before.get(key, 0) + now
