"""One batch while it is being formed: what an item offered to it meets. Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, NamedTuple, Protocol, TypeVar

__all__ = ["LOOK_AHEAD", "Cut", "Filling", "Taken", "Waiting"]

LOOK_AHEAD = 512
"""Items looked at for one batch."""

MOST_MISFITS = 4
"""Clients whose next item is larger than the room left, before the batch goes as it is."""


class Waiting(Protocol):
    """What the queue reads of an item. ``left``: nobody waits for its answer any more; ``rows``: still to run."""

    @property
    def key(self) -> Hashable: ...

    @property
    def rows(self) -> int: ...

    @property
    def deadline(self) -> float | None: ...

    @property
    def left(self) -> bool: ...

    @property
    def priority(self) -> int: ...

    @property
    def client(self) -> str: ...


W = TypeVar("W", bound=Waiting)

Cut = Callable[[W, int], tuple[W, W]]
"""Splits so many rows off an item: that part, and the rest, either an item by itself."""


class Taken(NamedTuple, Generic[W]):
    """The next batch with its rows, and the items that left the queue because their deadline has passed."""

    batch: list[W]
    rows: int
    expired: list[W]


class Filling(Generic[W]):
    """A batch being formed. ``misfits``: items that it had no room left for, though a batch of their own would."""

    __slots__ = ("_cut", "_key", "_limit", "_looks", "_now", "alone", "batch", "expired", "full", "misfits", "room")

    def __init__(self, limit: int, now: float, alone: bool, cut: Cut[W]) -> None:
        self.batch: list[W] = []
        self.expired: list[W] = []
        self.room = limit
        self.full = False
        self.misfits = 0
        self.alone = alone
        self._limit = limit
        self._now = now
        self._cut = cut
        self._looks = LOOK_AHEAD
        self._key: Hashable = None

    def offer(self, item: W) -> W | None:
        """Takes the item, or a part of it, or drops it; what stays of it in the queue."""
        self._looks -= 1
        if not self._looks:
            self.full = True
        if item.left:
            return None
        if item.deadline is not None and item.deadline <= self._now:
            self.expired.append(item)
            return None
        if self.batch and item.key != self._key:
            return item
        rest = None
        if item.rows > self.room:
            if item.rows <= self._limit:
                self.misfits += 1
                if self.misfits >= MOST_MISFITS:
                    self.full = True
                return item
            item, rest = self._cut(item, self.room)
        self.batch.append(item)
        self._key = item.key
        self.room -= item.rows
        if not self.room or self.alone:
            self.full = True
        return rest
