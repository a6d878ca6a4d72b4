"""Metrics of the store that replicas share, beside its revision and whether it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["StoreFacts", "StoreFamilies"]


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """``durable``: ``always`` when what the store acknowledges is on disk. ``not_stored``: rollbacks in force here that
    the store does not have yet."""

    durable: str
    refused: bool
    replicas: int
    not_stored: int


class StoreFamilies(Collector):
    """Asked by the registry, on whatever thread renders it."""

    def __init__(self, facts: Callable[[], StoreFacts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        durable = "1 when what the store acknowledges is durable; 0 when it is not, or nobody can tell."
        yield GaugeMetricFamily("gateway_state_store_durable", durable, 1.0 if facts.durable == "always" else 0.0)
        refused = "1 while the store is not believed: it came back empty, older or as another one."
        yield GaugeMetricFamily("gateway_state_store_refused", refused, 1.0 if facts.refused else 0.0)
        yield GaugeMetricFamily("gateway_replicas", "Living replicas, as this one knows.", facts.replicas)
        waiting = "Rollbacks in force here that the store does not have yet."
        yield GaugeMetricFamily("gateway_state_rollbacks_not_stored", waiting, facts.not_stored)
