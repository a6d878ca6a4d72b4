"""What the response caches hold, by route, over all processes that serve: for the admin plane to show."""

from __future__ import annotations

from typing import Any, NamedTuple

from gateway.events.observer import Observer

__all__ = ["Holding", "Holdings"]


class Holding(NamedTuple):
    entries: int = 0
    held_bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {"entries": self.entries, "bytes": self.held_bytes}


NOTHING = Holding()


class Holdings(Observer):
    """Adds up the changes that it is told; the composition root puts it among the observers."""

    def __init__(self) -> None:
        self._held: dict[str, Holding] = {}

    def __repr__(self) -> str:
        return f"<Holdings {self._held}>"

    def of(self, route: str) -> Holding:
        return self._held.get(route, NOTHING)

    def cache_changed(self, route: str, entries: int, held_bytes: int, evicted: int) -> None:
        before = self.of(route)
        now = Holding(before.entries + entries, before.held_bytes + held_bytes)
        if now == NOTHING:
            self._held.pop(route, None)
        else:
            self._held[route] = now
