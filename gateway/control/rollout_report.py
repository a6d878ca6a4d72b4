"""What is written of a rollout when it has ended: a document kept by its route. Its text: ``rollout_report_text``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.control.documents import SCHEMA, RouteDocument
from gateway.control.rollout_state import Phase, RolloutState
from gateway.control.store import Change, DocumentKey

__all__ = ["KEPT_REPORTS", "REPORT", "report_key", "report_of", "report_of_deleted"]

REPORT = "report"
KEPT_REPORTS = 20
"""Reports of one route; older ones stay in its history and in the audit log."""

Json = Mapping[str, Any]


def report_key(route: str, rollout: str) -> DocumentKey:
    return DocumentKey(REPORT, f"{route}/{rollout}")


def report_of(
    route: str, model: str, state: RolloutState, *, evidence: Json | None, webhooks: Sequence[Json], written_at: float
) -> dict[str, Any]:
    streams = dict((evidence or {}).get("streams", {}))
    error = streams.get("error", {})
    return {
        "schema": SCHEMA,
        "route": route,
        "model": model,
        "id": state.id,
        "candidate": state.candidate,
        "baseline": state.baseline,
        "verdict": str(state.phase),
        "reason": state.reason,
        "trigger": state.harm,
        "started_at": state.started_at,
        "started_by": state.by,
        "ended_at": state.ended_at,
        "ended_by": state.ended_by,
        "seconds": round((state.ended_at or written_at) - state.started_at, 3),
        "weights": [mark.to_json() for mark in state.marks],
        "before": {str(version): weight for version, weight in state.before.items()},
        "requests_harmed": error.get("candidate", {}).get("bad"),
        "evidence": dict(evidence or {}),
        "webhooks": [dict(delivery) for delivery in webhooks],
        "plan": state.plan.to_json(),
        "written_at": written_at,
    }


def report_of_deleted(route: str, document: RouteDocument, kept: Json, *, by: str, at: float) -> Change | None:
    """The report of the rollout that ends with its route, which has nobody to write it later; None: none runs."""
    if document.status.rollout is None:
        return None
    ended = document.status.rollout.ended(Phase.ABORTED, at=at, by=by, reason="the route was deleted")
    hooks, evidence = kept.get("webhooks", []), kept.get("judgement")
    body = report_of(route, document.spec.model, ended, evidence=evidence, webhooks=hooks, written_at=at)
    return Change(report_key(route, ended.id), body, 0)
