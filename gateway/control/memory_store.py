"""A store that forgets: the whole interface in memory, for tests, demonstrations and embedding."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence

from gateway.clock import Clock, SystemClock
from gateway.control.audit import GENESIS, seal
from gateway.control.store import AuditEntry, AuditRecord, Body, Change, Document, DocumentKey, Fence, Snapshot, Terms
from gateway.errors import StaleRevision, StoreUnavailable

__all__ = ["MemoryStore"]


class MemoryStore:
    """``fail`` plays the outage of a store: every call, watches under way too, raises StoreUnavailable."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._outage: str | None = None
        self._clock = clock or SystemClock()
        self._revision = 0
        self._past: dict[DocumentKey, list[Document]] = {}
        self._audit: list[AuditRecord] = []
        self._terms = Terms()
        self._changed: set[asyncio.Event] = set()

    def __repr__(self) -> str:
        state = "up" if self._outage is None else "down"
        return f"<MemoryStore [{state} | revision {self._revision} | {len(self._living())} documents]>"

    def _reach(self) -> None:
        if self._outage is not None:
            raise StoreUnavailable(self._outage)

    def fail(self, why: str | None) -> None:
        """From now on; None ends the outage."""
        self._outage = why
        self._wake()

    def _wake(self) -> None:
        for event in self._changed:
            event.set()

    def _living(self) -> dict[DocumentKey, Document]:
        return {key: past[-1] for key, past in self._past.items() if past[-1].body is not None}

    async def snapshot(self) -> Snapshot:
        self._reach()
        return Snapshot(self._revision, self._living())

    async def read(self, key: DocumentKey) -> Document | None:
        self._reach()
        return self._living().get(key)

    async def commit(
        self, changes: Sequence[Change], entry: AuditEntry, *, at: int | None = None, fence: Fence | None = None
    ) -> int:
        self._reach()
        self._terms.pass_through(fence)
        living = self._living()
        if at is not None and at != self._revision:
            raise StaleRevision(f"the state stands at revision {self._revision}, the change was judged at {at}")
        for change in changes:
            found = living[change.key].revision if change.key in living else 0
            if found != change.expected:
                raise StaleRevision(f"{change.key} stands at revision {found}, the change expects {change.expected}")
        self._write(changes, entry, living)
        self._wake()
        return self._revision

    def _write(self, changes: Sequence[Change], entry: AuditEntry, living: dict[DocumentKey, Document]) -> None:
        revision, now = self._revision + 1, self._clock.wall()
        before: Body = {str(c.key): living[c.key].body if c.key in living else None for c in changes}
        after: Body = {str(c.key): copy.deepcopy(c.body) for c in changes}
        record = seal(
            sequence=revision,
            at=now,
            revision=revision,
            entry=entry,
            before=before,
            after=after,
            previous=self._audit[-1].digest if self._audit else GENESIS,
        )
        for change in changes:
            document = Document(change.key, revision, after[str(change.key)], now)
            self._past.setdefault(change.key, []).append(document)
        self._audit.append(record)
        self._revision = revision

    async def history(self, key: DocumentKey, *, limit: int = 100) -> Sequence[Document]:
        self._reach()
        return tuple(reversed(self._past.get(key, ())))[:limit]

    async def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRecord]:
        self._reach()
        return tuple(self._audit[after : after + limit])

    async def watch(self, after: int) -> AsyncIterator[int]:
        event = asyncio.Event()
        self._changed.add(event)
        try:
            while True:
                event.clear()
                self._reach()
                if self._revision > after:
                    after = self._revision
                    yield after
                else:
                    await event.wait()
        finally:
            self._changed.discard(event)

    async def close(self) -> None:
        """Nothing to give back."""
