"""Metrics of traces: how many are kept, and why, and what became of their spans."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["TraceCounts", "TraceFamilies"]


@dataclass(frozen=True, slots=True)
class TraceCounts:
    """``kept`` requests by why, ``suppressed`` ones beyond the rates; spans exported, and lost
    by cause."""

    kept: Mapping[str, int] = field(default_factory=dict)
    suppressed: int = 0
    exported: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)


class TraceFamilies(Collector):
    """Asked by the registry, on whatever thread renders it."""

    def __init__(self, counts: Callable[[], TraceCounts]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        kept = CounterMetricFamily("gateway_traces_kept", "Requests that are traced, by why.", labels=("sampled_by",))
        for reason, count in counts.kept.items():
            kept.add_metric((reason,), count)
        yield kept
        yield CounterMetricFamily(
            "gateway_traces_suppressed",
            "Requests that are not traced, since enough others were.",
            counts.suppressed,
        )
        yield CounterMetricFamily("gateway_spans_exported", "Spans that the collector has taken.", counts.exported)
        dropped = CounterMetricFamily("gateway_spans_dropped", "Spans that were lost, by cause.", labels=("cause",))
        for cause, count in counts.dropped.items():
            dropped.add_metric((cause,), count)
        yield dropped
