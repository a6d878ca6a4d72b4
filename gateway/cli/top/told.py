"""What looks and facts hold, and how it is found there: names of samples, labels, shares, the routes in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.top.exposition_text import value_of
from gateway.cli.top.picture import Event
from gateway.cli.top.rates import STARTED, Increase, Look

__all__ = [
    "DRIFT",
    "DROPPED",
    "DURATION",
    "FALLBACKS",
    "INFLIGHT",
    "MANY_ERRORS",
    "MEMORY",
    "NAMES",
    "REFUSED",
    "REQUESTS",
    "RESTARTS",
    "REVISION",
    "ROWS",
    "STORE_UP",
    "WAITING",
    "Facts",
    "gauge",
    "is_error",
    "per_second",
    "revision_of",
    "route_of",
    "share",
    "standing_routes",
    "version_of",
]

Json = Mapping[str, Any]

REQUESTS, DURATION, ROWS = "gateway_requests_total", "gateway_request_duration_seconds", "gateway_batch_rows"
REFUSED, FALLBACKS, RESTARTS = "gateway_rejected_total", "gateway_fallbacks_total", "gateway_version_restarts_total"
INFLIGHT, WAITING = "gateway_inflight_requests", "gateway_queue_rows"
MEMORY, DRIFT = "gateway_version_memory_bytes", "gateway_drift_alarm"
REVISION, STORE_UP, DROPPED = (
    "gateway_state_revision",
    "gateway_state_store_up",
    "gateway_decision_log_dropped_total",
)
NAMES = (
    *(STARTED, REQUESTS, f"{DURATION}_bucket", f"{ROWS}_sum", f"{ROWS}_count", REFUSED, FALLBACKS, RESTARTS),
    *(INFLIGHT, WAITING, MEMORY, DRIFT, REVISION, STORE_UP, DROPPED),
)
"""The samples that are read."""

MANY_ERRORS = 0.01


@dataclass(frozen=True, slots=True)
class Facts:
    """What the admin plane told: routes by name, versions by model and number, the newest events first, rollouts that
    run by route. What the token may not see is empty, or None, and ``withheld`` says so."""

    routes: Mapping[str, Json] = field(default_factory=dict)
    versions: Mapping[tuple[str, int], Json] = field(default_factory=dict)
    replicas: int | None = None
    events: tuple[Event, ...] = ()
    rollouts: Mapping[str, Json] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()


def revision_of(look: Look) -> int | None:
    """By ``/readyz``: a page of metrics may be older by a fifth of a second."""
    told = look.standing.get("revision", value_of(look.samples, REVISION))
    return None if told is None else int(told)


def standing_routes(look: Look) -> Mapping[str, Json]:
    return look.standing.get("routes") or {}


def gauge(look: Look, name: str, by: Callable[[Mapping[str, str]], Any]) -> dict[Any, float]:
    found: dict[Any, float] = {}
    for labels, value in look.samples.get(name, {}).items():
        key = by(dict(labels))
        if key is not None:
            found[key] = found.get(key, 0.0) + value
    return found


def route_of(labels: Mapping[str, str]) -> str | None:
    return labels.get("route")


def version_of(labels: Mapping[str, str]) -> tuple[str, int] | None:
    """None for requests that no version was chosen for."""
    number = labels.get("version", "")
    return (labels.get("model", ""), int(number)) if number.isdecimal() else None


def is_error(labels: Mapping[str, str]) -> bool:
    return labels.get("code", "").startswith("5")


def share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def per_second(rate: float, increase: Increase) -> float | None:
    return rate if increase.span_s > 0 else None
