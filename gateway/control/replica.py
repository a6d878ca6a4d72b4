"""What the verbs ask of the replica they run in: one that serves, or none (the command line on a store's files)."""

from __future__ import annotations

from typing import Protocol

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.desired import Desired
from gateway.control.documents import RouteDocument, route_key
from gateway.control.holdings import Holding, Holdings
from gateway.control.overrides import Override
from gateway.control.presence import Presence
from gateway.control.progress import RouteProgress
from gateway.control.reconcile import Reconciler
from gateway.control.rollbacks import Outcome, Rollbacks
from gateway.control.store import AuditEntry, Snapshot, Store
from gateway.control.transitions import rollback_target
from gateway.errors import Conflict, UnknownRoute

__all__ = ["Replica", "ReplicaAbsent", "ReplicaHere"]

TAKE_S = 2.0
"""How long a write waits, once durable, until this replica has taken it; loads are not waited for."""


class Replica(Protocol):
    def desired(self) -> Desired | None:
        """The last state known without asking the store; None when there is none."""
        ...

    def over(self, desired: Desired) -> Desired:
        """The state with this replica's own rollbacks laid over it."""
        ...

    def progress(self, route: str) -> RouteProgress | None: ...

    def cached(self, route: str) -> Holding | None:
        """What the route's response caches hold here."""
        ...

    async def taken(self, revision: int) -> None:
        """Returns when requests are decided by the revision, as far as its versions are loaded; or after a while."""
        ...

    async def applied(self, revision: int, route: str, *, timeout_s: float) -> bool:
        """Whether every living replica serves it within the time. Ends early when a version of it failed."""
        ...

    async def roll_back(self, route: str, *, to: int | None, reason: str, actor: str, local: bool = False) -> Outcome:
        """``local``: in force on this replica, without waiting for the store. Conflict where none serves."""
        ...


class ReplicaHere:
    """The replica of this process."""

    def __init__(
        self, reconciler: Reconciler, rollbacks: Rollbacks, holdings: Holdings, presence: Presence | None = None
    ) -> None:
        self._presence = presence
        self._reconciler = reconciler
        self._rollbacks = rollbacks
        self._holdings = holdings

    def __repr__(self) -> str:
        return f"<ReplicaHere {self._reconciler!r}>"

    def desired(self) -> Desired | None:
        return self._reconciler.desired

    def over(self, desired: Desired) -> Desired:
        return self._reconciler.overrides.laid_over(desired)

    def progress(self, route: str) -> RouteProgress | None:
        return self._reconciler.progress(route)

    def cached(self, route: str) -> Holding | None:
        return self._holdings.of(route)

    async def taken(self, revision: int) -> None:
        await self._reconciler.wait_seen(revision, timeout_s=TAKE_S)

    async def applied(self, revision: int, route: str, *, timeout_s: float) -> bool:
        if self._presence is None:
            return await self._reconciler.wait_applied(revision, route=route, timeout_s=timeout_s)
        return await self._presence.all_serve(revision, route, timeout_s=timeout_s)

    async def roll_back(self, route: str, *, to: int | None, reason: str, actor: str, local: bool = False) -> Outcome:
        return await self._rollbacks.roll_back(route, to=to, reason=reason, actor=actor, local=local)


class ReplicaAbsent:
    """Nothing is served from here: a rollback is a change like any other, and replicas that run will see it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._changes = Changes(store)
        self._clock = clock

    def __repr__(self) -> str:
        return "<ReplicaAbsent>"

    def desired(self) -> Desired | None:
        return None

    def over(self, desired: Desired) -> Desired:
        return desired

    def progress(self, route: str) -> RouteProgress | None:
        return None

    def cached(self, route: str) -> Holding | None:
        return None

    async def taken(self, revision: int) -> None:
        """Nobody here takes it."""

    async def applied(self, revision: int, route: str, *, timeout_s: float) -> bool:
        return False

    async def roll_back(self, route: str, *, to: int | None, reason: str, actor: str, local: bool = False) -> Outcome:
        if local:
            raise Conflict("nothing is served from here: name a running gateway (TURNOUT_URL) for a local rollback")
        key, made = route_key(route), list[RouteDocument]()

        def decide(snapshot: Snapshot) -> Decision:
            found = snapshot.documents.get(key)
            if found is None or found.body is None:
                raise UnknownRoute(f"no route {route!r} to roll back")
            document = RouteDocument.from_json(found.body)
            target = rollback_target(document, to)
            fresh = Override(target, reason, actor, self._clock.wall()).apply(document)
            made[:] = [fresh]
            entry = AuditEntry(actor, "rollback", str(key), reason, {"to": target, "trigger": "operator"})
            return Decision(fresh.to_json(), entry)

        written = await self._changes.write(key, decide)
        return Outcome(made[0], written.revision, durable=True, changed=written.changed)
