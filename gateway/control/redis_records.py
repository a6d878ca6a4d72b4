"""Documents and audit records as Redis holds them, packed and read. What was altered there is damage, told as such."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from gateway.control.audit import canonical
from gateway.control.store import Actor, AuditEntry, AuditRecord, Body, Document, DocumentKey
from gateway.errors import StoreUnavailable

__all__ = [
    "audit_entry",
    "document_field",
    "history_fields",
    "living_document",
    "parse_audit",
    "past_document",
    "read_record",
    "steps_of",
]


def _damaged(what: str, error: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"the store is damaged: {what} cannot be read: {error}; restore it, see docs/operations.md")


def document_field(field: bytes) -> DocumentKey:
    try:
        kind, slash, name = field.decode("utf-8").partition("/")
    except UnicodeDecodeError as error:
        raise _damaged(f"a document's name {field!r:.100}", error) from error
    if not slash:
        raise _damaged(f"a document's name {field!r:.100}", ValueError("it has no kind"))
    return DocumentKey(kind, name)


def living_document(key: DocumentKey, packed: bytes) -> Document:
    """``revision LF written_at LF body``."""
    try:
        revision, written_at, body = packed.split(b"\n", 2)
        return Document(key, int(revision), _object(body), float(written_at))
    except (ValueError, TypeError) as error:
        raise _damaged(str(key), error) from error


def history_fields(places: Sequence[tuple[DocumentKey, int]]) -> list[str]:
    return [f"{key}@{revision}" for key, revision in places]


def past_document(key: DocumentKey, revision: int, packed: bytes | None) -> Document | None:
    """``written_at LF`` and ``+body``, or ``-``."""
    if packed is None:
        return None
    try:
        written_at, body = packed.split(b"\n", 1)
        return Document(key, revision, _object(body[1:]) if body[:1] == b"+" else None, float(written_at))
    except (ValueError, TypeError) as error:
        raise _damaged(f"{key} of revision {revision}", error) from error


def _object(body: bytes) -> Body:
    parsed = json.loads(body)
    if not isinstance(parsed, dict):
        raise TypeError(f"it is a JSON {type(parsed).__name__}")
    return parsed


def audit_entry(record: AuditRecord, steps: Sequence[tuple[DocumentKey, int]]) -> bytes:
    """The record without the bodies, which stand in ``bodies``: it names the revisions that it went from."""
    entry = record.entry
    return canonical(
        {
            "sequence": record.sequence,
            "at": record.at,
            "revision": record.revision,
            "actor": entry.actor,
            "token": entry.token,
            "action": entry.action,
            "subject": entry.subject,
            "reason": entry.reason,
            "detail": entry.detail,
            "steps": [[key.kind, key.name, old] for key, old in steps],
            "previous": record.previous,
            "digest": record.digest,
        }
    )


_FIELDS: tuple[tuple[str, type | tuple[type, ...]], ...] = (
    ("sequence", int),
    ("at", (int, float)),
    ("revision", int),
    ("actor", str),
    ("token", (str, type(None))),
    ("action", str),
    ("subject", str),
    ("reason", str),
    ("detail", (dict, type(None))),
    ("steps", list),
    ("previous", str),
    ("digest", str),
)


def parse_audit(packed: bytes) -> dict[str, Any]:
    try:
        row = _object(packed)
        for name, kind in _FIELDS:
            if not isinstance(row[name], kind):
                raise TypeError(f"its {name} is {row[name]!r:.60}")
        steps_of(row)
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged("an audit record", error) from error
    return dict(row)


def steps_of(row: Body) -> list[tuple[DocumentKey, int]]:
    return [(DocumentKey(str(kind), str(name)), int(old)) for kind, name, old in row["steps"]]


def read_record(row: Body, before: Iterator[Document | None], since: Iterator[Document | None]) -> AuditRecord:
    """``before`` and ``since`` give the documents that it went from and to, one for each of its steps."""
    steps = steps_of(row)
    olds = {str(key): None if (found := next(before)) is None else found.body for key, _ in steps}
    news = {str(key): None if (found := next(since)) is None else found.body for key, _ in steps}
    entry = AuditEntry(Actor(row["actor"], row["token"]), row["action"], row["subject"], row["reason"], row["detail"])
    return AuditRecord(row["sequence"], row["at"], row["revision"], entry, olds, news, row["previous"], row["digest"])
