"""Documents and audit records as Redis holds them, packed and read. What was altered there is damage, told as such."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from gateway.control.audit import canonical
from gateway.control.differences import MOST_STEPS, Base, Past, pack
from gateway.control.store import Actor, AuditEntry, AuditRecord, Body, Document, DocumentKey
from gateway.errors import StoreUnavailable

__all__ = [
    "Place",
    "Places",
    "audit_entry",
    "body_text",
    "document_field",
    "history_field",
    "living_document",
    "pack_body",
    "parse_audit",
    "past_base",
    "past_documents",
    "read_record",
    "steps_of",
]


Place = tuple[DocumentKey, int]
"""A document at a revision."""
Places = Mapping[Place, Document | None]


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


def body_text(living: bytes) -> bytes:
    return living.split(b"\n", 2)[2]


def past_base(place: Place, rows: Mapping[str, bytes | None], revisions: int) -> Base | None:
    """What the next revision is a difference to is what will be read for it: a living text that somebody altered, or
    whose past is damaged, must not take the revisions after it along. ``rows`` as of ``past_documents``;
    ``revisions``: how many the document has had: the first and each ``MOST_STEPS`` on from it are whole, by whichever
    replica. None: there is none."""
    key, revision = place
    try:
        text = Past(partial(_kept, rows, key)).text(revision)
    except (KeyError, ValueError, TypeError):
        return None
    return None if text is None else Base(revision, text, (revisions - 1) % MOST_STEPS)


def pack_body(text: str | None, base: Base | None) -> tuple[bytes, bytes]:
    """``+body`` or ``-``, and what is kept of it: nothing more where that is the same."""
    if text is None:
        return b"-", b""
    kept = pack(text, base)
    return b"+" + text.encode("ascii"), b"" if kept is text else b"+" + kept.encode("ascii")


def history_field(key: DocumentKey, revision: int) -> str:
    return f"{key}@{revision}"


def past_documents(places: Sequence[Place], rows: Mapping[str, bytes | None]) -> dict[Place, Document | None]:
    """``rows``: by ``history_field``, ``written_at LF`` and ``+body``, or ``-``; also of those that a body is kept as
    a difference to. ``places`` in order take a step each."""
    pasts: dict[DocumentKey, Past] = {}
    found: dict[Place, Document | None] = {}
    for key, revision in places:
        past = pasts.setdefault(key, Past(partial(_kept, rows, key)))
        try:
            written_at = _row(rows, key, revision)[0]
            text = past.text(revision)
            body = None if text is None else _object(text)
        except (KeyError, ValueError, TypeError) as error:
            raise _damaged(f"{key} of revision {revision}", error) from error
        found[key, revision] = None if written_at is None else Document(key, revision, body, float(written_at))
    return found


def _kept(rows: Mapping[str, bytes | None], key: DocumentKey, revision: int) -> str | None:
    body = _row(rows, key, revision)[1]
    return body[1:].decode("ascii") if body is not None and body[:1] == b"+" else None


def _row(rows: Mapping[str, bytes | None], key: DocumentKey, revision: int) -> tuple[bytes, bytes] | tuple[None, None]:
    row = rows.get(history_field(key, revision))
    if row is None:
        return None, None
    written_at, body = row.split(b"\n", 1)
    return written_at, body


def _object(body: bytes | str) -> Body:
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


def steps_of(row: Body) -> list[Place]:
    return [(DocumentKey(str(kind), str(name)), int(old)) for kind, name, old in row["steps"]]


def read_record(row: Body, documents: Places) -> AuditRecord:
    """``documents`` has those that it went from and to."""
    steps = steps_of(row)
    olds = {str(key): None if (found := documents[key, old]) is None else found.body for key, old in steps}
    news = {str(key): None if (found := documents[key, row["revision"]]) is None else found.body for key, _ in steps}
    entry = AuditEntry(Actor(row["actor"], row["token"]), row["action"], row["subject"], row["reason"], row["detail"])
    return AuditRecord(row["sequence"], row["at"], row["revision"], entry, olds, news, row["previous"], row["digest"])
