"""What operators do with names that routes follow: look how far it is, and have a refused version tried again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.documents import RouteDocument, route_key
from gateway.control.follow_state import FollowPhase
from gateway.control.store import AuditEntry, Snapshot, Store
from gateway.errors import Conflict, NotFound, UnknownRoute

__all__ = ["FollowControl"]

View = dict[str, Any]


class FollowControl:
    def __init__(self, store: Store, *, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._changes = Changes(store)

    async def get(self, route: str) -> View:
        """Raises UnknownRoute; NotFound for a route that follows nothing."""
        found = await self._store.read(route_key(route))
        if found is None or found.body is None:
            raise UnknownRoute(f"no route {route!r:.140}")
        return _view(route, found.revision, RouteDocument.from_json(found.body))

    async def again(self, route: str, *, actor: str, expected: int | None = None) -> View:
        """The version that the name points at is imported and gated once more, at the next look. Raises UnknownRoute,
        NotFound; Conflict where nothing came to its end yet."""
        key, made = route_key(route), list[RouteDocument]()

        def decide(snapshot: Snapshot) -> Decision:
            found = snapshot.documents.get(key)
            if found is None or found.body is None:
                raise UnknownRoute(f"no route {route!r:.140}")
            document = RouteDocument.from_json(found.body)
            _view(route, found.revision, document)
            state = document.status.follow
            if state is None or state.phase in (FollowPhase.IMPORTING, FollowPhase.UNREACHABLE):
                raise Conflict(f"route {route}: nothing was refused; it is looked at again by itself")
            fresh = state.moved(FollowPhase.IMPORTING, at=self._clock.wall())
            made[:] = [replace(document, status=replace(document.status, follow=fresh))]
            entry = AuditEntry(actor, "follow-again", str(key), state.problem, {"follow": fresh.to_json()})
            return Decision(made[0].to_json(), entry)

        written = await self._changes.write(key, decide, expected=expected)
        return _view(route, written.revision, made[0])


def _view(route: str, revision: int, document: RouteDocument) -> View:
    spec, state = document.spec.follow, document.status.follow
    if spec is None:
        raise NotFound(f"route {route} follows nothing; name a source under follow in its document")
    return {
        "route": route,
        "revision": revision,
        "model": document.spec.model,
        "follow": spec.model_dump(mode="json"),
        "status": None if state is None else state.to_json(),
    }
