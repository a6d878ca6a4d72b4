"""The SQLite file of the join: what it holds, and how it is opened, also when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import orjson

from gateway.errors import RecorderUnavailable
from gateway.telemetry.feedback.ledger_held import HELD_TABLES

__all__ = ["LABELS_FILE", "is_damaged", "open_tables", "put_aside", "writing"]

log = logging.getLogger("turnout.truth")

LABELS_FILE = "labels.db"
"""In the home."""

SCHEMA = 1

TABLES = """
CREATE TABLE IF NOT EXISTS series (
    number INTEGER PRIMARY KEY, route TEXT NOT NULL, model TEXT NOT NULL, version INTEGER NOT NULL, truth TEXT NOT NULL,
    UNIQUE (route, model, version, truth));
CREATE TABLE IF NOT EXISTS answers (
    id BLOB PRIMARY KEY, series INTEGER NOT NULL, at INTEGER NOT NULL, until INTEGER NOT NULL,
    bucket INTEGER, epoch INTEGER NOT NULL, split TEXT NOT NULL, rows BLOB, label BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS answers_until ON answers (until);
CREATE TABLE IF NOT EXISTS held (
    id BLOB PRIMARY KEY, until INTEGER NOT NULL, label BLOB NOT NULL, routes TEXT, told INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_untold ON held (told) WHERE told = 0;
CREATE TABLE IF NOT EXISTS settled (id BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_until ON held (until);
CREATE TABLE IF NOT EXISTS sums (
    series INTEGER NOT NULL, day INTEGER NOT NULL, cut TEXT NOT NULL, part TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (series, day, cut, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counts (
    model TEXT NOT NULL, version INTEGER NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (model, version, outcome)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL, score BLOB, given INTEGER);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
"""``answers`` wait for their label; those that have it keep a digest of it in place of their rows until they end, so
that a label that comes again is known. ``sums`` by day of the answer; ``cut`` and ``part`` are empty for all rows,
else a slice and one of its groups. ``outcomes`` are owed to the rollouts' evidence; ``given``: when the answer was.
``told``: 0 as long as the other replicas have not been told of a label that this one holds, 1 when they have, 2 for
one that another told of. ``settled`` are labels that have joined here and that another replica may hold. Times in
milliseconds since the epoch.
"""


def open_tables(path: Path) -> sqlite3.Connection:
    """A file that is damaged is put aside and begun anew. Raises RecorderUnavailable when there can be none, or it is a
    newer program's."""
    try:
        return _opened(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise RecorderUnavailable(f"{path}: the labels' file cannot be opened: {error}") from error
        put_aside(path, error)
        return _opened(path)


def is_damaged(error: Exception) -> bool:
    """Whether it says, or follows from it, that the file is no whole database, or holds what nobody has written. Pages
    other than the first are read when they are needed, so it may come at any time."""
    said = error.__cause__ if isinstance(error, RecorderUnavailable) else error
    wrong = getattr(said, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
    return wrong or isinstance(said, orjson.JSONDecodeError)


def put_aside(path: Path, why: Exception) -> None:
    """For who wants to look. Nobody has it open. Raises OSError."""
    aside = path.with_name(path.name + ".damaged")
    lost = "answers that waited for labels, and all sums, are lost"
    log.error("%s is damaged (%s) and put aside as %s; %s", path, why, aside.name, lost)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).replace(aside.with_name(aside.name + suffix))


def _make_private(path: Path) -> None:
    """Before SQLite opens it: the files beside it, in which answers stand first, are given its mode. Raises
    RecorderUnavailable."""
    try:
        path.touch(0o600)
        path.chmod(0o600)
    except OSError as error:
        raise RecorderUnavailable(f"{path}: the labels' file cannot be opened: {error.strerror}") from error


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _make_private(path)
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA busy_timeout = 2000")
        connection.execute("PRAGMA cache_size = -8192")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA:
            raise RecorderUnavailable(f"{path}: schema {found} is of a newer Turnout; this one knows {SCHEMA}")
        connection.executescript(TABLES + HELD_TABLES)
        _add_columns(connection)
        if found != SCHEMA:
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
    except BaseException:
        connection.close()
        raise
    return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    """To a file of a release before, which goes on with it as well: it names the columns that it writes."""
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(outcomes)")}
    for name, kind in (("score", "BLOB"), ("given", "INTEGER")):
        if name not in columns:
            connection.execute(f"ALTER TABLE outcomes ADD COLUMN {name} {kind}")


@contextlib.contextmanager
def writing(connection: sqlite3.Connection, *, durable: bool) -> Iterator[sqlite3.Cursor]:
    """One transaction, whole or not at all. ``durable``: it and all before it are on the disk when this returns; else
    the system has it, which outlives this process and not a loss of power."""
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    try:
        yield cursor
        cursor.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            cursor.execute("ROLLBACK")
        raise
    finally:
        cursor.close()
