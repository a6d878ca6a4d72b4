"""The store of desired state in one Redis, for many replicas: documents, history and audit, changed by compare-and-set.

A commit reads what it is judged by, makes the audit record here (by the same code as every store), and writes all of
it in one script if the audit's head is still the one that it read. What is read is always what one moment was: each
reading is one script too, and a snapshot brings only what has changed since the last.

The store is believed only while it goes on from what was seen of it. One that comes back empty, older, or as another
is refused, by every call, until an operator decides (``gateway.control.store_recovery``).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

from gateway.clock import Clock, SystemClock
from gateway.control.audit import GENESIS, NULL, canonical, seal
from gateway.control.last_state import KnownState, LastState
from gateway.control.redis_line import RedisLine
from gateway.control.redis_records import (
    Place,
    Places,
    audit_entry,
    body_text,
    document_field,
    history_field,
    living_document,
    pack_body,
    parse_audit,
    past_base,
    past_documents,
    read_record,
    steps_of,
)
from gateway.control.redis_scripts import AUDIT, BEGIN, COMMIT, LOOK, NEWEST, PAST, SCHEMA, SNAPSHOT
from gateway.control.store import AuditEntry, AuditRecord, Change, Document, DocumentKey, Fence, Snapshot
from gateway.errors import Fenced, StaleRevision, StoreRefused, StoreUnavailable

__all__ = ["RedisStore"]

log = logging.getLogger("turnout.control")

MAX_RACES = 100
_LATE_S = 0.05
"""So much later than its commit may a message come."""
_PLACES_AT_ONCE = 200
"""Of past documents, in one reading."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """What a commit was judged by, and the record that it will write. ``bodies``: of each of its steps, whole and as
    it is kept."""

    identity: str
    revision: int
    head: str
    record: AuditRecord
    steps: Sequence[Place]
    bodies: Sequence[tuple[bytes, bytes]]


class RedisStore:
    """``last``: where this replica keeps the last state; without it, nothing is remembered beyond the process.

    ``poll_s``: how late a commit may be noticed whose message was lost.
    """

    def __init__(
        self, line: RedisLine, *, last: LastState | None = None, clock: Clock | None = None, poll_s: float = 1.0
    ) -> None:
        self._line = line
        self._last = last
        self._clock = clock or SystemClock()
        self._poll_s = poll_s
        self._known = KnownState()
        self._forked = False  # found by a snapshot, and ended by one
        self.refusal: str | None = None

    def __repr__(self) -> str:
        state = "refused" if self.refusal else "believed"
        return f"<RedisStore {self._line.address} [{state} | revision {self._known.revision}]>"

    @property
    def line(self) -> RedisLine:
        return self._line

    @property
    def known(self) -> KnownState:
        """The newest state seen."""
        return self._known

    def remember(self) -> KnownState | None:
        """Takes up what was kept of an earlier process; None when nothing was."""
        found = None if self._last is None else self._last.read()
        self._known = found or self._known
        return found

    async def open(self, *, make: bool = True) -> RedisStore:
        """Makes the store where there is none and none is known. ``make`` False: there must be one. Raises
        StoreUnavailable."""
        fresh = "" if self._known.identity or not make else uuid4().hex
        identity, revision, schema = await self._line.run(BEGIN, [self._line.key("state")], [fresh, GENESIS])
        if schema is not None and int(schema) > SCHEMA:
            raise StoreUnavailable(
                f"the store {self._line.address} has schema {int(schema)}, this program knows schemas up to {SCHEMA}: "
                "run the newer version of Turnout that wrote it"
            )
        self._admit(identity, revision, self._known)
        if identity is None:
            raise StoreUnavailable(
                f"the store {self._line.address} is empty, and the last state in the home, which is damaged, "
                "says that it was not: put its data back, or restore it from another replica; to begin anew, remove "
                "that file"
            )
        if not self._known.identity:
            self._known = KnownState(identity=identity.decode("ascii"))
        return self

    async def close(self) -> None:
        await self._line.close()

    def believe(self, state: KnownState) -> None:
        """From now on the store is measured by this state, by an operator's word."""
        self._known, self._forked, self.refusal = state, False, None
        if self._last is not None:
            self._last.anew()

    def _admit(self, identity: bytes | None, revision: bytes | None, known: KnownState) -> None:
        """Raises StoreRefused unless the store is the known one and has not gone back behind ``known``, which was the
        newest state when it was asked."""
        if not known.identity:
            return
        if identity is None or revision is None:
            self._refuse(f"it is empty, and held revision {known.revision}")
        elif identity.decode("ascii") != known.identity:
            self._refuse(f"it is another one (at revision {int(revision)}), not that which held {known.revision}")
        elif int(revision) < known.revision:
            self._refuse(f"it went back to revision {int(revision)} from {known.revision}")
        elif self._forked:
            self._refuse(f"its past is another one: its audit does not have revision {known.revision} as it was")
        else:
            self.refusal = None

    def _refuse(self, why: str) -> None:
        refusal = (
            f"the store {self._line.address} is not believed: {why}. What is in force goes on. Put its data back; or "
            "write a replica's state into it with turnout store restore-from-replica; or take it as it is, on each "
            "replica, with turnout store adopt"
        )
        if refusal != self.refusal:
            log.error("%s", refusal)
        self.refusal = refusal
        raise StoreRefused(refusal)

    def _keys(self, *names: str) -> list[str]:
        return [self._line.key(name) for name in names]

    async def _newest(self) -> int:
        known = self._known
        identity, revision = await self._line.run(NEWEST, self._keys("state"))
        self._admit(identity, revision, known)
        return 0 if revision is None else int(revision)

    async def snapshot(self) -> Snapshot:
        known = self._known
        arguments: list[str | bytes | int] = [known.identity, known.revision, known.head]
        answer = await self._line.run(SNAPSHOT, self._keys("state", "living", "order", "audit"), arguments)
        identity, revision, head, origin, origin_head, chain, *pairs = answer
        self._forked = chain == b"forked"
        self._admit(identity, revision, known)
        if identity is None:
            return Snapshot(0, {})
        documents = dict(known.documents) if chain == b"same" else {}
        for field, packed in zip(pairs[::2], pairs[1::2], strict=True):
            key = document_field(field)
            if packed is None:
                documents.pop(key, None)
            else:
                documents[key] = living_document(key, packed)
        state = KnownState(identity.decode("ascii"), int(revision), head.decode("ascii"), documents)
        await self._take(state)
        return Snapshot(state.revision, documents, (int(origin), origin_head.decode("ascii")))

    async def _take(self, state: KnownState) -> None:
        """On disk before it is served: after a restart this replica serves nothing older than it ever did."""
        if self._last is not None:
            await self._last.keep(state)
        if self._known.identity == state.identity and state.revision >= self._known.revision:
            self._known = state

    async def read(self, key: DocumentKey) -> Document | None:
        known = self._known
        identity, revision, _, _, found, _ = await self._line.run(
            LOOK, [*self._keys("state", "living", "state:none"), self._past(key)], [str(key)]
        )
        self._admit(identity, revision, known)
        return None if found is None else living_document(key, found)

    def _past(self, key: DocumentKey) -> str:
        """Where the document's revisions are listed."""
        return self._line.key("history", str(key))

    async def commit(
        self, changes: Sequence[Change], entry: AuditEntry, *, at: int | None = None, fence: Fence | None = None
    ) -> int:
        texts = [None if change.body is None else canonical(change.body).decode("ascii") for change in changes]
        for _ in range(MAX_RACES):
            judged = await self._judge(changes, texts, entry, at=at, fence=fence)
            if await self._write(judged, fence):
                return judged.record.revision
        raise StoreUnavailable(f"{MAX_RACES} tries to write to {self._line.address} were too late: it changes too fast")

    async def _judge(
        self,
        changes: Sequence[Change],
        texts: Sequence[str | None],
        entry: AuditEntry,
        *,
        at: int | None,
        fence: Fence | None,
    ) -> _Judged:
        known = self._known
        term = self._line.key("term", fence.post) if fence else self._line.key("state:none")
        fields = [str(change.key) for change in changes]
        keys = [*self._keys("state", "living"), term, *(self._past(change.key) for change in changes)]
        identity, revision, head, standing, *rows = await self._line.run(LOOK, keys, fields)
        self._admit(identity, revision, known)
        if identity is None:
            raise StoreUnavailable(f"the store {self._line.address} is empty: it was not opened, or was emptied since")
        if fence is not None and standing != str(fence.term).encode("ascii"):
            raise _fenced(fence, standing)
        if at is not None and at != int(revision):
            raise StaleRevision(f"the state stands at revision {int(revision)}, the change was judged at {at}")
        living = rows[::2]
        found = [None if row is None else living_document(c.key, row) for c, row in zip(changes, living, strict=True)]
        for change, old in zip(changes, found, strict=True):
            if (stands := 0 if old is None else old.revision) != change.expected:
                raise StaleRevision(f"{change.key} stands at revision {stands}, the change expects {change.expected}")
        steps = [(c.key, 0 if old is None else old.revision) for c, old in zip(changes, found, strict=True)]
        past = await self._kept([place for place, text in zip(steps, texts, strict=True) if place[1] and text])
        bases = [past_base(place, past, revisions) for place, revisions in zip(steps, rows[1::2], strict=True)]
        bodies = [pack_body(text, base) for text, base in zip(texts, bases, strict=True)]
        record = seal(
            sequence=int(revision) + 1,
            at=self._clock.wall(),
            revision=int(revision) + 1,
            entry=entry,
            before={str(c.key): None if old is None else old.body for c, old in zip(changes, found, strict=True)},
            after={str(change.key): change.body for change in changes},
            previous=head.decode("ascii"),
            texts=(
                {field: NULL if row is None else body_text(row) for field, row in zip(fields, living, strict=True)},
                {field: NULL if body == b"-" else body[1:] for field, (body, _) in zip(fields, bodies, strict=True)},
            ),
        )
        return _Judged(identity.decode("ascii"), int(revision), head.decode("ascii"), record, steps, bodies)

    async def _write(self, judged: _Judged, fence: Fence | None) -> bool:
        """False: somebody was faster. When the answer is lost, the audit's head tells whether it was written."""
        record = judged.record
        term = self._line.key("term", fence.post) if fence else self._line.key("state:none")
        keys = [*self._keys("state", "living", "order", "bodies", "audit"), term]
        keys += [self._past(key) for key, _ in judged.steps]
        arguments: list[str | bytes | int] = [judged.identity, judged.revision, judged.head]
        arguments += [record.revision, repr(record.at), record.digest, audit_entry(record, judged.steps)]
        arguments += [self._line.key("changed"), "" if fence is None else fence.term, ""]
        for (key, _), bodies in zip(judged.steps, judged.bodies, strict=True):
            arguments += [str(key), *bodies]
        try:
            outcome, detail = await self._line.run(COMMIT, keys, arguments, once=True)
        except StoreUnavailable:
            with suppress(StoreUnavailable):
                if await self._stands(record):
                    return True
            raise
        if outcome == b"fenced" and fence is not None:
            raise _fenced(fence, detail)
        if outcome == b"other":
            self._admit(detail or None, b"0", self._known)
        return bool(outcome == b"done")

    async def _stands(self, record: AuditRecord) -> bool:
        """Whether the record was written, though its answer was lost: Redis ended or was cut off just then."""
        rows = await self._line.run(AUDIT, self._keys("state", "audit"), [record.sequence - 1, 1])
        return bool(rows) and parse_audit(rows[0])["digest"] == record.digest

    async def history(self, key: DocumentKey, *, limit: int = 100) -> Sequence[Document]:
        await self._newest()
        if limit <= 0:
            return ()
        revisions = await self._line.command("LRANGE", self._past(key), -limit, -1)
        places = [(key, int(revision)) for revision in reversed(revisions)]
        found = await self._documents(places)
        return tuple(row for place in places if (row := found[place]) is not None)

    async def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRecord]:
        await self._newest()
        if limit <= 0:
            return ()
        raw = await self._line.run(AUDIT, self._keys("state", "audit"), [after, limit])
        rows = [parse_audit(row) for row in raw]
        steps = [(key, old, row["revision"]) for row in rows for key, old in steps_of(row)]
        found = await self._documents({(key, revision) for key, *revisions in steps for revision in revisions})
        return tuple(read_record(row, found) for row in rows)

    async def _documents(self, places: Iterable[Place]) -> Places:
        """As they were written at a revision; None for revision 0, and what is not there."""
        found: dict[Place, Document | None] = {}
        ordered = sorted(places)
        for start in range(0, len(ordered), _PLACES_AT_ONCE):
            part = ordered[start : start + _PLACES_AT_ONCE]
            found |= past_documents(part, await self._kept(part))
        return found

    async def _kept(self, places: Sequence[Place]) -> dict[str, bytes | None]:
        """What there is of them, and of what they are differences to, by ``history_field``."""
        if not places:
            return {}
        pairs = await self._line.run(PAST, self._keys("bodies"), [history_field(*place) for place in places])
        return {field.decode("utf-8"): kept for field, kept in zip(pairs[::2], pairs[1::2], strict=True)}

    async def watch(self, after: int) -> AsyncIterator[int]:
        while True:
            async with self._line.listening(self._line.key("changed")) as messages:
                heard = True
                while True:
                    newest = await self._newest()
                    if newest > after:
                        after = newest
                        yield newest
                        if not heard and not await messages.heard(_LATE_S):
                            break  # nothing comes over this subscription, and nothing says so: a new one
                    heard = await messages.heard(self._poll_s)


def _fenced(fence: Fence, standing: bytes | None) -> Fenced:
    now = "no term stands" if not standing else f"term {standing.decode('ascii')} stands"
    return Fenced(f"term {fence.term} of {fence.post!r} has ended ({now}): another leads, or nobody does")
