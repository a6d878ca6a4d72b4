"""Metrics of notifications: what became of them for each target, and how long the oldest has been under way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["OUTCOMES", "NotificationFacts", "NotificationFamilies"]

OUTCOMES = ("delivered", "refused", "given-up")


@dataclass(frozen=True, slots=True)
class NotificationFacts:
    """Of one target. ``endings``: how many by outcome; ``oldest_s``: 0 where nothing is under way."""

    target: str
    endings: Mapping[str, int]
    attempts: int
    under_way: int
    oldest_s: float


class NotificationFamilies(Collector):
    """Asked by the registry, on whatever thread renders it. Targets are those of the settings, so few."""

    def __init__(self, facts: Callable[[], Sequence[NotificationFacts]]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        facts = self._facts()
        ended = CounterMetricFamily(
            "gateway_notifications",
            "Notifications by target and by what became of them: delivered, refused, given-up.",
            labels=("target", "outcome"),
        )
        attempts = CounterMetricFamily(
            "gateway_notification_attempts", "Attempts to send a notification, by target.", labels=("target",)
        )
        under_way = GaugeMetricFamily(
            "gateway_notifications_under_way", "Notifications that are being tried now, by target.", labels=("target",)
        )
        oldest = GaugeMetricFamily(
            "gateway_notification_oldest_seconds",
            "Age of the event whose notification has been under way longest; 0: none is.",
            labels=("target",),
        )
        for one in facts:
            for outcome in OUTCOMES:
                ended.add_metric((one.target, outcome), one.endings.get(outcome, 0))
            attempts.add_metric((one.target,), one.attempts)
            under_way.add_metric((one.target,), one.under_way)
            oldest.add_metric((one.target,), one.oldest_s)
        yield from (ended, attempts, under_way, oldest)
