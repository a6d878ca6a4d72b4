"""Going back: in force here first, since the known good is resident and warm; durable as soon as the store takes it."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any

from gateway.clock import Clock
from gateway.control.documents import RouteDocument, check_route_name, route_key
from gateway.control.ending import ended
from gateway.control.kept_rollbacks import KeptRollbacks
from gateway.control.overrides import Override
from gateway.control.reconcile import Reconciler
from gateway.control.store import AuditEntry, Body, Change, Store
from gateway.control.transitions import rollback_target
from gateway.errors import Conflict, StaleRevision, StoreUnavailable, UnknownRoute
from gateway.events.observer import Observer
from gateway.events.records import RollbackRecord
from gateway.messages import VersionRef
from gateway.serving.handle import VersionState

__all__ = ["Outcome", "Rollbacks"]

log = logging.getLogger("turnout.control")

RETRY_S = 0.5
MAX_RACES = 50


@dataclass(frozen=True, slots=True)
class Outcome:
    """``revision``: the store's that holds it, else the last one known. ``changed`` False: it was so already."""

    document: RouteDocument
    revision: int
    durable: bool
    changed: bool


class Rollbacks:
    """The one way back, for operators and the guard. Two at once, here or on two replicas: compare-and-set decides."""

    def __init__(
        self,
        *,
        store: Store,
        reconciler: Reconciler,
        clock: Clock,
        observer: Observer,
        kept: KeptRollbacks | None = None,
    ) -> None:
        self._kept = kept
        self._store = store
        self._reconciler = reconciler
        self._clock = clock
        self._observer = observer
        self._entries: dict[tuple[str, Override], AuditEntry] = {}
        self._unstored = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Rollbacks [{len(self._entries)} not stored yet]>"

    def start(self) -> None:
        """Puts in force again what an earlier process of the home could not store."""
        for (route, override), entry in (self._kept.read() if self._kept else {}).items():
            log.warning("route %s: the rollback to %d is still to be stored", route, override.target)
            self._entries[route, override] = entry
            self._reconciler.override(route, override)
            self._unstored.set()
        self._writing = asyncio.ensure_future(self._write_later())

    async def close(self) -> None:
        await ended(self._writing)
        for route, override in self._reconciler.overrides.unstored():
            what = "it ends here" if self._kept is None else "the next start puts it in force again"
            log.error("route %s: the rollback to %d is not stored yet; %s", route, override.target, what)

    async def roll_back(
        self,
        route: str,
        *,
        to: int | None,
        reason: str,
        actor: str,
        trigger: str = "operator",
        offender: int | None = None,
        evidence: Body | None = None,
        local: bool = False,
    ) -> Outcome:
        """Everything to ``to`` (the known good if None), in force for every request that starts after this returns.

        ``offender``: Conflict unless that takes this version off the route; then going back would only hurt others.
        ``evidence`` goes into the audit record. ``local``: the store is not asked before the answer, but as soon as
        it can be.
        Raises UnknownRoute, Conflict (nowhere to go) or Quarantined. Cancelling it while the store
        is asked leaves it in force; it is then written in the background.
        """
        check_route_name(route)
        desired = self._reconciler.desired.routes.get(route)
        if desired is None:
            raise UnknownRoute(f"no route {route!r} to roll back")
        target = rollback_target(desired.document, to)
        self._require_active(desired.ref(target))
        by = actor if trigger == "operator" else trigger
        override = Override(target, reason, by, self._clock.wall(), offender)
        document = override.apply(desired.document)
        fresh = sorted(set(document.status.quarantined) - set(desired.document.status.quarantined))
        override = replace(override, against=tuple(fresh))
        if offender is not None and offender not in document.status.quarantined:
            raise Conflict(
                f"version {offender} is the fallback and nothing else, which a rollback leaves in its place: only pins "
                "choose it. Name another fallback"
            )
        if document == desired.document:
            stored: int | None = desired.revision
            if desired.local:
                stored = None if local else await self._stored_with_other(route)
            return Outcome(document, stored or desired.revision, durable=stored is not None, changed=False)
        detail: dict[str, Any] = {"to": target, "trigger": trigger, "quarantined": fresh}
        detail |= {} if evidence is None else {"evidence": evidence}
        self._entries[route, override] = AuditEntry(actor, "rollback", str(route_key(route)), reason, detail)
        self._reconciler.override(route, override)
        revision = None if local else await self._store_now(route, override)
        if revision is None:
            await self._keep_here()
        record = RollbackRecord(route, trigger, target, tuple(fresh), reason, durable=revision is not None)
        self._observer.rolled_back(record)
        # %r: a reason with line breaks in it must not pass for lines of the log.
        log.warning("route %s went back to version %d (%s): %r", route, target, trigger, reason or "no reason given")
        return Outcome(document, revision or desired.revision, durable=revision is not None, changed=True)

    def _require_active(self, ref: VersionRef) -> None:
        handle = self._reconciler.fleet.handles.get(ref)
        if handle is None or handle.state is not VersionState.ACTIVE:
            state = "not loaded" if handle is None else f"{handle.state} {handle.reason}".strip()
            raise Conflict(
                f"{ref} cannot take over: it is {state}. Name another version with 'to', or wait until it is loaded"
            )

    async def _stored_with_other(self, route: str) -> int | None:
        """The revision that holds the rollback that came before, of the guard or of another operator, and that has not
        come back from the store yet; None when the store cannot take it now."""
        before = dict(self._reconciler.overrides.unstored()).get(route)
        if before is None or (route, before) not in self._entries:
            return None
        return await self._store_now(route, before)

    async def _store_now(self, route: str, override: Override) -> int | None:
        """The revision that holds it; None when the store cannot take it now, and the background writer will."""
        try:
            return await self._stored(route, override)
        except StoreUnavailable as error:
            log.error("the rollback of route %s is in force, and not durable: %s", route, error)
            return None
        except asyncio.CancelledError:
            self._unstored.set()
            raise

    async def _keep_here(self) -> None:
        """In the home, so that a restart does not undo it; the background writer takes it to the store."""
        self._unstored.set()
        if self._kept is not None:
            await self._kept.write(self._entries)

    async def _stored(self, route: str, override: Override) -> int:
        """Writes it on top of whatever the store holds now; the revision that holds it.

        Raises StoreUnavailable, or Conflict when the store moved on so that it cannot be: then it is void here too.
        """
        key, entry = route_key(route), self._entries[route, override]
        for _ in range(MAX_RACES):
            found = await self._store.read(key)
            if found is None or found.body is None:
                raise self._refused(route, override, "the route was deleted")
            standing = RouteDocument.from_json(found.body)
            try:
                document = override.apply(standing)
                if document == standing:
                    return self._done(route, override, found.revision)
                change = Change(key, document.to_json(), found.revision)
                revision = await self._store.commit([change], entry)
                return self._done(route, override, revision)
            except StaleRevision:
                continue
            except Conflict as error:
                raise self._refused(route, override, str(error)) from error
        raise StoreUnavailable(f"route {route!r} changes too fast: its rollback was too late {MAX_RACES} times")

    def _done(self, route: str, override: Override, revision: int) -> int:
        self._entries.pop((route, override), None)
        self._reconciler.override_stored(route, override, revision)
        return revision

    def _refused(self, route: str, override: Override, why: str) -> Conflict:
        self._entries.pop((route, override), None)
        self._reconciler.override_refused(route, override)
        log.warning("the rollback of route %s to %d is void: %s", route, override.target, why)
        return Conflict(f"route {route!r} changed meanwhile, so that it cannot go back to {override.target}: {why}")

    async def _write_later(self) -> None:
        while True:
            await self._unstored.wait()
            self._unstored.clear()
            try:
                for route, override in list(self._reconciler.overrides.unstored()):
                    if (route, override) in self._entries:
                        await self._store_again(route, override)
                self._drop_void()
                if self._kept is not None:
                    await self._kept.write(self._entries)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
                self._unstored.set()

    def _drop_void(self) -> None:
        """Those that a later one replaced, or whose route is gone: kept, they would come back with a restart."""
        standing = set(self._reconciler.overrides.unstored())
        for route, override in [each for each in self._entries if each not in standing]:
            del self._entries[route, override]
            log.warning("the rollback of route %s to %d is no longer to be stored", route, override.target)

    async def _store_again(self, route: str, override: Override) -> None:
        try:
            await self._stored(route, override)
        except Conflict:
            return  # told by the log already; the store's word counts
        log.warning("the rollback of route %s to %d is durable now", route, override.target)
