"""What was in force when an answer was given: weights by route and revision, and what each version's bytes were.

Told by control records, which the chain holds in their place; written again at the beginning of each segment, so that a
segment explains itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["KEPT_REVISIONS", "Standing"]

KEPT_REVISIONS = 8
"""Of a route, by who writes: requests that began under an older table may still end."""
_KEPT_VERSIONS = 4096
_LABELS = ("instance", "build")

Entry = Mapping[str, Any]


class _Told(NamedTuple):
    revision: int
    place: int
    entry: Entry | None


class Standing:
    """``revisions``: so many of each route are kept, as a writer needs; None: all, and all entries of one revision, as
    who resolves a segment's records needs: a route may change more often there, and also without a new revision, when
    one of its versions becomes ready."""

    def __init__(self, revisions: int | None = None) -> None:
        self._most = revisions
        self._routes: dict[str, list[_Told]] = {}
        self._versions: dict[str, Entry] = {}
        self._labels: list[tuple[int, Mapping[str, str]]] = []
        self.revision = 0

    def __repr__(self) -> str:
        return f"<Standing [revision {self.revision} | {len(self._routes)} routes | {len(self._versions)} versions]>"

    def take(self, event: Mapping[str, Any], place: int = 0) -> None:
        """A control record, and its place in the chain; those that change nothing here are left."""
        if event.get("event") in ("segment", "open"):
            told = event.get("labels") or {name: event[name] for name in _LABELS if name in event}
            self._labels.append((place, {**self.labels_at(place), **told}))
        match event.get("event"):
            case "table":
                self._take_table(event, place)
            case "version":
                self._take_version(event)
            case "segment" | "standing":
                self._restore(event.get("standing") or {}, place)

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
        return held[-1].entry if held else None

    def route_at(self, route: str, revision: int, place: int) -> Entry | None:
        """As it stood for a record of that revision in that place of the chain; None when that is not known here. Of
        several entries of one revision it is the last that was told before; a record may also stand before the first,
        when it came by another line than the table did."""
        found: _Told | None = None
        for told in self._routes.get(route, ()):
            if told.revision > revision:
                continue
            if found is None or told.revision > found.revision or told.place <= place:
                found = told
        return None if found is None else found.entry

    def labels_at(self, place: int) -> Mapping[str, str]:
        """Which instance wrote there, and of which build."""
        told = [labels for begin, labels in self._labels if begin <= place]
        return {name: told[-1][name] for name in _LABELS if name in told[-1]} if told else {}

    def version(self, model: str, number: int) -> Entry | None:
        return self._versions.get(f"{model}/{number}")

    def knows(self, model: str, number: int, entry: Entry) -> bool:
        return self._versions.get(f"{model}/{number}") == entry

    def to_json(self) -> dict[str, Any]:
        return {
            "revision": self.revision,
            "routes": {
                name: [[one.revision, one.entry] for one in held] for name, held in sorted(self._routes.items())
            },
            "versions": dict(sorted(self._versions.items())),
        }

    def _take_table(self, event: Mapping[str, Any], place: int) -> None:
        revision = int(event.get("revision", 0))
        self.revision = max(self.revision, revision)
        for name, entry in (event.get("routes") or {}).items():
            held = self._routes.setdefault(name, [])
            if self._most is not None and held and held[-1].revision == revision:
                held.pop()
            held.append(_Told(revision, place, entry))
            if self._most is None:
                continue
            del held[: -self._most]
            if all(one.entry is None for one in held):
                del self._routes[name]

    def _take_version(self, event: Mapping[str, Any]) -> None:
        name = f"{event['model']}/{event['number']}"
        self._versions.pop(name, None)
        self._versions[name] = {key: value for key, value in event.items() if key not in ("event", "at")}
        while len(self._versions) > _KEPT_VERSIONS:
            self._versions.pop(next(iter(self._versions)))

    def _restore(self, standing: Mapping[str, Any], place: int) -> None:
        self.revision = max(self.revision, int(standing.get("revision", 0)))
        for name, entries in (standing.get("routes") or {}).items():
            told = [_Told(int(revision), place, entry) for revision, entry in entries]
            again = set() if self._most is None else {one.revision for one in told}
            kept = [one for one in self._routes.get(name, ()) if one.revision not in again]
            self._routes[name] = sorted([*kept, *told], key=lambda one: one.revision)
        self._versions.update(standing.get("versions") or {})
