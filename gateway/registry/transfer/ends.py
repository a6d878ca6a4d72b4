"""The two ends of a transfer: the blobs of a home, and an object store. Both prove what they take by its digest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from gateway.errors import IntegrityError, NotFound, RegistryError, TurnoutError
from gateway.registry.blob_records import BlobState
from gateway.registry.blobs import BlobStore
from gateway.registry.remote.objects import Told
from gateway.registry.remote.remote_blobs import RemoteBlobs
from gateway.registry.transfer.records import ALIASES, VERSIONS, AliasRecord, VersionRecord

__all__ = ["BlobEnd", "End", "Listing", "Piece", "RemoteEnd"]

_Record = TypeVar("_Record")

_ASK_EACH = 64
"""So many blobs are asked for one by one; for more, the store is listed once."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One blob on its way: a plain file where there is one, and its bytes in any case."""

    digest: str
    size_bytes: int
    chunks: Callable[[], Iterator[bytes]]
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a store says of its versions and of where aliases stood. ``unreadable`` names each object of which nothing
    can be taken, and why: others can write to a store, and one of them keeps no other version from anybody."""

    records: Sequence[VersionRecord]
    aliases: Mapping[tuple[str, str], str]
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def about(self, models: Collection[str] | None) -> Mapping[str, str]:
        """What is unreadable and may be about these models; None: about any."""
        return {name: why for name, why in self.unreadable.items() if models is None or name.split("/")[1] in models}


class End(Protocol):
    """Safe from several threads. Calls block and may raise RegistryError, IntegrityError, NotFound."""

    @property
    def where(self) -> str: ...

    def holds(self, wanted: Collection[tuple[str, int]]) -> frozenset[str]:
        """Those of these blobs (digest, size) that need not be sent."""
        ...

    def still(self, found: Collection[tuple[str, int]]) -> frozenset[str]:
        """Those that were found by ``holds`` and have not been collected as garbage since."""
        ...

    def read(self, digest: str) -> bytes:
        """A manifest."""
        ...

    def give(self, digest: str, size_bytes: int) -> AbstractContextManager[Piece]: ...

    def take(self, piece: Piece, told: Told) -> None:
        """There as a whole when this returns, and proved; before that, nothing can be seen of it."""
        ...

    def note(self, record: VersionRecord) -> None:
        """All that it names has been taken."""
        ...


class BlobEnd:
    """A home's. Its catalogue is not its own: ``noted`` gets what has arrived."""

    def __init__(self, blobs: BlobStore, noted: Callable[[VersionRecord], None] = lambda _: None) -> None:
        self._blobs = blobs
        self._noted = noted

    @property
    def where(self) -> str:
        return self._blobs.where

    def holds(self, wanted: Collection[tuple[str, int]]) -> frozenset[str]:
        """Hashed: a damaged blob is sent again, which heals it. What is there becomes young again: it may be garbage
        until the version that it is wanted for is in the catalogue."""
        found = frozenset(digest for digest, size in wanted if self._blobs.verify(digest, size).state is BlobState.OK)
        for digest in found:
            self._blobs.refresh(digest)
        return found

    def still(self, found: Collection[tuple[str, int]]) -> frozenset[str]:
        """All: ``holds`` has made them young."""
        return frozenset(digest for digest, _ in found)

    def read(self, digest: str) -> bytes:
        return self._blobs.read(digest)

    @contextmanager
    def give(self, digest: str, size_bytes: int) -> Iterator[Piece]:
        path = self._blobs.path(digest) if self._blobs.form.plain else None
        yield Piece(digest, size_bytes, lambda: self._blobs.stream(digest), path)

    def take(self, piece: Piece, told: Told) -> None:
        self._blobs.put_chunks(
            piece.chunks(), piece.size_bytes, expected=piece.digest, progress=lambda done, _: told(done)
        )

    def note(self, record: VersionRecord) -> None:
        self._noted(record)


class RemoteEnd:
    """An object store, with the records of what is in it."""

    def __init__(self, remote: RemoteBlobs) -> None:
        self.remote = self._remote = remote
        self._objects = remote.objects

    @property
    def where(self) -> str:
        return self._objects.place.url

    def holds(self, wanted: Collection[tuple[str, int]]) -> frozenset[str]:
        """Those of this size: each was read back when it was sent (``turnout verify --store`` reads them again)."""
        if len(wanted) <= _ASK_EACH:
            found = {digest: self._remote.entry(digest) for digest, _ in wanted}
        else:
            listed = {entry.digest: entry for entry in self._remote.entries()}
            found = {digest: listed.get(digest) for digest, _ in wanted}
        sizes = {digest: entry.size_bytes for digest, entry in found.items() if entry is not None}
        return frozenset(digest for digest, size in wanted if sizes.get(digest) == size)

    def still(self, found: Collection[tuple[str, int]]) -> frozenset[str]:
        return self.holds(found) if found else frozenset()

    def read(self, digest: str) -> bytes:
        return self._remote.read(digest)

    @contextmanager
    def give(self, digest: str, size_bytes: int) -> Iterator[Piece]:
        with self._remote.fetched(digest) as path:

            def chunks() -> Iterator[bytes]:
                with path.open("rb") as file:
                    yield from self._remote.form.chunks(file)

            yield Piece(digest, size_bytes, chunks, path if self._remote.form.plain else None)

    def take(self, piece: Piece, told: Told) -> None:
        self._remote.send(piece.digest, piece.chunks(), piece.path, told)

    def note(self, record: VersionRecord) -> None:
        self._objects.write(record.name, record.to_bytes().decode())

    def note_alias(self, alias: AliasRecord) -> None:
        self._objects.write(alias.name, alias.to_bytes().decode())

    def listing(self) -> Listing:
        """RegistryError where the store itself cannot be read."""
        unreadable: dict[str, str] = {}
        records = list(self._parsed(VERSIONS, VersionRecord.from_bytes, unreadable))
        aliases = list(self._parsed(ALIASES, AliasRecord.from_bytes, unreadable))
        return Listing(records, {(one.model, one.alias): one.digest for one in aliases}, unreadable)

    def records(self) -> Sequence[VersionRecord]:
        """All of them, or RegistryError: what keeps files of a store from being swept is not left out."""
        unreadable: dict[str, str] = {}
        records = list(self._parsed(VERSIONS, VersionRecord.from_bytes, unreadable))
        if unreadable:
            said = "; ".join(f"{self.where}/{name}: {why}" for name, why in unreadable.items())
            raise RegistryError(f"what these versions hold cannot be read, so that nothing can be freed: {said}")
        return records

    def _parsed(
        self, under: str, parse: Callable[[bytes, str], _Record], unreadable: dict[str, str]
    ) -> Iterator[_Record]:
        for row in self._objects.list(under):
            if not row.name.endswith(".json"):
                continue
            try:
                data = self._objects.read(row.name)
            except (IntegrityError, NotFound) as error:  # of this object; another fault is the store's
                unreadable[row.name] = str(error)
                continue
            if data is None:
                unreadable[row.name] = "it went while it was read; try again"
                continue
            try:
                yield parse(data, row.name)
            except TurnoutError as error:
                unreadable[row.name] = str(error)
