"""Metrics of the sinks: what each has sent, what it could not, and how far it is behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["SinkFamilies"]

_LABELS = ("sink",)


class SinkFamilies(Collector):
    """``standing`` is what the sinks last said of themselves. A recorder that is replaced counts from nothing: what
    the one before had counted is kept here."""

    def __init__(self, standing: Callable[[], Sequence[Mapping[str, Any]]]) -> None:
        self._standing = standing
        self._before: dict[tuple[str, str], int] = {}
        self._last: dict[tuple[str, str], int] = {}

    def collect(self) -> Iterator[Metric]:
        sinks = [dict(one) for one in self._standing()]
        for field, family in _counters():
            for sink in sinks:
                family.add_metric((sink["name"],), self._counted(sink["name"], field, int(sink[field])))
            yield family
        for field, gauge in _gauges():
            for sink in sinks:
                gauge.add_metric((sink["name"],), float(sink[field]))
            yield gauge

    def _counted(self, sink: str, field: str, now: int) -> int:
        key, last = (sink, field), self._last.get((sink, field), 0)
        if now < last:
            self._before[key] = self._before.get(key, 0) + last
        self._last[key] = now
        return self._before.get(key, 0) + now


def _counters() -> Iterator[tuple[str, CounterMetricFamily]]:
    yield (
        "sent",
        CounterMetricFamily(
            "gateway_decision_sink_sent", "Records that a sink of the decision log has taken.", labels=_LABELS
        ),
    )
    yield (
        "failed_attempts",
        CounterMetricFamily(
            "gateway_decision_sink_failed_attempts", "Batches that a sink did not take; tried again.", labels=_LABELS
        ),
    )
    yield (
        "refused",
        CounterMetricFamily(
            "gateway_decision_sink_refused", "Records that a sink did not want; given up.", labels=_LABELS
        ),
    )
    yield (
        "skipped",
        CounterMetricFamily(
            "gateway_decision_sink_skipped", "Lines of the log that were gone before they were sent.", labels=_LABELS
        ),
    )


def _gauges() -> Iterator[tuple[str, GaugeMetricFamily]]:
    yield (
        "lag_lines",
        GaugeMetricFamily(
            "gateway_decision_sink_lag_records", "Lines of the log that a sink has still to look at.", labels=_LABELS
        ),
    )
    yield (
        "lag_s",
        GaugeMetricFamily(
            "gateway_decision_sink_lag_seconds",
            "Age of the first record that a sink has not taken; 0: none is.",
            labels=_LABELS,
        ),
    )
