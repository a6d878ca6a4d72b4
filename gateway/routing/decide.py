"""Which version answers: pins first, then rules in their order, then the split. Pure.

A quarantined version is never chosen: a pin on it is refused, a rule that would use it falls
through to the next, and the keys of its arm are the other arms'. A rule whose flag data is too old, or missing,
sends what reaches it to the known good. A fallback is not decided here; the data plane takes it when
the chosen version fails.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.errors import Forbidden, Quarantined, UnknownRoute, UnknownVersion, VersionUnavailable
from gateway.messages import NOTHING, Decision, InferRequest, Texts, VersionRef
from gateway.routing.split import place_of
from gateway.routing.table import Choice, Places, Route, RoutingTable, Rule

__all__ = ["Facts", "decide", "key_by_route", "unknown_route"]

_new = tuple.__new__


class Facts(NamedTuple):
    """What a decision may depend on; an ``InferRequest`` carries the same and can stand in for it.

    ``route`` None asks for the default route. ``headers`` have lower-case names. ``pin`` is the
    version the client asks for; ``pin_by_protocol``: by a URL of the Open Inference Protocol.
    ``decision_id`` is the server's, and the key of a request that has none.
    """

    route: str | None
    key: str | None = None
    context: Mapping[str, Any] = NOTHING
    headers: Texts = NOTHING
    pin: int | None = None
    pin_by_protocol: bool = False
    decision_id: str = ""


def decide(table: RoutingTable, facts: Facts | InferRequest) -> Decision:
    """The version that answers and the reason: ``pin``, ``rule:<name>`` or ``split``.

    Raises UnknownRoute; for a pin Forbidden (the route denies pins), UnknownVersion (the route
    does not name it) or Quarantined; VersionUnavailable when no arm has any weight left.
    """
    name = facts.route if facts.route is not None else table.default_route
    route = table.routes.get(name) if name is not None else None
    if route is None:
        raise unknown_route(facts.route, table.routes)
    if facts.pin is not None:
        return _pinned(table, route, facts.pin, facts.pin_by_protocol)
    key = facts.key or (None if route.key is None else key_by_route(route.key, facts.headers, facts.context))
    if route.rules:
        return _by_rules(table, route, facts, key)
    return _by_split(table, route, route.places, key or facts.decision_id, "split")


@lru_cache(maxsize=4096)
def _ref(model: str, number: int) -> VersionRef:
    """One value for equal references: making a frozen record anew is a fifth of the decision's time."""
    return VersionRef(model, number)


def unknown_route(asked: str | None, routes: Mapping[str, Route]) -> UnknownRoute:
    """``asked`` None: the default one."""
    known = ", ".join(sorted(routes)[:10]) or "none yet"
    if asked is None:
        return UnknownRoute(f"no default route is set; name one in the URL (routes here: {known})")
    return UnknownRoute(f"no route {asked!r:.200}; routes here: {known}")


def _pinned(table: RoutingTable, route: Route, version: int, by_protocol: bool) -> Decision:
    if route.pin == "denied" or (route.pin is None and not by_protocol):
        raise Forbidden(
            f"route {route.name!r} does not let clients choose the version (asked for {version});"
            " leave the pin out, or have the route's 'pin' set to 'allowed'"
        )
    if version in route.quarantined:
        raise Quarantined(
            f"version {version} was rolled back from route {route.name!r} and is quarantined;"
            " leave the pin out, or have an operator lift the quarantine"
        )
    if version not in route.pinnable:
        named = ", ".join(str(number) for number in sorted(route.pinnable - route.quarantined)) or "none"
        raise UnknownVersion(f"route {route.name!r} does not name version {version}; it names {named}")
    return Decision(route.name, _ref(route.model, version), "pin", None, table.revision, route.epoch)


def _by_rules(table: RoutingTable, route: Route, facts: Facts | InferRequest, key: str | None) -> Decision:
    """By the first rule that matches and whose version may answer, or else by the split."""
    scope: Mapping[str, Any] | None = None
    asked: Choice | None = None
    own = key or facts.decision_id
    for rule, places in zip(route.rules, route.rule_places, strict=True):
        if rule.choose is not None:
            asked = rule.choose(own, facts.context)
            number = route.known_good if asked.stale else asked.version
            if number is not None and number not in route.quarantined:
                return _dated(_by_rule(table, route, rule, number), asked)._replace(flag=asked.flag)
            continue
        if scope is None:
            scope = {**facts.context, "targetingKey": key, "$flagd": {"flagKey": route.name}}
        if isinstance(rule.use, int):
            if rule.use not in route.quarantined and rule.matches(scope):
                return _dated(_by_rule(table, route, rule, rule.use), asked)
        elif places is not None and places.ends and rule.matches(scope):
            return _dated(_by_split(table, route, places, own, f"rule:{rule.name}"), asked)
    return _dated(_by_split(table, route, route.places, own, "split"), asked)


def _by_rule(table: RoutingTable, route: Route, rule: Rule, number: int) -> Decision:
    return Decision(route.name, _ref(route.model, number), f"rule:{rule.name}", None, table.revision, route.epoch)


def _dated(decision: Decision, asked: Choice | None) -> Decision:
    """With how old the flag data was that was asked last, also where it said nothing of use."""
    if asked is None:
        return decision
    return decision._replace(flag_age_s=asked.age_s, flag_stale=asked.stale)


def _by_split(table: RoutingTable, route: Route, places: Places, key: str, reason: str) -> Decision:
    name = route.name
    place = place_of(name, key)
    try:
        version = places.versions[bisect_right(places.ends, place)]
    except IndexError:
        raise VersionUnavailable(
            f"no version of route {name!r} can get traffic: each is still loading, quarantined, "
            "or of weight 0 (GET /readyz tells which)"
        ) from None
    return _new(Decision, (name, version, reason, place, table.revision, route.epoch, None, None, False))


def key_by_route(key: str, headers: Texts, context: Mapping[str, Any]) -> str | None:
    """The header or context field that a route's ``key`` names, as text; None when it is absent or no scalar."""
    place, _, name = key.partition(":")
    if place == "header":
        return headers.get(name.lower()) or None
    if place == "context":
        return _text(_field(context, name))
    return None


def _field(context: Mapping[str, Any], name: str) -> Any:
    """A field by its name or, as ``var`` reads it, by a path of names joined with dots."""
    value: Any = context.get(name)
    if value is None and "." in name:
        value = context
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str | None:
    """One text for each JSON scalar, however it was written: ``3`` and ``3.0`` are one key, ``true`` is ``"true"``.

    Integers past 64 bits read as the float nearest to them, as JSON parsers differ on them.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            value = float(value)
        except OverflowError:
            return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        if not value.is_integer() or not -(2**63) <= value < 2**64:
            return repr(value)
        value = int(value)
    return str(value) if isinstance(value, int) else None
