"""The tables of the SQLite store, their forward migrations, and what its errors mean to an operator."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import StoreUnavailable

__all__ = ["MIGRATIONS", "migrate", "refuse_newer", "unavailable"]

_FIRST = """
CREATE TABLE state (only INTEGER PRIMARY KEY CHECK (only = 1), revision INTEGER NOT NULL);
INSERT INTO state VALUES (1, 0);
CREATE TABLE history (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT,
    written_at REAL NOT NULL,
    PRIMARY KEY (kind, name, revision)
) WITHOUT ROWID;
CREATE VIEW living AS
    SELECT h.kind, h.name, h.revision, h.body, h.written_at FROM history h
    WHERE h.body IS NOT NULL AND h.revision =
        (SELECT max(n.revision) FROM history n WHERE n.kind = h.kind AND n.name = h.name);
CREATE TABLE audit (
    sequence INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    revision INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT,
    changes TEXT NOT NULL,
    previous TEXT NOT NULL,
    digest TEXT NOT NULL
)
"""

_HEADS = """
DROP VIEW living;
CREATE TABLE heads (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) WITHOUT ROWID;
INSERT INTO heads SELECT kind, name, max(revision) FROM history GROUP BY kind, name;
CREATE VIEW living AS
    SELECT h.kind, h.name, h.revision, h.body, h.written_at FROM heads k
    CROSS JOIN history h ON h.kind = k.kind AND h.name = k.name AND h.revision = k.revision
    WHERE h.body IS NOT NULL
"""
"""``heads``: each document's newest revision, so that a snapshot costs what is living and not what has been."""

_TOKENS = "ALTER TABLE audit ADD COLUMN token TEXT"
"""``token``: which token a change was made with; NULL of those made before, and without one."""

_LIVING = """
DROP VIEW living;
CREATE TABLE living (
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    body TEXT NOT NULL,
    written_at REAL NOT NULL,
    steps INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
);
INSERT INTO living SELECT h.kind, h.name, h.revision, h.body, h.written_at, 0 FROM heads k
    CROSS JOIN history h ON h.kind = k.kind AND h.name = k.name AND h.revision = k.revision
    WHERE h.body IS NOT NULL;
DROP TABLE heads
"""
"""``living``: each living document, whole, since ``history`` has most revisions as a difference to the one before;
``steps``: how many of those its own is away from a whole one. What is in ``history`` stays as it is."""

MIGRATIONS: Sequence[str] = (_FIRST, _HEADS, _TOKENS, _LIVING)
"""Step n takes a file from schema n to n + 1. A step that has been released is never edited."""

_MEANING: dict[int, str] = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space; what is in force goes on",
    sqlite3.SQLITE_BUSY: "another process holds the file locked: end it or wait for it",
    sqlite3.SQLITE_LOCKED: "another process holds the file locked: end it or wait for it",
    sqlite3.SQLITE_READONLY: "the file or its folder cannot be written: check owner, mode and mount",
    sqlite3.SQLITE_PERM: "the file or its folder cannot be written: check owner, mode and mount",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened: check that its folder exists and may be written",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: stop the gateway and put a backup in its place",
    sqlite3.SQLITE_NOTADB: "the file is damaged or no store: stop the gateway and put a backup in its place",
    sqlite3.SQLITE_IOERR: "the disk reports an error, or is full: check it and its free space",
}


def refuse_newer(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> int:
    """The file's schema. Raises StoreUnavailable for a newer one, also when a newer program migrated it meanwhile."""
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if found > len(migrations):
        raise StoreUnavailable(
            f"the store {path} has schema {found}, this program knows schemas up to {len(migrations)}: "
            "run the newer version of Turnout that wrote it, or restore a backup made before"
        )
    return found


def migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Brings the file to the newest schema, each step whole or not at all; refuses a newer one."""
    if refuse_newer(connection, path, migrations) == len(migrations):
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        for step in migrations[found:]:
            for statement in step.split(";\n"):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def unavailable(path: Path, error: sqlite3.Error | OSError) -> StoreUnavailable:
    """The foreign error in our words, with what to do about it."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        damaged = isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error)
        code = sqlite3.SQLITE_CORRUPT if damaged else -1
    meaning = _MEANING.get(code & 0xFF if code >= 0 else -1, "check the file and its disk")
    return StoreUnavailable(f"the store {path} cannot be used ({error}): {meaning}")
