"""The tables of the SQLite store, read and written: functions on a connection, inside the caller's transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from gateway.control.audit import GENESIS, NULL, canonical, seal
from gateway.control.differences import Base, Past, is_difference, pack
from gateway.control.store import Actor, AuditEntry, AuditRecord, Body, Change, Document, DocumentKey, Snapshot
from gateway.errors import StaleRevision

__all__ = [
    "KnownBodies",
    "PastBodies",
    "parse",
    "read_living",
    "read_past",
    "read_record",
    "read_snapshot",
    "state_revision",
    "write",
]


KnownBodies = dict[tuple[str, str], tuple[str | None, Body | None]]
"""By kind and name of a document: its text as stored, and what that says."""


def parse(body: str | None) -> Body | None:
    """What was written; ``sqlite3.DatabaseError``, as of any other damage, when it is no longer that."""
    if body is None:
        return None
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"database is malformed: a stored document is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise sqlite3.DatabaseError(f"database is malformed: a stored document is a {type(parsed).__name__}")
    return parsed


def state_revision(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT revision FROM state").fetchone()
    return int(row[0])


def read_snapshot(connection: sqlite3.Connection, known: KnownBodies | None = None) -> Snapshot:
    """``known`` is filled, and spares parsing again what has the very same text as before: of ten thousand versions in
    a hundred documents that is nine tenths of the time."""
    connection.execute("BEGIN")
    try:
        revision = state_revision(connection)
        rows = connection.execute("SELECT kind, name, revision, body, written_at FROM living").fetchall()
    finally:
        connection.execute("ROLLBACK")
    parsed = _parsed([(kind, name, body) for kind, name, _, body, _ in rows], {} if known is None else known)
    documents = (
        Document(DocumentKey(kind, name), at, body, written)
        for (kind, name, at, _, written), body in zip(rows, parsed, strict=True)
    )
    return Snapshot(revision, {document.key: document for document in documents})


def _parsed(rows: Sequence[tuple[str, str, str | None]], known: KnownBodies) -> list[Body | None]:
    found = []
    for kind, name, text in rows:
        held = known.get((kind, name))
        if held is None or held[0] != text:
            held = known[kind, name] = text, parse(text)
        found.append(held[1])
    for gone in known.keys() - {(kind, name) for kind, name, _ in rows}:
        del known[gone]
    return found


def read_living(connection: sqlite3.Connection, key: DocumentKey) -> Document | None:
    row = connection.execute(
        "SELECT revision, body, written_at FROM living WHERE kind = ? AND name = ?", (key.kind, key.name)
    ).fetchone()
    return None if row is None else Document(key, row[0], parse(row[1]), row[2])


def write(
    connection: sqlite3.Connection,
    changes: Sequence[Change],
    *,
    bodies: Sequence[str | None],
    entry: AuditEntry,
    at: int | None,
    now: float,
) -> int:
    standing = state_revision(connection)
    if at is not None and at != standing:
        raise StaleRevision(f"the state stands at revision {standing}, the change was judged at {at}")
    before = {change.key: _standing(connection, change.key) for change in changes}
    for change in changes:
        found = before[change.key].revision
        if found != change.expected:
            raise StaleRevision(f"{change.key} stands at revision {found}, the change expects {change.expected}")
    revision = standing + 1
    connection.execute("UPDATE state SET revision = ?", (revision,))
    for change, body in zip(changes, bodies, strict=True):
        _write_body(connection, change.key, body, before[change.key].base, revision=revision, now=now)
    _write_audit(connection, changes, bodies, before, revision=revision, entry=entry, now=now)
    return revision


@dataclass(frozen=True, slots=True)
class _Standing:
    """What a change finds; without a document, revision 0 and nothing. ``base``: the same, as ``history`` has it."""

    revision: int = 0
    text: str | None = None
    body: Body | None = None
    base: Base | None = None


def _standing(connection: sqlite3.Connection, key: DocumentKey) -> _Standing:
    row = connection.execute(
        "SELECT revision, body, steps FROM living WHERE kind = ? AND name = ?", (key.kind, key.name)
    ).fetchone()
    if row is None:
        return _Standing()
    revision, text, steps = row
    return _Standing(revision, text, parse(text), _base(connection, key, revision, steps))


def _base(connection: sqlite3.Connection, key: DocumentKey, revision: int, steps: int) -> Base | None:
    """What the next revision is a difference to is what will be read for it: a living text that somebody altered, or
    whose past is damaged, must not take the revisions after it along. 64 steps to a model of a thousand versions take
    a millisecond. None: there is none."""
    try:
        text = Past(partial(_kept, connection, key)).text(revision)
    except (KeyError, TypeError, ValueError):
        return None
    return None if text is None else Base(revision, text, steps)


def _write_body(
    connection: sqlite3.Connection,
    key: DocumentKey,
    body: str | None,
    base: Base | None,
    *,
    revision: int,
    now: float,
) -> None:
    place = (key.kind, key.name)
    kept = None if body is None else pack(body, base)
    connection.execute(
        "INSERT INTO history (kind, name, revision, body, written_at) VALUES (?, ?, ?, ?, ?)",
        (*place, revision, kept, now),
    )
    if body is None or kept is None:
        connection.execute("DELETE FROM living WHERE kind = ? AND name = ?", place)
        return
    steps = base.steps + 1 if base is not None and is_difference(kept) else 0
    connection.execute(
        "INSERT OR REPLACE INTO living (kind, name, revision, body, written_at, steps) VALUES (?, ?, ?, ?, ?, ?)",
        (*place, revision, body, now, steps),
    )


def _write_audit(
    connection: sqlite3.Connection,
    changes: Sequence[Change],
    bodies: Sequence[str | None],
    before: dict[DocumentKey, _Standing],
    *,
    revision: int,
    entry: AuditEntry,
    now: float,
) -> None:
    last = connection.execute("SELECT digest FROM audit ORDER BY sequence DESC LIMIT 1").fetchone()
    entry = replace(entry, reason=entry.reason.encode("utf-8", "replace").decode())  # half a pair has no UTF-8 form
    olds = {str(key): NULL if old.text is None else old.text.encode() for key, old in before.items()}
    news = {
        str(change.key): NULL if body is None else body.encode() for change, body in zip(changes, bodies, strict=True)
    }
    steps = [[key.kind, key.name, old.revision] for key, old in before.items()]
    record = seal(
        sequence=revision,
        at=now,
        revision=revision,
        entry=entry,
        before={str(key): old.body for key, old in before.items()},
        after={str(change.key): change.body for change in changes},
        previous=GENESIS if last is None else last[0],
        texts=(olds, news),
    )
    connection.execute(
        "INSERT INTO audit "
        "(sequence, at, revision, actor, action, subject, reason, detail, changes, previous, digest, token) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(record.sequence, record.at, record.revision),
            *(str(entry.actor), entry.action, entry.subject, entry.reason),
            None if entry.detail is None else canonical(entry.detail).decode("ascii"),
            canonical(steps).decode("ascii"),
            *(record.previous, record.digest, entry.token),
        ),
    )


class PastBodies:
    """What documents were at their revisions, within one call. The last of each document is held: the next record
    goes from where this one went to."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._past: dict[DocumentKey, Past] = {}
        self._last: dict[DocumentKey, tuple[int, Body | None]] = {}

    def at(self, key: DocumentKey, revision: int) -> Body | None:
        if (last := self._last.get(key)) is not None and last[0] == revision:
            return last[1]
        past = self._past.setdefault(key, Past(partial(_kept, self._connection, key)))
        try:
            text = past.text(revision)
        except (KeyError, TypeError, ValueError) as error:
            raise sqlite3.DatabaseError(f"database is malformed: {key} of revision {revision}: {error}") from error
        body = parse(text)
        self._last[key] = revision, body
        return body


