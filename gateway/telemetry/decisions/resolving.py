"""What was in force for a record, resolved: weights, the version's digests, which instance wrote it, of which build.

A segment's records ask the same few questions: each is answered once for the stretch of the chain between two control
records, since only those change an answer (30 of 55 µs a record went into asking anew).
"""

from __future__ import annotations

import json
from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.telemetry.decisions.fields import COLUMNS, PLACE
from gateway.telemetry.decisions.standing import Standing

__all__ = ["Resolved", "Resolver"]

Resolved = tuple[str | None, ...]
"""In the order of ``gateway.telemetry.decisions.parquet.RESOLVED``."""

_UNRESOLVED: Resolved = (None,) * 5
_CONTROL = len(COLUMNS) + 1
_ROUTE, _MODEL, _VERSION, _ANSWERED, _REASON, _REVISION = (
    1 + PLACE[name] for name in ("route", "model", "version", "answered", "reason", "revision")
)


class Resolver:
    """Hears control records in the order of the chain; one in a place that was heard before is left."""

    def __init__(self) -> None:
        self._standing = Standing()
        self._places: list[int] = []
        self._heard = 0
        self._known: dict[tuple[Any, ...], Resolved] = {}

    def __repr__(self) -> str:
        return f"<Resolver [{len(self._places)} control records | {len(self._known)} answers]>"

    def hear(self, place: int, event: Mapping[str, Any]) -> None:
        if place > self._heard:
            self._standing.take(event, place)
            self._heard = place
            insort(self._places, place)
            self._known.clear()

    def of(self, row: Sequence[Any]) -> Resolved:
        """Of a row that begins with its sequence number."""
        if row[_CONTROL] is not None:
            return _UNRESOLVED
        number = row[_ANSWERED] or row[_VERSION]
        stretch = bisect_right(self._places, row[0])
        asked = (stretch, row[_ROUTE], row[_REVISION], row[_REASON], row[_MODEL], number)
        found = self._known.get(asked)
        if found is None:
            found = self._known[asked] = self._resolve(row, number)
        return found

    def _resolve(self, row: Sequence[Any], number: int | None) -> Resolved:
        weights = digest = loaded = None
        labels = self._standing.labels_at(row[0])
        if row[_REVISION] is not None:
            weights = _weights(self._standing.route_at(row[_ROUTE], row[_REVISION], row[0]), row[_REASON])
        if number is not None and (version := self._standing.version(row[_MODEL], number)) is not None:
            digest, loaded = version.get("digest"), _loaded(version.get("loaded"))
        return weights, digest, loaded, labels.get("instance"), labels.get("build")


def _weights(entry: Mapping[str, Any] | None, reason: str | None) -> str | None:
    if entry is None:
        return None
    weights = entry.get("weights")
    if reason is not None and reason.startswith("rule:"):
        named = [rule for rule in entry.get("rules") or () if rule.get("name") == reason[5:]]
        weights = named[0].get("weights", weights) if named else weights
    return None if weights is None else json.dumps(weights, separators=(",", ":"))


def _loaded(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, sort_keys=True)
