"""How far a target of notifications has been told, and what it is still owed: values, and how they are kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from gateway.control.audit import GENESIS
from gateway.control.notification_events import Notice

__all__ = ["Ledger", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Every record of the audit log up to ``cursor``, whose digest is ``digest``, is settled, and beyond it those of
    ``settled``: taken, refused, given up."""

    cursor: int = 0
    digest: str = GENESIS
    settled: frozenset[int] = frozenset()

    def united(self, other: Place | None) -> Place:
        """Of two places on one log: what either knows to be settled is."""
        if other is None:
            return self
        far = self if self.cursor >= other.cursor else other
        settled = frozenset(number for number in self.settled | other.settled if number > far.cursor)
        return Place(far.cursor, far.digest, settled)

    def packed(self) -> bytes:
        body = {"cursor": self.cursor, "digest": self.digest, "settled": sorted(self.settled)}
        return json.dumps(body).encode("ascii")

    @classmethod
    def parse(cls, packed: bytes | None) -> Place | None:
        """None for nothing, and for what cannot be read."""
        try:
            body = json.loads(packed or b"")
            return cls(int(body["cursor"]), str(body["digest"]), frozenset(map(int, body["settled"])))
        except (ValueError, TypeError, KeyError):
            return None


@dataclass(slots=True)
class Ledger:
    """The place as it moves. Written by one courier: it reads records in order, and settles notices in any."""

    place: Place
    read: int = 0
    digest: str = GENESIS
    owed: dict[int, tuple[Notice, str]] = field(default_factory=dict)

    @classmethod
    def at(cls, place: Place) -> Ledger:
        return cls(place, place.cursor, place.digest)

    def passed(self, sequence: int, previous: str, digest: str, notice: Notice | None) -> Notice | None:
        """A record was read; the notice that is owed for it, unless it was settled before."""
        self.read, self.digest = sequence, digest
        if notice is None or sequence in self.place.settled:
            return None
        self.owed[sequence] = (notice, previous)
        return notice

    def settle(self, sequence: int) -> None:
        del self.owed[sequence]
        self.place = Place(self.place.cursor, self.place.digest, self.place.settled | {sequence})

    def moved(self) -> Place:
        """As far as it has come: to before the first that is owed."""
        cursor, digest = self.read, self.digest
        if self.owed:
            first = min(self.owed)
            cursor, digest = first - 1, self.owed[first][1]
        beyond = frozenset(sequence for sequence in self.place.settled if sequence > cursor)
        self.place = Place(cursor, digest, beyond)
        return self.place
