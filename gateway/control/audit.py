"""The audit chain: each record is sealed over its predecessor's digest, so nothing can be altered or taken out unseen.

Every commit writes exactly one record, so ``sequence`` equals the state revision: a chain
whose end was cut off is shorter than the store's revision says.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from gateway.control.store import AuditEntry, AuditRecord, Body, Snapshot, Store

__all__ = ["GENESIS", "NULL", "Texts", "Verification", "canonical", "record_to_json", "seal", "verify", "verify_store"]

GENESIS = "0" * 64
NULL = b"null"

Texts = Mapping[str, bytes]
"""By name, what is canonical of it."""
_PAGE_RECORDS = 50
"""A record holds whole documents, and a model of a thousand versions is some 200 kB, twice."""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, in ASCII: the same value gives the same bytes everywhere."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def seal(
    *,
    sequence: int,
    at: float,
    revision: int,
    entry: AuditEntry,
    before: Body | None,
    after: Body | None,
    previous: str,
    texts: tuple[Texts, Texts] | None = None,
) -> AuditRecord:
    """The record with its digest: SHA-256 over the predecessor's digest and the canonical record. ``texts``: what is
    canonical of the bodies in ``before`` and ``after``, where that is at hand; of large ones it is most of the work."""
    payload = {
        "sequence": sequence,
        "at": at,
        "revision": revision,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "reason": entry.reason,
        "detail": entry.detail,
    }
    if entry.token is not None:  # a record without one is sealed as before there were any
        payload["token"] = entry.token
    members = {name: canonical(value) for name, value in payload.items()}
    members["before"] = canonical(before) if texts is None else _object(texts[0])
    members["after"] = canonical(after) if texts is None else _object(texts[1])
    digest = hashlib.sha256(previous.encode("ascii") + b"\n" + _object(members)).hexdigest()
    return AuditRecord(sequence, at, revision, entry, before, after, previous, digest)


def _object(members: Texts) -> bytes:
    """The canonical object whose values are these texts."""
    return b"{" + b",".join(canonical(name) + b":" + members[name] for name in sorted(members)) + b"}"


@dataclass(frozen=True, slots=True)
class Verification:
    """``fault`` None: every one of ``records`` stands as it was written. ``head`` is the last good digest."""

    records: int
    head: str
    fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"ok": self.fault is None, "records": self.records, "head": self.head, "fault": self.fault}


def verify(records: Iterable[AuditRecord], start: Verification | None = None) -> Verification:
    """Walks on from ``start`` (the chain's beginning if None) and stops at the first record that does not fit."""
    state = start or Verification(0, GENESIS)
    if state.fault is not None:
        return state
    for record in records:
        fault = _fault(record, state)
        if fault is not None:
            return Verification(state.records, state.head, fault)
        state = Verification(record.sequence, record.digest)
    return state


def _fault(record: AuditRecord, state: Verification) -> str | None:
    expected = state.records + 1
    if record.sequence != expected:
        return f"audit record {expected} is missing or out of order: found {record.sequence} in its place"
    if record.previous != state.head:
        return f"audit record {record.sequence} does not follow record {state.records}: its predecessor was altered"
    try:
        again = seal(
            sequence=record.sequence,
            at=record.at,
            revision=record.revision,
            entry=record.entry,
            before=record.before,
            after=record.after,
            previous=record.previous,
        )
    except ValueError as error:
        return f"audit record {record.sequence} cannot be read: {error}"
    if again.digest != record.digest:
        return (
            f"audit record {record.sequence} was altered: its content hashes to {again.digest}, "
            f"the chain says {record.digest}"
        )
    return None


async def verify_store(store: Store) -> Verification:
    """The whole chain of a store, page by page; also finds a chain whose end is missing, and documents that stand
    otherwise than the chain says. Hashing goes on in a thread."""
    snapshot = await store.snapshot()
    state, written = Verification(*(snapshot.origin or (0, GENESIS))), dict[str, tuple[int, Body]]()
    while True:
        page = await store.audit(after=state.records, limit=_PAGE_RECORDS)
        state = await asyncio.to_thread(verify, page, state)
        if state.fault is not None:
            return state
        _take((record for record in page if record.sequence <= snapshot.revision), written)
        if len(page) < _PAGE_RECORDS:
            break
    if state.records < snapshot.revision:
        fault = f"the audit chain ends at record {state.records}, the store stands at revision {snapshot.revision}"
        return replace(state, fault=fault)
    return replace(state, fault=await asyncio.to_thread(_standing_fault, snapshot, written))


def _take(records: Iterable[AuditRecord], written: dict[str, tuple[int, Body]]) -> None:
    """Adds which record wrote each document last, and what."""
    for record in records:
        for key, body in (record.after or {}).items():
            if body is None:
                written.pop(key, None)
            else:
                written[key] = record.sequence, body


def _standing_fault(snapshot: Snapshot, written: Mapping[str, tuple[int, Body]]) -> str | None:
    """Whether the documents that stand are those that the chain has written."""
    for key, document in snapshot.documents.items():
        if (found := written.get(str(key))) is None:
            return f"{key} stands in the store, and no audit record has written it"
        if found[0] != document.revision or not _same(found[1], document.body):
            return f"{key} stands otherwise than audit record {found[0]} has written it"
    missing = sorted(written.keys() - {str(key) for key in snapshot.documents})
    return f"{missing[0]} is gone from the store, and no audit record has deleted it" if missing else None


def _same(one: Body, other: Body | None) -> bool:
    """For Python 1, 1.0 and True are the same."""
    return one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def record_to_json(record: AuditRecord) -> dict[str, Any]:
    entry = record.entry
    return {
        "sequence": record.sequence,
        "at": record.at,
        "revision": record.revision,
        "actor": entry.actor,
        "token": entry.token,
        "action": entry.action,
        "subject": entry.subject,
        "reason": entry.reason,
        "detail": _plain(entry.detail),
        "before": _plain(record.before),
        "after": _plain(record.after),
        "previous": record.previous,
        "digest": record.digest,
    }


def _plain(body: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if body is None else dict(body)
