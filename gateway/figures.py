"""What the metrics are told of the parts of a gateway, at each scrape, on the scrape's own thread."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.clock import SystemClock
from gateway.control.gate_schedule import standing
from gateway.control.plane import ControlPlane
from gateway.control.rollout_state import ENDED
from gateway.serving.fleet import Fleet
from gateway.telemetry.gate_families import GateFacts
from gateway.telemetry.metrics import VersionMemory
from gateway.telemetry.notification_families import NotificationFacts
from gateway.telemetry.standing_families import StandingFacts
from gateway.telemetry.store_families import StoreFacts
from gateway.telemetry.worker_families import WorkerCounts
from gateway.workers.crew import Crew

__all__ = ["gate_facts", "memory_facts", "notification_facts", "standing_facts", "store_facts", "worker_counts"]


def worker_counts(crew: Crew) -> WorkerCounts:
    now = crew.statistics()
    return WorkerCounts(now.serving, now.stale, now.restarts, now.dropped_events)


def notification_facts(control: ControlPlane, clock: SystemClock) -> list[NotificationFacts]:
    return [
        NotificationFacts(
            one.target,
            one.endings,
            one.attempts,
            one.under_way,
            0.0 if one.oldest_at is None else max(0.0, clock.wall() - one.oldest_at),
        )
        for one in control.notifications.statistics()
    ]


def store_facts(control: ControlPlane) -> StoreFacts:
    now = control.store_watch.standing()
    return StoreFacts(
        now.durability.state, now.refused is not None, now.replicas, len(list(control.reconciler.overrides.unstored()))
    )


def gate_facts(control: ControlPlane) -> GateFacts:
    """Of one state."""
    desired, found = control.reconciler.desired, control.gates.statistics()
    return GateFacts(found.runs, found.overrides, standing(desired))


def standing_facts(control: ControlPlane, fleet: Fleet) -> StandingFacts:
    """What others change meanwhile is copied first."""
    documents = {name: desired.document.status for name, desired in control.reconciler.desired.routes.items()}
    rollouts = {name: status.rollout for name, status in documents.items()}
    residents = {ref: handle.statistics() for ref, handle in list(fleet.handles.items())}
    devices = {"cpu", *(now.device for now in residents.values() if now.device is not None)}
    return StandingFacts(
        quarantined={name: len(status.quarantined) for name, status in documents.items()},
        phases={name: str(run.phase) for name, run in rollouts.items() if run is not None and run.phase not in ENDED},
        restarts={ref: now.restarts for ref, now in residents.items()},
        budgets={device: limit for device in devices if (limit := control.memory_limits.of(device)) is not None},
        resting=len(control.reconciler.budget.resting),
    )


def memory_facts(fleet: Fleet) -> Iterable[VersionMemory]:
    return [VersionMemory(held.ref, held.device, held.memory_bytes) for held in fleet.memory()]
