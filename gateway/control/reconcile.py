"""Desired state made actual: watches the store, loads what is missing, puts the new pair in force, retires the rest.

Level-triggered: ``_apply`` looks at what is desired and what is there, and does all that can be
done now; every event (a revision, a load that ended, a retry that is due, a local rollback)
only calls it again. It runs on the event loop without awaiting, so no two changes interleave.

A rollback is in force here before the store has it: it is kept as an *override*, applied over
every later snapshot until the store's own revision contains it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.control.desired import Desired, read_desired
from gateway.control.ending import ended
from gateway.control.flag_rules import FlagRules
from gateway.control.loads import Loads
from gateway.control.memory_budget import MemoryBudget, MemoryLimits
from gateway.control.overrides import Override, Overrides
from gateway.control.plan import InForce, abandoned, compared_with, plan_routes, quarantined, traffic_shares
from gateway.control.progress import RouteProgress, Waiting, route_progress
from gateway.control.retirements import Retirements
from gateway.control.store import Snapshot, Store
from gateway.dataplane import Current, Dataplane
from gateway.errors import StoreUnavailable, UnknownVersion
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.routing.table import RoutingTable
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet
from gateway.serving.handle import Handle, VersionState

__all__ = ["Reconciler", "ReconcilerStatistics"]

log = logging.getLogger("turnout.control")

FIRST_STORE_RETRY_S = 0.25
LONGEST_STORE_RETRY_S = 5.0


@dataclass(frozen=True, slots=True)
class ReconcilerStatistics:
    revision: int
    routes: int
    loading: int
    failed: int
    retiring: int
    overrides: int
    store_up: bool


class Reconciler:
    """Owns what is in force here. Used from the event loop only.

    ``took`` is told of every snapshot (tokens are refreshed by it), ``applied`` whenever anything may be newly in
    force. ``assemble`` makes a version's spec out of its digest; it blocks, and runs in a thread.
    """

    def __init__(
        self,
        *,
        store: Store,
        fleet: Fleet,
        dataplane: Dataplane,
        assemble: Callable[[VersionRef, str], VersionSpec],
        clock: Clock,
        observer: Observer,
        default_route: str | None = None,
        default_timeout_ms: int = 10_000,
        took: Callable[[Snapshot], None] = lambda _: None,
        applied: Callable[[], None] = lambda: None,
        memory: MemoryLimits | None = None,
        flags: FlagRules | None = None,
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._dataplane = dataplane
        self._clock = clock
        self._observer = observer
        self._default_route = default_route
        self._default_timeout_ms = default_timeout_ms
        self._flags = flags
        self._took = took
        self._told_applied = applied
        self.budget = MemoryBudget(
            memory or MemoryLimits(),
            fleet,
            clock=clock,
            changed=self._apply,
            gone=lambda ref, timeout_s: self.wait_gone(ref, timeout_s=timeout_s),
        )
        self._loads = Loads(fleet, assemble, clock=clock, observer=observer, changed=self._apply, budget=self.budget)
        self._stored = Desired()
        self._desired = Desired()
        self._overrides = Overrides()
        self._in_force: dict[str, InForce] = {}
        self._retirements = Retirements(fleet, clock=clock, changed=self._apply)
        self._store_up: bool | None = None
        self._seen = False
        self._watching: asyncio.Task[None] | None = None
        self._waiting = Waiting(clock)
        self._closed = False

    def __repr__(self) -> str:
        return f"<Reconciler revision {self._desired.revision} [{len(self._in_force)} routes | {self._loads!r}]>"

    @property
    def desired(self) -> Desired:
        """The newest state read from the store, with this replica's overrides over it."""
        return self._desired

    @property
    def in_force(self) -> Mapping[str, InForce]:
        return self._in_force

    @property
    def overrides(self) -> Overrides:
        return self._overrides

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    def statistics(self) -> ReconcilerStatistics:
        return ReconcilerStatistics(
            revision=self._desired.revision,
            routes=len(self._in_force),
            loading=len(self._loads.under_way),
            failed=len(self._loads.failures),
            retiring=len(self._retirements.under_way),
            overrides=len(self._overrides),
            store_up=bool(self._store_up),
        )

    async def start(self, last: Snapshot | None = None) -> None:
        """Returns when every route is known here, open or closed; as of ``last`` while the store cannot be read.

        Raises StoreUnavailable where there is no last state.
        """
        try:
            await self.refresh()
        except StoreUnavailable as error:
            if last is None:
                raise
            self._store_is(up=False, why=str(error))
            self._take(last)
        self._begin()
        self.budget.start()

    def _begin(self) -> None:
        if not self._closed:
            self._watching = asyncio.ensure_future(self._watch())
            self._watching.add_done_callback(self._stopped)

    def _stopped(self, watching: asyncio.Task[None]) -> None:
        """A fault that nobody thought of is no reason to take no change any more."""
        if not watching.cancelled():
            log.critical("what the store says could not be taken; it is asked again", exc_info=watching.exception())
            self._clock.call_at(self._clock.monotonic() + LONGEST_STORE_RETRY_S, self._begin)

    async def close(self) -> None:
        """Stops watching and loading; what is in force stays, its versions are the fleet's to close."""
        self._closed = True
        await ended(self._watching)
        await self.budget.close()
        await self._loads.close()
        await self._retirements.finished()

    # What the store says

    async def _watch(self) -> None:
        """Takes every revision; while the store is down, serving goes on and the store is asked again and again."""
        wait = FIRST_STORE_RETRY_S
        while True:
            began = self._clock.monotonic()
            try:
                await self.refresh()
                async for _ in self._store.watch(self._stored.revision):
                    await self.refresh()
            except StoreUnavailable as error:
                self._store_is(up=False, why=str(error))
            if self._clock.monotonic() - began > LONGEST_STORE_RETRY_S:  # it was there for a while
                wait = FIRST_STORE_RETRY_S
            await self._clock.sleep(wait)
            wait = min(LONGEST_STORE_RETRY_S, wait * 2)

    async def refresh(self) -> None:
        """Takes what the store says now. Raises StoreUnavailable."""
        snapshot = await self._store.snapshot()
        self._store_is(up=True)
        self._take(snapshot)

    def _take(self, snapshot: Snapshot) -> None:
        if self._seen and snapshot.revision < self._stored.revision:
            log.warning("the store went back from revision %d to %d", self._stored.revision, snapshot.revision)
        self._seen = True
        unreadable = self._stored.unreadable
        self._stored = read_desired(snapshot, self._stored)
        for key, why in self._stored.unreadable.items():
            if unreadable.get(key) != why:
                log.error("%s cannot be read and is left as it was: %s", key, why)
        self._took(snapshot)
        self._apply()

    def _store_is(self, *, up: bool, why: str = "") -> None:
        if up is self._store_up:
            return
        self._store_up = up
        self._observer.store_reachable(up)
        if not up:
            log.error("the store of desired state does not answer; serving goes on from the last revision: %s", why)

    # Rollbacks that are in force before the store has them

    def override(self, route: str, override: Override) -> None:
        """In force when this returns."""
        self._overrides.put(route, override)
        self._apply()

    def override_stored(self, route: str, override: Override, revision: int) -> None:
        """The store has it at ``revision``; it ends when a snapshot of that revision or a later one is here."""
        self._overrides.stored(route, override, revision)
        self._apply()

    def override_refused(self, route: str, override: Override) -> None:
        """The store moved on so that it cannot be; what the store says counts."""
        self._overrides.drop(route, override)
        self._apply()

    # Making it so

    def _apply(self) -> None:
        """All that can be done now. Called on every event; synchronous, so that it is atomic for requests."""
        if self._closed:
            return
        self._overrides.settle(self._stored)
        self._desired = desired = self._overrides.laid_over(self._stored)
        active = frozenset(
            ref
            for ref, handle in self._fleet.handles.items()
            if handle.state is VersionState.ACTIVE and ref not in self._retirements.under_way
        )
        resting = self.budget.settle(desired, (route.desired for route in self._in_force.values()))
        active -= resting
        self._in_force = plan_routes(
            desired,
            self._in_force,
            active=active | resting,  # a change of traffic does not wait for one that a request will wake
            failed=self._loads.failures.keys(),
            default_timeout_ms=self._default_timeout_ms,
            flags=self._flags,
        )
        keep = desired.wanted().union(*(route.wanted() for route in self._in_force.values())) - resting
        self._install(desired, active & keep)
        self._loads.forget(keep)
        for ref in sorted(keep - active):
            self._want(ref)
        barred, hopeless = quarantined(desired), abandoned(desired)
        for ref in sorted(set(self._fleet.handles) - keep - self._retirements.under_way):
            self._retirements.begin(ref, quarantined=ref in barred, hopeless=ref in hopeless)
        self._told_applied()
        self._waiting.wake()

    def _install(self, desired: Desired, active: frozenset[VersionRef]) -> None:
        routes = {name: in_force.route for name, in_force in self._in_force.items()}
        default = self._default_route
        if default is None and len(routes) == 1:
            default = next(iter(routes))
        table = RoutingTable(routes, default, desired.revision)
        handles: dict[VersionRef, Handle] = {ref: self._fleet.handles[ref] for ref in sorted(active)}
        current = self._dataplane.current
        if current.table != table or current.handles != handles:
            self._dataplane.install(Current(table, handles))
            self._fleet.weigh(traffic_shares(table))
            self._fleet.compare(compared_with(table))

    def _want(self, ref: VersionRef) -> None:
        if ref in self._retirements.under_way:
            return  # loaded anew once it is gone: its end calls _apply again
        try:
            digest = self._desired.digest(ref)
        except UnknownVersion as error:
            if ref not in self._loads.failures:
                self._loads.refuse(ref, str(error))
            return
        self._loads.want(ref, digest)

    # How far it is

    def progress(self, route: str) -> RouteProgress:
        """Of a route that is desired or in force here; of any other, nothing is in force."""
        reasons = {ref: failure.reason for ref, failure in self._loads.failures.items()}
        reachable = self._dataplane.current.handles.keys() | self.budget.resting.keys()
        return route_progress(self._desired.routes.get(route), self._in_force.get(route), reachable, reasons)

    def _active(self, ref: VersionRef) -> bool:
        """Requests can reach it: being warm is not enough, it must be in force."""
        return ref in self._dataplane.current.handles

    def failure(self, ref: VersionRef) -> str | None:
        found = self._loads.failures.get(ref)
        return None if found is None else found.reason

    async def wait_seen(self, revision: int, *, timeout_s: float) -> bool:
        """Whether this replica has taken the revision (loads may still be under way) within the time."""
        return await self._waiting.until(lambda: self._seen and self._stored.revision >= revision, timeout_s)

    async def wait_applied(self, revision: int, *, timeout_s: float, route: str | None = None) -> bool:
        """Waits until the revision is here and ``route`` (all of them if None) is applied, or has failed.

        True when it is applied. Cancelling changes nothing.
        """

        def settled() -> bool:
            names = self._desired.routes if route is None else (route,)
            here = self._seen and self._stored.revision >= revision
            return here and all(self.progress(name).settled for name in names)

        if not await self._waiting.until(settled, timeout_s):
            return False
        names = list(self._desired.routes) if route is None else [route]
        return all(self.progress(name).applied for name in names if name in self._desired.routes)

    async def wait_active(self, ref: VersionRef, *, timeout_s: float) -> bool:
        """Whether the version came up within the time; it must be wanted. Returns early when it failed."""
        await self._waiting.until(lambda: self._active(ref) or ref in self._loads.failures, timeout_s)
        return self._active(ref)

    async def wait_gone(self, ref: VersionRef, *, timeout_s: float) -> bool:
        """Whether nothing of the version is left here within the time."""
        return await self._waiting.until(lambda: ref not in self._fleet.handles, timeout_s)
