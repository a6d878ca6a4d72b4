"""The interface of the store of desired state: documents, changed by compare-and-set, each with its audit record.

One counter, the state revision, numbers every commit. A document's revision is that of the
commit that wrote it last. A commit answers only when it is durable.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

from gateway.errors import Fenced

__all__ = [
    "Actor",
    "AuditEntry",
    "AuditRecord",
    "Change",
    "Document",
    "DocumentKey",
    "Fence",
    "Snapshot",
    "Store",
    "Terms",
]

Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True, order=True)
class DocumentKey:
    """``kind`` is ``route``, ``model``, ``token`` or ``resident``. Written ``route/digits``."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Document:
    """``body`` None: the document was deleted at this revision."""

    key: DocumentKey
    revision: int
    body: Body | None
    written_at: float


@dataclass(frozen=True, slots=True)
class Change:
    """Write ``body`` (None deletes) if the document stands at ``expected`` (0: does not exist)."""

    key: DocumentKey
    body: Body | None
    expected: int


class Actor(str):
    """Who does something, by name; ``token_id`` tells which token it was done with, also after the name was given to
    another (the first digits of the secret's hash, of no use to anybody else), None where it was none."""

    __slots__ = ("token_id",)

    token_id: str | None

    def __new__(cls, name: str, token_id: str | None = None) -> Self:
        made = super().__new__(cls, name)
        made.token_id = token_id
        return made


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who does what and why. ``actor`` is a token's name or ``guard``, as an ``Actor`` where there is a token;
    ``detail`` is what the action is about, with the figures it was decided by under ``evidence``."""

    actor: str
    action: str
    subject: str
    reason: str = ""
    detail: Body | None = None

    @property
    def token(self) -> str | None:
        return self.actor.token_id if isinstance(self.actor, Actor) else None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An entry as stored; ``digest`` chains over ``previous``. ``sequence`` equals ``revision``.

    ``before`` and ``after`` map ``kind/name`` of each changed document to its body (None: not there).
    """

    sequence: int
    at: float
    revision: int
    entry: AuditEntry
    before: Body | None
    after: Body | None
    previous: str
    digest: str


@dataclass(frozen=True, slots=True)
class Fence:
    """The leader of ``post`` in ``term`` writes this, and nobody whose term has ended may."""

    post: str
    term: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every living document at one state revision. ``origin``: number and digest of the record that the kept audit
    chain follows, where its beginning is elsewhere; None: it is kept from the first."""

    revision: int
    documents: Mapping[DocumentKey, Document]
    origin: tuple[int, str] | None = None


class Terms:
    """The latest term that a store of one gateway has seen of each post. It need not outlive the process: the home
    has one gateway at a time, and a later one's terms are later."""

    __slots__ = ("_latest",)

    def __init__(self) -> None:
        self._latest: dict[str, int] = {}

    def pass_through(self, fence: Fence | None) -> None:
        """Raises Fenced when a later term of the post has passed."""
        if fence is None:
            return
        latest = self._latest.get(fence.post, fence.term)
        if latest > fence.term:
            raise Fenced(f"term {fence.term} of {fence.post!r} has ended: term {latest} has begun, and another leads")
        self._latest[fence.post] = fence.term


class Store(Protocol):
    """All calls raise StoreUnavailable when the store cannot be read or written (full disk, locked, gone).

    Cancelling ``commit`` does not undo it: it may or may not have happened.
    """

    async def snapshot(self) -> Snapshot: ...

    async def read(self, key: DocumentKey) -> Document | None:
        """The living document, or None."""
        ...

    async def commit(
        self, changes: Sequence[Change], entry: AuditEntry, *, at: int | None = None, fence: Fence | None = None
    ) -> int:
        """All or nothing; the new state revision. StaleRevision when any ``expected`` does not match.

        ``at``: also only while the state revision is still this one, for a change that was
        judged by other documents than those it writes. ``changes`` may be empty: then only
        the audit record is written. Every commit writes exactly one audit record.
        ``fence``: Fenced, before anything else is looked at, when a later term of the post is known.
        """
        ...

    async def history(self, key: DocumentKey, *, limit: int = 100) -> Sequence[Document]:
        """Past and present, newest first, deletions included."""
        ...

    async def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRecord]:
        """Records with ``sequence`` greater than ``after``, oldest first."""
        ...

    def watch(self, after: int) -> AsyncIterator[int]:
        """Yields a state revision greater than ``after`` whenever there is one, from any process; skips to the newest.

        Raises StoreUnavailable, and ends, when the store cannot be asked.
        """
        ...

    async def close(self) -> None: ...
