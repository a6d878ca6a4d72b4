"""One change of one document: read, decide, compare-and-set, and again if somebody was faster.

A decision looks at the whole snapshot (a route at its model, an archive at all routes), so the
commit demands that the state revision it was judged by still stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.control.store import AuditEntry, Body, Change, Document, DocumentKey, Fence, Snapshot, Store
from gateway.errors import StaleRevision, StoreUnavailable

__all__ = ["EXISTING", "Changes", "Decision", "Written"]

MAX_RACES = 100
EXISTING = -1
"""Expected: any revision, but there has to be one."""


@dataclass(frozen=True, slots=True)
class Decision:
    """``body`` None deletes. The same body as before writes nothing. ``beside``: what is written with it, or not at
    all."""

    body: Body | None
    entry: AuditEntry
    beside: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Written:
    """``revision`` is the document's; ``changed`` False: it was so already."""

    revision: int
    changed: bool


class Changes:
    """Writes documents for operators."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(
        self,
        key: DocumentKey,
        decide: Callable[[Snapshot], Decision],
        *,
        expected: int | None = None,
        fence: Fence | None = None,
    ) -> Written:
        """``expected`` is the revision the caller has seen (0: none): StaleRevision when the document is not there.
        ``fence``: Fenced, and nothing written, when its term has ended.

        Raises what ``decide`` raises, and StoreUnavailable. Cancelling it does not undo a commit under way.
        """
        for _ in range(MAX_RACES):
            snapshot = await self._store.snapshot()
            found = snapshot.documents.get(key)
            check_expected(key, found, expected)
            standing = 0 if found is None else found.revision
            decision = decide(snapshot)
            if decision.body == (None if found is None else found.body):
                return Written(standing, changed=False)
            change = Change(key, decision.body, standing)
            try:
                revision = await self._store.commit(
                    [change, *decision.beside], decision.entry, at=snapshot.revision, fence=fence
                )
            except StaleRevision:
                continue
            return Written(revision, changed=True)
        raise StoreUnavailable(f"{key}: {MAX_RACES} tries to write it were too late; the state changes too fast")


def check_expected(key: DocumentKey, found: Document | None, expected: int | None) -> None:
    standing = 0 if found is None else found.revision
    if expected == EXISTING:
        if found is None:
            raise StaleRevision(
                f"{key} does not exist, the change expects one that does; leave If-Match out to make it"
            )
    elif expected is not None and expected != standing:
        state = f"stands at revision {standing}" if standing else "does not exist"
        raise StaleRevision(f"{key} {state}, the change expects revision {expected}; read it again, then change it")
