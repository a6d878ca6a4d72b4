"""Labels that wait for an answer which nobody knows yet: kept by sender, so that none pushes out another's.

Whoever may send labels can make ids up, as many as are held. So the bound is shared: while there is room everybody has
it, and when there is none, a sender who holds fewer than another gets the place of the oldest label of the one who
holds most.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["HELD_TABLES", "OTHERS", "TOLD", "UNTOLD", "Held", "HeldLabels"]

UNTOLD, TOLD, OTHERS = 0, 1, 2
"""Of a label that is held: whether the other replicas know of it, or it is one of theirs."""

HELD_TABLES = """
CREATE TABLE IF NOT EXISTS held_by (id BLOB PRIMARY KEY, sender TEXT NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_by_sender ON held_by (sender, until);
CREATE TRIGGER IF NOT EXISTS held_gone AFTER DELETE ON held BEGIN DELETE FROM held_by WHERE id = old.id; END;
"""
"""Beside ``held``, whose columns an older program writes too: it knows of no senders, and the trigger is the file's."""


class Held(NamedTuple):
    """``label`` and ``routes`` as JSON; ``sender`` is empty where an older program took it."""

    id: bytes
    until: int
    label: bytes
    routes: str | None
    told: int
    sender: str


class HeldLabels:
    """Used by the ledger alone, inside of its transactions. ``load`` after one that failed."""

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        self._connection = connection
        self._most = most
        self._senders: Counter[str] | None = None
        self.count = 0
        self.load()

    def __repr__(self) -> str:
        return f"<HeldLabels [{self.count} of {self._most}]>"

    def load(self) -> None:
        (self.count,) = self._connection.execute("SELECT count(*) FROM held").fetchone()
        self._senders = None
        self._whole = False

    def find(self, key: bytes) -> tuple[bytes, str | None] | None:
        """The label and the routes of its sender."""
        if not self.count:
            return None
        found: tuple[bytes, str | None] | None = self._connection.execute(
            "SELECT label, routes FROM held WHERE id = ?", (key,)
        ).fetchone()
        return found

    def keep(self, cursor: sqlite3.Cursor, label: Held) -> tuple[bool, int]:
        """Whether it is held now, and how many labels that came to this replica have lost their place to it."""
        lost = 0
        if self.count >= self._most:
            noisiest = self._noisiest(cursor, label.sender)
            if noisiest is None:
                return False, 0
            lost = self._give_up_oldest(cursor, noisiest)
        cursor.execute("INSERT INTO held VALUES (?, ?, ?, ?, ?)", label[:5])
        cursor.execute("INSERT INTO held_by VALUES (?, ?, ?)", (label.id, label.sender, label.until))
        self._changed(label.sender, 1)
        return True, lost

    def drop(self, cursor: sqlite3.Cursor, key: bytes) -> None:
        """Nothing, if it is not held."""
        found = cursor.execute("SELECT sender FROM held_by WHERE id = ?", (key,)).fetchone()
        if cursor.execute("DELETE FROM held WHERE id = ?", (key,)).rowcount:
            self._changed("" if found is None else found[0], -1)

    def due(self, now_ms: int, most: int) -> Sequence[tuple[bytes, int]]:
        """Whose time has passed, some of them: id, and whether the other replicas know of it."""
        asked = "SELECT id, told FROM held WHERE until <= ? ORDER BY until LIMIT ?"
        return self._connection.execute(asked, (now_ms, most)).fetchall()

    def end(self, cursor: sqlite3.Cursor, due: Sequence[tuple[bytes, int]]) -> int:
        """How many of them came to this replica."""
        cursor.executemany("DELETE FROM held WHERE id = ?", [(key,) for key, _ in due])
        self.count -= len(due)
        self._senders = None
        return sum(told != OTHERS for _, told in due)

    def _noisiest(self, cursor: sqlite3.Cursor, sender: str) -> str | None:
        """Who holds most; None where that is no more than the sender would hold."""
        held = self._held_by(cursor)
        most = max(held, key=lambda name: held[name], default=sender)
        return most if held[most] > held[sender] + 1 else None

    def _held_by(self, cursor: sqlite3.Cursor) -> Counter[str]:
        if self._senders is None:
            if not self._whole:  # an older program has written here
                missing = "SELECT id, '', until FROM held WHERE id NOT IN (SELECT id FROM held_by)"
                cursor.execute(f"INSERT INTO held_by {missing}")
                self._whole = True
            self._senders = Counter(dict(cursor.execute("SELECT sender, count(*) FROM held_by GROUP BY sender")))
        return self._senders

    def _give_up_oldest(self, cursor: sqlite3.Cursor, sender: str) -> int:
        oldest = "SELECT id FROM held_by WHERE sender = ? ORDER BY until LIMIT 1"
        (key,) = cursor.execute(oldest, (sender,)).fetchone()
        (told,) = cursor.execute("SELECT told FROM held WHERE id = ?", (key,)).fetchone()
        cursor.execute("DELETE FROM held WHERE id = ?", (key,))
        self._changed(sender, -1)
        return int(told != OTHERS)

    def _changed(self, sender: str, by: int) -> None:
        self.count += by
        if self._senders is not None:
            self._senders[sender] += by
