"""Records as the gateway makes them, for the telemetry tests."""

from __future__ import annotations

from typing import Any

from gateway.events.records import BatchRecord, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.routing.table import Arm, Route, RoutingTable

DIGITS_3, DIGITS_4 = VersionRef("digits", 3), VersionRef("digits", 4)
TRACE_ID, SPAN_ID, PARENT_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "53995c3f42cd8ad8"


def decision(version: VersionRef = DIGITS_3, *, route: str = "digits", reason: str = "split") -> Decision:
    return Decision(route, version, reason, 17, 7, 2)


def request(**changes: Any) -> RequestRecord:
    settled: dict[str, Any] = {
        "route": "digits",
        "request_id": "r-1",
        "decision_id": "0190b0a8-0000-7000-8000-000000000001",
        "decision": decision(),
        "answered_by": DIGITS_3,
        "code": 200,
        "chosen_failure": None,
        "error": None,
        "rows": 2,
        "started_wall": 1_700_000_000.25,
        "duration_s": 0.004,
        "queue_s": 0.001,
        "compute_s": 0.002,
        "trace_id": TRACE_ID,
        "span_id": SPAN_ID,
    }
    return RequestRecord(**{**settled, **changes})


def batch(version: VersionRef = DIGITS_3, **changes: Any) -> BatchRecord:
    settled: dict[str, Any] = {"rows": 3, "items": 2, "compute_s": 0.002, "waits_s": (0.0002, 0.003)}
    return BatchRecord(version, **{**settled, **changes})


def table(*routes: Route, revision: int = 7) -> RoutingTable:
    return RoutingTable({route.name: route for route in routes}, None, revision)


def digits(**changes: Any) -> Route:
    settled: dict[str, Any] = {"arms": (Arm(3, 95), Arm(4, 5)), "pinnable": frozenset({3, 4})}
    return Route("digits", "digits", **{**settled, **changes})
