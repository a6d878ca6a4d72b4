"""A worker's part of the control plane: puts in force what the node has in force, once its own engines are there.

It decides nothing. A change is held back, route by route, only while it would send more traffic to a
version that this worker is just about to borrow (by the same rule as at the node); a rollback never
is. What the node no longer has in force leaves routing here at once, drains, and is then given back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from gateway.clock import Clock
from gateway.control.compile import compile_route
from gateway.control.desired import Desired, DesiredRoute
from gateway.control.flag_rules import FlagRules
from gateway.control.loads import Loads
from gateway.control.memory_budget import MemoryBudget, MemoryLimits
from gateway.control.plan import InForce, abandoned, compared_with, plan_routes, quarantined, traffic_shares
from gateway.control.retirements import Retirements
from gateway.control.store import Document, DocumentKey
from gateway.control.tokens import TokenRing
from gateway.dataplane import Current, Dataplane
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.routing.table import RoutingTable
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet
from gateway.serving.handle import VersionState
from gateway.serving.warmup import Warmth
from gateway.workers.forms import WarmVersion, reference_from_json, route_from_json

__all__ = ["Follower", "Told"]

log = logging.getLogger("turnout.workers")


@dataclass(frozen=True, slots=True)
class _Offer:
    """A version that the node lends, under the number that it is to be given back by."""

    version: WarmVersion
    lending: int


@dataclass(frozen=True, slots=True)
class Told:
    """Whom the follower tells: ``applied`` of the number in force here, ``released`` of a lending given back."""

    applied: Callable[[int], None]
    released: Callable[[int], None]


class Follower:
    """Used from the event loop only. ``take`` a message of the node; the rest follows from it."""

    def __init__(
        self,
        *,
        fleet: Fleet,
        dataplane: Dataplane,
        ring: TokenRing,
        clock: Clock,
        observer: Observer,
        told: Told,
        default_timeout_ms: int,
        flags: FlagRules | None = None,
    ) -> None:
        self._fleet = fleet
        self._dataplane = dataplane
        self._ring = ring
        self._told = told
        self._default_timeout_ms = default_timeout_ms
        self._flags = flags
        self._loads = Loads(
            fleet,
            self._assemble,
            clock=clock,
            observer=observer,
            changed=self._apply,
            budget=MemoryBudget(MemoryLimits(), fleet, clock=clock, changed=self._apply, gone=_never),
        )
        self._retirements = Retirements(fleet, clock=clock, changed=self._apply)
        self._number = 0
        self._applied = 0
        self._revision = 0
        self._default: str | None = None
        self._routes: dict[str, DesiredRoute] = {}
        self._closed_routes: set[str] = set()
        self._offers: dict[VersionRef, _Offer] = {}
        self._held: dict[VersionRef, int] = {}  # lendings not given back yet; the newest of each version
        self._in_force: dict[str, InForce] = {}
        self._ended = False

    def __repr__(self) -> str:
        return f"<Follower [{self._applied} of {self._number} applied | {len(self._offers)} versions]>"

    def warmth(self, spec: VersionSpec) -> Warmth | None:
        """What the node measured, of a version whose engine is the node's; one that runs here is warmed here."""
        offer = self._offers.get(spec.ref)
        return offer.version.warmth if offer is not None and spec.placement != "inline" else None

    def take(self, message: Mapping[str, Any]) -> None:
        """A state of the node, or what changed since the one before."""
        self._number = message["number"]
        self._revision, self._default = message["revision"], message["default"]
        for body in message["gone"]:
            self._withdraw(reference_from_json(body["ref"]), body["lending"])
        for body in message["versions"]:
            version = WarmVersion.from_json(body)
            self._offers[version.spec.ref] = _Offer(version, body["lending"])
        for name, body in message["routes"].items():
            self._route(name, body)
        if "tokens" in message:
            self._ring.install(_documents(message["tokens"]))
        self._apply()

    async def close(self) -> None:
        self._ended = True
        await self._loads.close()
        await self._retirements.finished()

    def _route(self, name: str, body: Mapping[str, Any] | None) -> None:
        self._routes.pop(name, None)
        self._closed_routes.discard(name)
        if body is not None:
            self._routes[name] = route_from_json(body)
            if not body["open"]:
                self._closed_routes.add(name)

    def _withdraw(self, ref: VersionRef, lending: int) -> None:
        offer = self._offers.get(ref)
        if offer is not None and offer.lending == lending:
            del self._offers[ref]
        if self._held.get(ref) != lending:
            self._told.released(lending)  # it was never asked for here

    def _assemble(self, ref: VersionRef, digest: str) -> VersionSpec:
        return self._offers[ref].version.spec

    def _apply(self) -> None:
        if self._ended:
            return
        desired = Desired(revision=self._revision, routes=self._routes)
        active = self._active()
        coming = self._offers.keys() - active - self._loads.failures.keys()
        self._in_force = self._planned(desired, coming)
        # What a route that is held back still names stays, also when the node has no use for it any more: the lending
        # keeps its child. What the node itself does without, under the same route, is given back: it is to rest.
        late = [name for name, route in self._routes.items() if not self._is_applied(name, route)]
        keep = self._offers.keys() | {ref for name in late for ref in self._in_force[name].wanted()}
        self._install(active & keep)
        self._loads.forget(frozenset(self._offers))
        self._retire(desired, keep)
        for ref in sorted(self._offers.keys() - active - self._retirements.under_way):
            offer = self._offers[ref]
            self._held[ref] = offer.lending
            self._loads.want(ref, offer.version.spec.digest)
        if not late:
            self._note_applied()

    def _is_applied(self, name: str, route: DesiredRoute) -> bool:
        here = self._in_force[name]
        return here.desired == route and here.open is (name not in self._closed_routes)

    def _active(self) -> frozenset[VersionRef]:
        """What may be asked: borrowed, proven, and not replaced by a later lending."""
        return frozenset(
            ref
            for ref, handle in self._fleet.handles.items()
            if handle.state is VersionState.ACTIVE
            and ref not in self._retirements.under_way
            and not self._is_replaced(ref)
        )

    def _is_replaced(self, ref: VersionRef) -> bool:
        offer = self._offers.get(ref)
        return offer is not None and self._held.get(ref, offer.lending) != offer.lending

    def _planned(self, desired: Desired, coming: AbstractSet[VersionRef]) -> dict[str, InForce]:
        """Whatever is not on its way here counts as there, so that nothing waits for it."""
        named = {route.ref(number) for route in desired.routes.values() for number in route.document.versions()}
        opened = {name: route for name, route in desired.routes.items() if name not in self._closed_routes}
        planned = plan_routes(
            replace(desired, routes=opened),
            self._in_force,
            active=named - coming,
            failed=frozenset(),
            default_timeout_ms=self._default_timeout_ms,
            flags=self._flags,
        )
        for name in self._closed_routes:
            route = desired.routes[name]
            compiled = compile_route(name, route.document, default_timeout_ms=self._default_timeout_ms)
            planned[name] = InForce(route, replace(compiled, arms=(), rules=(), fallback=None), open=False)
        return planned

    def _install(self, active: frozenset[VersionRef]) -> None:
        routes = {name: in_force.route for name, in_force in self._in_force.items()}
        table = RoutingTable(routes, self._default, self._revision)
        handles = {ref: self._fleet.handles[ref] for ref in sorted(active)}
        current = self._dataplane.current
        if current.table != table or current.handles != handles:
            self._dataplane.install(Current(table, handles))
            self._fleet.weigh(traffic_shares(table))
            self._fleet.compare(compared_with(table))

    def _retire(self, desired: Desired, keep: AbstractSet[VersionRef]) -> None:
        """Ends here what nothing wants any more; what is gone is given back."""
        barred, hopeless = quarantined(desired), abandoned(desired)
        for ref in sorted(self._fleet.handles.keys() - self._retirements.under_way):
            if ref not in keep or self._is_replaced(ref):
                self._retirements.begin(ref, quarantined=ref in barred, hopeless=ref in hopeless)
        for ref in [ref for ref in self._held if ref not in self._fleet.handles]:
            if (ref not in self._offers or self._is_replaced(ref)) and ref not in self._retirements.under_way:
                self._told.released(self._held.pop(ref))

    def _note_applied(self) -> None:
        if self._applied != self._number:
            self._applied = self._number
            self._told.applied(self._number)


async def _never(ref: VersionRef, timeout_s: float) -> bool:  # noqa: ARG001 (the budget's shape)
    """Memory is the node's to look after: nothing is sent away from here."""
    return False


def _documents(tokens: Iterable[Mapping[str, Any]]) -> Iterable[Document]:
    return [Document(DocumentKey("token", str(body.get("name"))), 0, body, 0.0) for body in tokens]
