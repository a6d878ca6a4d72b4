"""A route's row: rates, times, the split in force with its marks, and what an operator should know of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from gateway.cli.rollout_view import stands
from gateway.cli.top.picture import Arm, RouteRow
from gateway.cli.top.rates import Increase, Look, quantile
from gateway.cli.top.told import (
    DURATION,
    FALLBACKS,
    INFLIGHT,
    MANY_ERRORS,
    REFUSED,
    REQUESTS,
    Facts,
    gauge,
    is_error,
    per_second,
    route_of,
    share,
)

__all__ = ["route_rows", "route_urgency"]

Json = Mapping[str, Any]


def route_rows(shown: Mapping[str, Json], look: Look, increase: Increase, facts: Facts) -> Iterator[RouteRow]:
    asked = increase.rates(REQUESTS, route_of)
    failed = increase.rates(REQUESTS, lambda labels: route_of(labels) if is_error(labels) else None)
    times = increase.buckets(DURATION, route_of)
    fallbacks, refused = increase.rates(FALLBACKS, route_of), increase.rates(REFUSED, route_of)
    reasons = increase.rates(REFUSED, lambda labels: (labels.get("route"), labels.get("reason", "")))
    inflight = gauge(look, INFLIGHT, route_of)
    for name, standing in shown.items():
        view = facts.routes.get(name)
        yield RouteRow(
            route=name,
            model=str(standing["model"]),
            ready=bool(standing["ready"]),
            requests_s=per_second(asked.get(name, 0.0), increase),
            errors=share(failed.get(name, 0.0), asked.get(name, 0.0)),
            p50_s=quantile(times.get(name, {}), 0.5),
            p99_s=quantile(times.get(name, {}), 0.99),
            inflight=int(inflight.get(name, 0)),
            fallbacks_s=per_second(fallbacks.get(name, 0.0), increase),
            refused_s=per_second(refused.get(name, 0.0), increase),
            refused_for=tuple(sorted(why for (route, why), rate in reasons.items() if route == name and rate > 0)),
            split=_arms(standing, view),
            rollout=_rollout(name, view, facts),
            notes=tuple(_notes(name, standing, view, look)),
        )


def _arms(standing: Json, view: Json | None) -> tuple[Arm, ...]:
    """Versions that have weight, or a mark. Quarantined ones get nothing whatever their weight."""
    status = {} if view is None else view["status"]
    rows = [row for row in standing["versions"] if row["weight"] or row["quarantined"] or _is_good(row, status)]
    total = sum(row["weight"] for row in rows if not row["quarantined"])
    return tuple(
        Arm(
            version=row["version"],
            percent=0.0 if row["quarantined"] or not total else 100.0 * row["weight"] / total,
            state=str(row["state"]),
            known_good=_is_good(row, status),
            quarantined=bool(row["quarantined"]),
        )
        for row in rows
    )


def _is_good(row: Json, status: Json) -> bool:
    return bool(row["version"] == status.get("known_good"))


def _rollout(name: str, view: Json | None, facts: Facts) -> str:
    if view is None or not view["status"].get("rollout"):
        return ""
    now = facts.rollouts.get(name) or {"route": name, "running": True, "rollout": view["status"]["rollout"]}
    trouble = (now.get("live") or {}).get("trouble")
    return stands(now) + (f"; does not go on: {trouble}" if trouble else "")


def _notes(name: str, standing: Json, view: Json | None, look: Look) -> Iterator[str]:
    degraded = [str(text) for text in look.standing.get("degraded") or () if str(text).startswith(f"{name}: ")]
    yield from (text.removeprefix(f"{name}: ") for text in degraded)
    if not standing["ready"] and not degraded:
        yield "not ready"
    status = {} if view is None else view["status"]
    failed = status.get("failed") or {}
    yield from (f"version {number} cannot be loaded: {reason}" for number, reason in failed.items())
    waiting = [str(number) for number in status.get("pending") or () if str(number) not in failed]
    if waiting:
        yield f"revision {status.get('revision')} is not in force yet: waits for version {', '.join(waiting)}"


def route_urgency(row: RouteRow) -> tuple[int, int, int, str]:
    """Coarse, so that rows do not change places at every look."""
    errors = row.errors or 0.0
    rank = (
        0
        if not row.ready
        else 1
        if errors >= MANY_ERRORS
        else 2
        if row.refused_s or row.fallbacks_s or errors
        else 3
        if row.rollout or row.notes or any(arm.quarantined for arm in row.split)
        else 4
    )
    return rank, -round(20 * errors), -_magnitude(row.requests_s), row.route


def _magnitude(rate: float | None) -> int:
    return round(math.log2(1.0 + (rate or 0.0)) / 2)
