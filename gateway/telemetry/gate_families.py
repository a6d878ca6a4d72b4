"""Metrics of gates: runs by outcome, overrides, and versions in service that do not pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.messages import VersionRef

__all__ = ["GateFacts", "GateFamilies"]


@dataclass(frozen=True, slots=True)
class GateFacts:
    """``runs``: of this replica, by model and outcome (passed, failed). ``standing``: versions in service of models
    with gates, and whether they passed when they were looked at last."""

    runs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    overrides: Mapping[str, int] = field(default_factory=dict)
    standing: Mapping[VersionRef, bool] = field(default_factory=dict)


class GateFamilies(Collector):
    """Asked by the registry, on whatever thread renders it."""

    def __init__(self, facts: Callable[[], GateFacts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        runs = CounterMetricFamily(
            "gateway_gate_runs",
            "Runs of the gates of versions on this replica: passed, failed.",
            labels=("model", "outcome"),
        )
        for (model, outcome), count in facts.runs.items():
            runs.add_metric((model, outcome), count)
        overrides = CounterMetricFamily(
            "gateway_gate_overrides", "Gates that an administrator passed a version over.", labels=("model",)
        )
        for model, count in facts.overrides.items():
            overrides.add_metric((model,), count)
        failing = GaugeMetricFamily(
            "gateway_gate_failing",
            "1 for a version in service that did not pass its gates when they were run last, 0 for one that did.",
            labels=("model", "version"),
        )
        for ref, passed in facts.standing.items():
            failing.add_metric((ref.model, str(ref.number)), 0.0 if passed else 1.0)
        yield from (runs, overrides, failing)
