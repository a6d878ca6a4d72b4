"""Rollbacks that are in force here before the store has them: laid over every snapshot until one contains them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gateway.control import transitions
from gateway.control.desired import Desired, DesiredRoute
from gateway.control.documents import RouteDocument
from gateway.errors import Conflict

__all__ = ["Override", "Overrides"]

log = logging.getLogger("turnout.control")


@dataclass(frozen=True, slots=True)
class Override:
    """A rollback in force here, by ``by`` (a token's name, ``guard:<rule>`` or ``rollout:<stream>``) at ``at`` (seconds
    since the epoch). ``offender``: the candidate of a rollout for whose sake it was made, if any. ``against``: the
    versions that it took off the route."""

    target: int
    reason: str
    by: str
    at: float
    offender: int | None = None
    against: tuple[int, ...] = ()

    def apply(self, document: RouteDocument) -> RouteDocument:
        """The same document when it has moved on and nothing that this was made against is left on it: a version that
        came since is not to suffer for them. Raises Conflict when the rollback cannot be any more."""
        if self.against and not document.routable().intersection(self.against):
            return document
        return transitions.rollback(
            document,
            to=self.target,
            reason=self.reason,
            by=self.by,
            at=self.at,
            offender=self.offender,
            harm=self.by.removeprefix("rollout:") if ":" in self.by else "",
        )


@dataclass(frozen=True, slots=True)
class _Standing:
    """``stored_at``: the revision of the store that contains it, None while there is none."""

    override: Override
    stored_at: int | None = None


class Overrides:
    """At most one a route; a newer one takes the older one's place."""

    def __init__(self) -> None:
        self._standing: dict[str, _Standing] = {}

    def __repr__(self) -> str:
        return f"<Overrides [{len(self._standing)} standing | {len(list(self.unstored()))} not stored]>"

    def __len__(self) -> int:
        return len(self._standing)

    def put(self, route: str, override: Override) -> None:
        self._standing[route] = _Standing(override)

    def stored(self, route: str, override: Override, revision: int) -> None:
        """The store has it at ``revision``: it ends with the first snapshot that is not older."""
        found = self._standing.get(route)
        if found is not None and found.override is override:
            self._standing[route] = replace(found, stored_at=revision)

    def drop(self, route: str, override: Override) -> None:
        found = self._standing.get(route)
        if found is not None and found.override is override:
            del self._standing[route]

    def unstored(self) -> Iterator[tuple[str, Override]]:
        for route, standing in self._standing.items():
            if standing.stored_at is None:
                yield route, standing.override

    def settle(self, desired: Desired) -> None:
        """Ends those that the state contains, and those that can no longer be applied to it."""
        for name, standing in list(self._standing.items()):
            route = desired.routes.get(name)
            contained = standing.stored_at is not None and standing.stored_at <= desired.revision
            if contained or route is None or self._applied(name, standing.override, route.document) is None:
                del self._standing[name]

    def laid_over(self, desired: Desired) -> Desired:
        """Desired state with every override applied that it does not contain yet."""
        local: dict[str, DesiredRoute] = {}
        for name, standing in self._standing.items():
            route = desired.routes.get(name)
            if route is None or (standing.stored_at is not None and standing.stored_at <= desired.revision):
                continue
            document = self._applied(name, standing.override, route.document)
            if document is not None and document != route.document:
                local[name] = DesiredRoute(route.revision, document, local=standing.stored_at is None)
        return replace(desired, routes={**desired.routes, **local}) if local else desired

    def _applied(self, name: str, override: Override, document: RouteDocument) -> RouteDocument | None:
        try:
            return override.apply(document)
        except Conflict as error:
            log.warning("the rollback of route %s to %d no longer applies: %s", name, override.target, error)
            return None