def _kept(connection: sqlite3.Connection, key: DocumentKey, revision: int) -> str | None:
    row = connection.execute(
        "SELECT body FROM history WHERE kind = ? AND name = ? AND revision = ?", (key.kind, key.name, revision)
    ).fetchone()
    return None if row is None else row[0]


def read_past(connection: sqlite3.Connection, key: DocumentKey, limit: int) -> Sequence[Document]:
    """Newest first."""
    rows = connection.execute(
        "SELECT revision, written_at FROM history WHERE kind = ? AND name = ? ORDER BY revision DESC LIMIT ?",
        (key.kind, key.name, limit),
    ).fetchall()
    bodies = PastBodies(connection)
    oldest_first = [Document(key, revision, bodies.at(key, revision), at) for revision, at in reversed(rows)]
    return tuple(reversed(oldest_first))


def read_record(bodies: PastBodies, row: tuple[Any, ...]) -> AuditRecord:
    sequence, at, revision, actor, action, subject, reason, detail, changes, previous, digest, token = row
    steps = _steps(changes)
    before = {str(key): bodies.at(key, old) for key, old in steps}
    after = {str(key): bodies.at(key, revision) for key, _ in steps}
    entry = AuditEntry(Actor(actor, token), action, subject, reason, parse(detail))
    return AuditRecord(sequence, at, revision, entry, before, after, previous, digest)


def _steps(changes: str) -> list[tuple[DocumentKey, int]]:
    try:
        return [(DocumentKey(str(kind), str(name)), int(old)) for kind, name, old in json.loads(changes)]
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"database is malformed: an audit record's changes: {error}") from error
