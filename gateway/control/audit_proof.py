"""Proof of an audit chain from anywhere: the store, a gateway, or an exported file; also against checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from gateway.checkpoints import Checkpoint
from gateway.control.audit import GENESIS, Verification, record_to_json, verify
from gateway.control.store import Actor, AuditEntry, AuditRecord
from gateway.errors import InvalidInput

__all__ = ["ChainProof", "Proved", "read_export", "record_from_json"]


@dataclass(frozen=True, slots=True)
class Proved:
    """``verification.fault`` None: the records from ``first`` on follow from each other. That they are those that were
    written only ``agreed`` checkpoints tell, as far as ``signed``, the newest of them: the seals need no secret."""

    verification: Verification
    agreed: int
    first: int = 1
    signed: Checkpoint | None = None

    def to_json(self) -> dict[str, Any]:
        signed = None if self.signed is None else {"records": self.signed.size, "at": self.signed.at}
        return {**self.verification.to_json(), "first": self.first, "checkpoints": self.agreed, "signed": signed}


class ChainProof:
    """Give it the records in their order, in pages, then ask for the ``result``. ``start``: where the kept chain
    begins, if not with the first record; without it, only a checkpoint of what came before vouches for such a one."""

    def __init__(self, checkpoints: Iterable[Checkpoint] = (), start: Verification | None = None) -> None:
        self._pending = sorted(checkpoints, key=lambda checkpoint: (checkpoint.size, checkpoint.at))
        self._state = start
        self._first = 1
        self._agreed = 0
        self._signed: Checkpoint | None = None
        if start is not None:
            self._begin(start)
        for one, other in pairwise(self._pending):
            if one.size == other.size and one.head != other.head:
                self.spoil(
                    f"{_of(one)} and {_of(other)} name different heads for record {one.size}: two histories were "
                    "signed, so at most one of them is true"
                )
                break

    @property
    def records(self) -> int:
        return 0 if self._state is None else self._state.records

    @property
    def fault(self) -> str | None:
        return None if self._state is None else self._state.fault

    def take(self, records: Sequence[AuditRecord]) -> None:
        if self._state is None and records and records[0].sequence > 1:
            before = Verification(records[0].sequence - 1, records[0].previous)
            if any((point.size, point.head) == (before.records, before.head) for point in self._pending):
                self._begin(before)
        for record in records:
            if self.fault is not None:
                return
            self._state = verify([record], self._state)
            if self.fault is None:
                self._compare(record.sequence, record.digest)

    def spoil(self, fault: str) -> None:
        """What should have been the next record is none."""
        state = self._state or verify(())
        if state.fault is None:
            self._state = replace(state, fault=fault)

    def _begin(self, start: Verification) -> None:
        """Where a checkpoint names this very beginning, older ones are of what is not here."""
        self._state, self._first = start, start.records + 1
        if any((point.size, point.head) == (start.records, start.head) for point in self._pending):
            self._pending = [point for point in self._pending if point.size >= start.records]
        self._compare(start.records, start.head)

    def _compare(self, size: int, head: str) -> None:
        while self._pending and self._pending[0].size <= size:
            checkpoint = self._pending.pop(0)
            if checkpoint.size < size:
                self.spoil(f"{_of(checkpoint)} lies before record {size}, with which the chain kept here begins")
            elif checkpoint.head != head:
                since = 0 if self._signed is None else self._signed.size
                self.spoil(
                    f"audit record {size} is not the one that {_of(checkpoint)} names: the chain was written anew, "
                    f"from a record after {since} on"
                )
            else:
                self._agreed += 1
                self._signed = checkpoint

    def result(self) -> Proved:
        """At the end of the chain: a checkpoint that is still ahead of it tells that its end is missing."""
        state = self._state or verify(())
        if state.fault is None and self._pending:
            ahead = self._pending[-1]
            lost = ahead.size - state.records
            self.spoil(
                f"the audit chain ends at record {state.records}, and {_of(ahead)} names {ahead.size}: "
                f"its last {lost} record{'s are' if lost > 1 else ' is'} missing"
            )
        return Proved(self._state or state, self._agreed, self._first, self._signed)


def _of(checkpoint: Checkpoint) -> str:
    return f"the checkpoint of {datetime.fromtimestamp(checkpoint.at, UTC):%Y-%m-%d %H:%M:%S} UTC"


_FIELDS = frozenset(record_to_json(AuditRecord(1, 0, 1, AuditEntry("", "", ""), None, None, GENESIS, GENESIS)))


def record_from_json(body: object) -> AuditRecord:
    """What ``record_to_json`` made. Raises InvalidInput."""
    if not isinstance(body, Mapping):
        raise InvalidInput(f"an audit record is an object, not a {type(body).__name__}")
    strange = [name for name in body if name not in _FIELDS]
    if strange:
        raise InvalidInput(f"not an audit record: {strange[0]!r:.60} is no field of one, and under no seal")
    try:
        texts = [_text(body[name]) for name in ("actor", "action", "subject", "reason", "previous", "digest")]
        actor, action, subject, reason, previous, digest = texts
        token = None if body.get("token") is None else _text(body["token"])
        sequence, revision, at = body["sequence"], body["revision"], body["at"]
        if type(sequence) is not int or type(revision) is not int or type(at) not in (int, float):
            raise TypeError("sequence and revision are whole numbers, at is a number")
        detail, before, after = (_object(body[name]) for name in ("detail", "before", "after"))
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"not an audit record: {error}") from None
    entry = AuditEntry(Actor(actor, token), action, subject, reason, detail)
    return AuditRecord(sequence, at, revision, entry, before, after, previous, digest)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} is no text")
    return value


def _object(value: object) -> Mapping[str, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.60} is no object")
    return value


def read_export(lines: Iterable[str], proof: ChainProof) -> Proved:
    """The proof of an exported file: one record a line."""
    for number, line in enumerate(lines, start=1):
        if proof.fault is not None:
            break
        try:
            proof.take([record_from_json(json.loads(line))])
        except (InvalidInput, ValueError, RecursionError) as error:
            proof.spoil(f"line {number}, in the place of audit record {proof.records + 1}, cannot be read: {error}")
    found = proof.result()
    if found.verification.fault is None and not found.verification.records:  # there is none without a first token
        return replace(found, verification=replace(found.verification, fault="the export holds no record"))
    return found
