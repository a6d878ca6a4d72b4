"""Metrics of sinks and notifications: as they stand, counted on over a recorder that was replaced."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from gateway.telemetry.notification_families import NotificationFacts, NotificationFamilies
from gateway.telemetry.recorder_families import RecorderFamilies
from gateway.telemetry.sink_families import SinkFamilies


def sink(name: str, **changes: Any) -> dict[str, Any]:
    counts = dict.fromkeys(("sent", "failed_attempts", "refused", "skipped", "lag_lines"), 0)
    return {"name": name, **counts, "lag_s": 0.0, "trouble": "", **changes}


def shown(registry: CollectorRegistry) -> dict[str, float]:
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_what_a_recorder_counted_before_it_died_is_not_forgotten() -> None:
    """Its follower begins at nothing; the metric goes on."""
    now = [sink("events", sent=100, lag_lines=7, lag_s=1.5)]
    registry = CollectorRegistry()
    registry.register(SinkFamilies(lambda: now))
    assert shown(registry)['gateway_decision_sink_sent_total{sink="events"}'] == 100
    now[:] = [sink("events", sent=20)]
    found = shown(registry)
    assert found['gateway_decision_sink_sent_total{sink="events"}'] == 120
    assert found['gateway_decision_sink_lag_seconds{sink="events"}'] == 0
    now.clear()  # the recorder is being replaced: it says nothing
    assert shown(registry) == {}


def test_a_target_shows_every_outcome_from_the_first() -> None:
    """A series that begins at one is an alert that nobody sees."""
    registry = CollectorRegistry()
    registry.register(NotificationFamilies(lambda: [NotificationFacts("ops", {"given-up": 2}, 9, 1, 30.0)]))
    found = shown(registry)
    assert found['gateway_notifications_total{outcome="given-up",target="ops"}'] == 2
    assert found['gateway_notifications_total{outcome="delivered",target="ops"}'] == 0
    assert found['gateway_notification_oldest_seconds{target="ops"}'] == 30


def test_replaced_recorders_are_counted_from_nothing_on() -> None:
    """A counter that is there before the first death: an increase needs a series to rise from."""
    restarts = [0]
    registry = CollectorRegistry()
    registry.register(RecorderFamilies(lambda: restarts[0]))
    assert shown(registry)["gateway_recorder_restarts_total"] == 0
    restarts[0] = 3
    assert shown(registry)["gateway_recorder_restarts_total"] == 3
