"""Metrics of drift: only the replica that judges shows them, of the features that moved furthest and of all
together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.messages import VersionRef
from gateway.telemetry.drift.figures import Figures

__all__ = ["DriftFamilies"]

_VERSION = ("model", "version")


class DriftFamilies(Collector):
    """Asked by the registry, on whatever thread renders it."""

    def __init__(
        self, figures: Callable[[], Sequence[Figures]], looked_at: Callable[[], Mapping[VersionRef, float]]
    ) -> None:
        self._figures = figures
        self._looked_at = looked_at

    def collect(self) -> Iterator[Metric]:
        figures = self._figures()
        yield _scores(figures)
        yield _alarms(figures)
        blames = GaugeMetricFamily(
            "gateway_drift_blame", "Alarms that stand, by whose fault it is.", labels=(*_VERSION, "blame")
        )
        seen = CounterMetricFamily("gateway_drift_rows_seen", "Rows that ran and might be counted.", labels=_VERSION)
        counted = CounterMetricFamily("gateway_drift_rows_counted", "Rows counted for drift.", labels=_VERSION)
        raised = CounterMetricFamily("gateway_drift_alarms", "Alarms ever raised, by feature added.", labels=_VERSION)
        told = "False alarms in 90 days: promised by the budget, simulated, and on rows of the reference held out."
        rates = GaugeMetricFamily("gateway_drift_false_alarms_per_90_days", told, labels=(*_VERSION, "kind"))
        for one in figures:
            labels = (one.version.model, str(one.version.number))
            for blame, alarms in one.blames.items():
                blames.add_metric((*labels, blame), alarms)
            seen.add_metric(labels, one.seen)
            counted.add_metric(labels, one.counted)
            raised.add_metric(labels, one.raised)
            rates.add_metric((*labels, "promised"), one.promised)
            for kind, rate in (("simulated", one.simulated), ("held-out", one.held_out)):
                if rate is not None:
                    rates.add_metric((*labels, kind), rate)
        yield from (blames, seen, counted, raised, rates, self._looks())

    def _looks(self) -> Metric:
        told = "Unix time at which a version was judged for drift last; where it never could be, was first to be."
        family = GaugeMetricFamily("gateway_drift_looked_timestamp_seconds", told, labels=_VERSION)
        for version, at in self._looked_at().items():
            family.add_metric((version.model, str(version.number)), at)
        return family


def _scores(figures: Sequence[Figures]) -> Metric:
    told = "How far a feature of a version is from its reference; effect in standard deviations, evidence in nats."
    family = GaugeMetricFamily("gateway_drift_score", told, labels=(*_VERSION, "feature", "statistic"))
    for one in figures:
        for (feature, statistic), value in one.scores.items():
            if math.isfinite(value):
                family.add_metric((one.version.model, str(one.version.number), feature, statistic), value)
    return family


def _alarms(figures: Sequence[Figures]) -> Metric:
    told = "1 while an alarm stands: of a feature, or (all) of any."
    family = GaugeMetricFamily("gateway_drift_alarm", told, labels=(*_VERSION, "feature"))
    for one in figures:
        for feature, standing in one.alarms.items():
            family.add_metric((one.version.model, str(one.version.number), feature), standing)
    return family
