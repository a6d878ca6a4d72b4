"""What every worker must know, as the node has it in force, and what changed since it was last told.

Each state has a number, and a worker says which it has applied. Only what changed crosses; a worker that
has just started is told everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.control.plan import InForce
from gateway.control.tokens import TokenDocument
from gateway.dataplane import Current
from gateway.messages import VersionRef
from gateway.serving.handle import Handle
from gateway.workers.forms import WarmVersion, reference_to_json, route_to_json

__all__ = ["Lent", "Publisher", "Sources"]

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the node keeps it: the pair in force, the routes it was made from, the tokens."""

    current: Callable[[], Current]
    in_force: Callable[[], Mapping[str, InForce]]
    tokens: Callable[[], Mapping[str, TokenDocument]]


@dataclass(frozen=True, slots=True)
class Lent:
    """A version as workers are told of it. ``number`` tells this load of it from an earlier one."""

    number: int
    handle: Handle
    body: Body


@dataclass(slots=True)
class Publisher:
    """``refresh`` looks at what is in force and gives the change to tell, None if there is none."""

    sources: Sources
    number: int = 1
    _routes: dict[str, InForce] = field(default_factory=dict)
    _bodies: dict[str, Body] = field(default_factory=dict)
    _lent: dict[VersionRef, Lent] = field(default_factory=dict)
    _tokens: Mapping[str, TokenDocument] = field(default_factory=dict)
    _lendings: int = 0
    _head: tuple[int, str | None] = (0, None)

    @property
    def lent(self) -> Mapping[VersionRef, Lent]:
        """Every version that workers may serve now."""
        return self._lent

    def refresh(self) -> Body | None:
        current = self.sources.current()
        head = (current.table.revision, current.table.default_route)
        routes, versions, gone = self._change_of_routes(), *self._change_of_versions(current)
        tokens = self.sources.tokens()
        change: Body = {"routes": routes, "versions": versions, "gone": gone}
        if tokens is not self._tokens and dict(tokens) != dict(self._tokens):
            change["tokens"] = [token.to_json() for token in tokens.values()]
        if head == self._head and not (routes or versions or gone or "tokens" in change):
            return None
        self._head, self._tokens = head, tokens
        self.number += 1
        return self._message(change)

    def everything(self) -> Body:
        """All of the last state, for a worker that knows nothing."""
        return self._message(
            {
                "routes": dict(self._bodies),
                "versions": [lent.body for lent in self._lent.values()],
                "gone": [],
                "tokens": [token.to_json() for token in self._tokens.values()],
            }
        )

    def _message(self, change: Body) -> Body:
        revision, default = self._head
        return {"op": "table", "number": self.number, "revision": revision, "default": default, **change}

    def _change_of_routes(self) -> dict[str, Body | None]:
        in_force = self.sources.in_force()
        changed: dict[str, Body | None] = {name: None for name in self._routes if name not in in_force}
        for name, route in in_force.items():
            if self._routes.get(name) is not route:
                changed[name] = self._bodies[name] = {**route_to_json(route), "open": route.open}
        for name in self._routes.keys() - in_force.keys():
            del self._bodies[name]
        self._routes = dict(in_force)
        return changed

    def _change_of_versions(self, current: Current) -> tuple[list[Body], list[Body]]:
        """Those that came, and those that are gone; one that was loaded anew is both."""
        gone = [ref for ref, lent in self._lent.items() if current.handles.get(ref) is not lent.handle]
        left = [{"ref": reference_to_json(ref), "lending": self._lent.pop(ref).number} for ref in gone]
        came = []
        for ref, handle in current.handles.items():
            if ref not in self._lent:
                self._lendings += 1
                body = {**WarmVersion(handle.spec, handle.warmth).to_json(), "lending": self._lendings}
                self._lent[ref] = Lent(self._lendings, handle, body)
                came.append(body)
        return came, left
