"""What is in force, given what is desired and what is loaded. Pure.

A change of a route is held back only while it would send *more* traffic to a version that
cannot answer yet: then the route stays as it was, alone. What takes traffic away from a
version is never held back, and neither is a rollback: it must not wait for a load, nor for a
version that will never load.

A route that was not in force before stays *closed* (known, but nothing answers: 503, and not
ready) until each version it would send traffic to has loaded or failed, so that nobody is told
that it is ready while a share of its requests has nowhere to go. A fallback that is loaded
opens it at once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from gateway.control.compile import compile_route
from gateway.control.desired import Desired, DesiredRoute
from gateway.control.documents import RouteDocument
from gateway.control.flag_rules import FlagRules
from gateway.control.store import DocumentKey
from gateway.messages import VersionRef
from gateway.routing.table import Route, RoutingTable

__all__ = [
    "HOLDING_BACK",
    "InForce",
    "abandoned",
    "compared_with",
    "held_back",
    "plan_routes",
    "quarantined",
    "traffic_shares",
]

HOLDING_BACK = frozenset({"guard:hang", "guard:crash-loop", "guard:deadline"})


@dataclass(frozen=True, slots=True)
class InForce:
    """A route as requests are decided by it, and the desired state that it was compiled from."""

    desired: DesiredRoute
    route: Route
    open: bool = True

    def wanted(self) -> frozenset[VersionRef]:
        return frozenset(self.desired.ref(number) for number in self.desired.document.routable())


def plan_routes(
    desired: Desired,
    before: Mapping[str, InForce],
    *,
    active: Collection[VersionRef],
    failed: Collection[VersionRef],
    default_timeout_ms: int,
    flags: FlagRules | None = None,
) -> dict[str, InForce]:
    """Every route that shall be in force now. One whose document cannot be read stays as it was."""
    planned = {}
    for name, route in desired.routes.items():
        old = before.get(name)
        opened = old is not None and old.open
        if old is not None and opened and (old.desired == route or held_back(route, old.desired, active)):
            planned[name] = old
            continue
        compiled = compile_route(name, route.document, default_timeout_ms=default_timeout_ms, flags=flags)
        if opened or _may_open(route, active, failed):
            planned[name] = InForce(route, compiled)
        elif old is not None and old.desired == route:
            planned[name] = old
        else:
            planned[name] = InForce(route, replace(compiled, arms=(), rules=(), fallback=None), open=False)
    for name, old in before.items():
        if name not in planned and DocumentKey("route", name) in desired.unreadable:
            planned[name] = old
    return planned


def _may_open(route: DesiredRoute, active: Collection[VersionRef], failed: Collection[VersionRef]) -> bool:
    document = route.document
    fallback = document.spec.fallback
    if fallback is not None and route.ref(fallback) in active:
        return True
    serving = (set(_shares(document)) | _ruled(document)) - set(document.status.quarantined)
    return all(route.ref(number) in active or route.ref(number) in failed for number in serving)


def held_back(new: DesiredRoute, old: DesiredRoute, active: Collection[VersionRef]) -> frozenset[int]:
    """The versions that the change waits for: not active, and to get more traffic than they get now."""
    fresh, stale = new.document, old.document
    same_model = fresh.spec.model == stale.spec.model
    if same_model and set(fresh.status.quarantined) - set(stale.status.quarantined):
        return frozenset()
    shares = _shares(stale) if same_model else {}
    more = {number for number, share in _shares(fresh).items() if share > shares.get(number, 0)}
    ruled = _ruled(fresh) - (_ruled(stale) if same_model else set())
    fallback = {fresh.spec.fallback} - ({stale.spec.fallback} if same_model else set()) - {None}
    candidates = (more | ruled | {number for number in fallback if number is not None}) - set(fresh.status.quarantined)
    return frozenset(number for number in candidates if new.ref(number) not in active)


def _shares(document: RouteDocument) -> dict[int, Fraction]:
    arms = document.status.split
    total = sum(arm.weight for arm in arms)
    return {arm.version: Fraction(arm.weight, total) for arm in arms if arm.weight}


def _ruled(document: RouteDocument) -> set[int]:
    return {number for rule in document.spec.rules for number in rule.versions()}


def quarantined(desired: Desired) -> frozenset[VersionRef]:
    """Every version that some route has in quarantine."""
    return frozenset(
        route.ref(number) for route in desired.routes.values() for number in route.document.status.quarantined
    )


def abandoned(desired: Desired) -> frozenset[VersionRef]:
    """Versions that the guard took off for holding work back: they are ended at once."""
    held = set()
    for route in desired.routes.values():
        for number, why in route.document.status.quarantined.items():
            if why.by in HOLDING_BACK:
                held.add(route.ref(number))
    return frozenset(held)


def compared_with(table: RoutingTable) -> Mapping[VersionRef, tuple[VersionRef, ...]]:
    """Whose profiles each version's rows are counted with besides its own: the known goods of its routes."""
    others: dict[VersionRef, set[VersionRef]] = {}
    for route in table.routes.values():
        if route.known_good is None:
            continue
        good = route.ref(route.known_good)
        named = {*route.pinnable, *(arm.version for arm in route.arms), *(shadow.version for shadow in route.shadows)}
        for number in named - {route.known_good}:
            others.setdefault(route.ref(number), set()).add(good)
    return {ref: tuple(sorted(goods)) for ref, goods in others.items()}


def traffic_shares(table: RoutingTable) -> Mapping[VersionRef, float]:
    """Each version's part of its routes' traffic, by their splits."""
    shares: dict[VersionRef, float] = {}
    for route in table.routes.values():
        total = sum(arm.weight for arm in route.arms) or 1
        for arm in route.arms:
            ref = route.ref(arm.version)
            shares[ref] = shares.get(ref, 0.0) + arm.weight / total
    return shares
