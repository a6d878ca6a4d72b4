"""Metrics of how routes and versions stand: quarantine, rollouts, restarts, and the memory that versions may hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.messages import VersionRef

__all__ = ["PHASES", "StandingFacts", "StandingFamilies"]

PHASES = ("preparing", "shadowing", "stepping", "waiting", "paused", "baking")
"""Where a rollout that runs may stand, one gauge each, as for the states of versions."""


@dataclass(frozen=True, slots=True)
class StandingFacts:
    """``quarantined``: versions of a route that a rollback took off it, zero where there is none. ``phases``: of the
    rollouts that run, by route. ``restarts``: of the processes of versions that are here. ``budgets``: bytes that
    versions may hold, by device, where that is limited; ``resting``: versions that are unloaded to keep to them."""

    quarantined: Mapping[str, int] = field(default_factory=dict)
    phases: Mapping[str, str] = field(default_factory=dict)
    restarts: Mapping[VersionRef, int] = field(default_factory=dict)
    budgets: Mapping[str, int] = field(default_factory=dict)
    resting: int = 0


class StandingFamilies(Collector):
    """Asked by the registry, on whatever thread renders it."""

    def __init__(self, facts: Callable[[], StandingFacts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        quarantined = GaugeMetricFamily(
            "gateway_route_quarantined_versions", "Versions that a rollback took off the route.", labels=("route",)
        )
        for route, count in facts.quarantined.items():
            quarantined.add_metric((route,), count)
        phase = GaugeMetricFamily(
            "gateway_rollout_phase", "1 for the phase that a running rollout is in.", labels=("route", "phase")
        )
        for route, now in facts.phases.items():
            for name in PHASES:
                phase.add_metric((route, name), 1.0 if name == now else 0.0)
        restarts = CounterMetricFamily(
            "gateway_version_restarts",
            "Processes of a version that ended by themselves and were replaced.",
            labels=("model", "version"),
        )
        for version, times in facts.restarts.items():
            restarts.add_metric((version.model, str(version.number)), times)
        budget = GaugeMetricFamily(
            "gateway_memory_budget_bytes", "Memory that versions together may hold, where limited.", labels=("device",)
        )
        for device, limit in facts.budgets.items():
            budget.add_metric((device,), limit)
        resting = "Versions that are unloaded to keep to the memory budget."
        yield from (quarantined, phase, restarts, budget)
        yield GaugeMetricFamily("gateway_resting_versions", resting, facts.resting)
