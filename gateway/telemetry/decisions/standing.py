"""What was in force when an answer was given: weights by route and revision, and what each version's bytes were.

Told by control records, which the chain holds in their place; written again at the beginning of each segment, so that a
segment explains itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Standing"]

_KEPT_REVISIONS = 8
"""Of a route: requests that began under an older table may still end."""
_KEPT_VERSIONS = 4096

Entry = Mapping[str, Any]


class Standing:
    def __init__(self) -> None:
        self._routes: dict[str, list[tuple[int, Entry | None]]] = {}
        self._versions: dict[str, Entry] = {}
        self.revision = 0

    def __repr__(self) -> str:
        return f"<Standing [revision {self.revision} | {len(self._routes)} routes | {len(self._versions)} versions]>"

    def take(self, event: Mapping[str, Any]) -> None:
        """A control record; those that change nothing here are left."""
        match event.get("event"):
            case "table":
                self._take_table(event)
            case "version":
                self._take_version(event)
            case "segment" | "standing":
                self._restore(event.get("standing") or {})

    def changed(self, body: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a whole table changes, as the record that says so; None: nothing. Routes that went are ``null``."""
        told: Mapping[str, Entry] = body.get("routes") or {}
        routes: dict[str, Entry | None] = {name: entry for name, entry in told.items() if self.latest(name) != entry}
        routes.update({name: None for name in self._routes if name not in told and self.latest(name) is not None})
        if not routes:
            return None
        return {"event": "table", "revision": int(body.get("revision", 0)), "routes": routes}

    def latest(self, route: str) -> Entry | None:
        held = self._routes.get(route)
        return held[-1][1] if held else None

    def route_at(self, route: str, revision: int) -> Entry | None:
        """As it stood at a revision; None when that is not known here."""
        found = None
        for begin, entry in self._routes.get(route, ()):
            if begin > revision:
                break
            found = entry
        return found

    def version(self, model: str, number: int) -> Entry | None:
        return self._versions.get(f"{model}/{number}")

    def knows(self, model: str, number: int, entry: Entry) -> bool:
        return self._versions.get(f"{model}/{number}") == entry

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "routes": {name: [list(one) for one in held] for name, held in sorted(self._routes.items())},
            "versions": dict(sorted(self._versions.items())),
        }

    def _take_table(self, event: Mapping[str, Any]) -> None:
        revision = int(event.get("revision", 0))
        self.revision = max(self.revision, revision)
        for name, entry in (event.get("routes") or {}).items():
            held = self._routes.setdefault(name, [])
            if held and held[-1][0] == revision:
                held.pop()
            held.append((revision, entry))
            del held[:-_KEPT_REVISIONS]
            if all(one is None for _, one in held):
                del self._routes[name]

    def _take_version(self, event: Mapping[str, Any]) -> None:
        name = f"{event['model']}/{event['number']}"
        self._versions.pop(name, None)
        self._versions[name] = {key: value for key, value in event.items() if key not in ("event", "at")}
        while len(self._versions) > _KEPT_VERSIONS:
            self._versions.pop(next(iter(self._versions)))

    def _restore(self, standing: Mapping[str, Any]) -> None:
        self.revision = max(self.revision, int(standing.get("revision", 0)))
        for name, held in (standing.get("routes") or {}).items():
            known = dict(self._routes.get(name, ()))
            known.update({int(revision): entry for revision, entry in held})
            self._routes[name] = sorted(known.items(), key=lambda one: one[0])
        self._versions.update(standing.get("versions") or {})
