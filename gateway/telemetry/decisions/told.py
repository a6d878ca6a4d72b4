"""What the decision log is told of the routing table: by which weights, and by which intervals of keys, it decides.

Plain values, which cross to the recorder and stand in the log as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.routing.table import Arm, Places, Recording, Route, RoutingTable, Rule

__all__ = ["recording_of", "route_body", "table_body"]


def table_body(table: RoutingTable) -> dict[str, Any]:
    return {"revision": table.revision, "routes": {name: route_body(route) for name, route in table.routes.items()}}


def route_body(route: Route) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": route.model,
        "epoch": route.epoch,
        "weights": _weights(route.arms),
        "intervals": _intervals(route.places),
        "known_good": route.known_good,
        "decisions": _decisions(route.recording),
    }
    if route.fallback is not None:
        body["fallback"] = route.fallback
    if route.rules:
        body["rules"] = [_rule(rule, places) for rule, places in zip(route.rules, route.rule_places, strict=True)]
    if route.quarantined:
        body["quarantined"] = sorted(route.quarantined)
    return body


def recording_of(body: Mapping[str, Any]) -> Recording | None:
    """What is kept of a route's answers, out of what was told of it."""
    decisions = body.get("decisions")
    if decisions is None:
        return None
    return Recording(str(decisions["content"]), frozenset(decisions["redact"]), bool(decisions["refuse"]))


def _decisions(recording: Recording | None) -> dict[str, Any] | None:
    if recording is None:
        return None
    return {"content": recording.content, "redact": sorted(recording.redact), "refuse": recording.refuse}


def _rule(rule: Rule, places: Places | None) -> dict[str, Any]:
    if rule.choose is not None:
        return {"name": rule.name, "flag": rule.condition or True}
    when = {"name": rule.name} if rule.condition is None else {"name": rule.name, "if": rule.condition}
    if isinstance(rule.use, int):
        return when | {"use": rule.use}
    return when | {"weights": _weights(rule.use), "intervals": [] if places is None else _intervals(places)}


def _weights(arms: tuple[Arm, ...]) -> dict[str, int]:
    return {str(arm.version): arm.weight for arm in arms}


def _intervals(places: Places) -> list[list[int]]:
    """``[end, version]``, ascending, each from the end before (0 at first) up to, not including, ``end``."""
    return [[end, version.number] for end, version in zip(places.ends, places.versions, strict=True)]
