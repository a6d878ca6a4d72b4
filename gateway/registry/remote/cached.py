"""The artifact store at a URL, behind a bounded local cache: a BlobStore like any other to those who use it.

The object store has the truth. The folder on this machine is a cache of it, in the same form and under the same names;
it is proved by its digest whenever it is read, and fetched again when it does not fit. What was not asked for for
longest goes first when room is needed; a file that was handed out within ``hold_s`` stays, since a load may be about to
open it. What is only read here, or sent, holds no room: a transfer of more than the cache may hold goes past it. A blob
counts as stored once the object store has it and has given it back unaltered.

Several machines may share one URL if they share one catalogue (a store in Redis): collecting garbage knows one
catalogue only. The locks of BlobStore keep the processes of one machine apart; between machines it is the age of a blob
that protects it (see ``RemoteBlobs.put``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import IntegrityError, NotFound, RegistryError
from gateway.registry.blob_records import BlobCheck, BlobEntry, BlobState, BlobStatistics, Stored
from gateway.registry.blobs import BlobStore
from gateway.registry.disk import explained
from gateway.registry.remote.objects import ObjectStore
from gateway.registry.remote.remote_blobs import RemoteBlobs
from gateway.registry.sealing.forms import PLAIN, Form, digest_in

__all__ = ["CacheStatistics", "CachedBlobStore"]

_OPENING_S = 10.0
"""For so long a file stays that this process is about to read."""


class _CacheFull(RegistryError):
    """Of files that may not go yet."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """Of the folder, and of this process's reads: found whole, fetched, found altered and fetched again, removed."""

    blobs: int
    bytes: int
    hits: int
    fetches: int
    healed: int
    evicted: int


class CachedBlobStore(BlobStore):
    """``root`` is the cache's folder and holds nothing that is not in the object store. Safe from several threads."""

    def __init__(
        self,
        root: Path,
        objects: ObjectStore,
        *,
        cache_bytes: int,
        hold_s: float = 180.0,
        form: Form = PLAIN,
        step: Callable[[str], None] = lambda _: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(root, form=form, step=step)
        self.remote = RemoteBlobs(objects, self._temporary, form)
        self._most = cache_bytes
        self._hold_s = hold_s
        self._now = now
        self._guard = threading.Lock()
        self._proved: dict[str, tuple[tuple[int, ...], float]] = {}  # what a file looked like when it was hashed, when
        self._fetching: dict[str, threading.Lock] = {}
        self._coming = 0  # bytes that have been given room and are not in the folder yet; under the guard
        self._counts = {"hits": 0, "fetches": 0, "healed": 0, "evicted": 0}

    @property
    def lasting(self) -> bool:
        return False

    @property
    def where(self) -> str:
        return self.remote.objects.place.url

    def close(self) -> None:
        super().close()
        self.remote.objects.close()

    def cache_statistics(self) -> CacheStatistics:
        held = list(self._held())
        return CacheStatistics(len(held), sum(status.st_size for _, status in held), **self._counts)

    def path(self, digest: str) -> Path:
        """Fetched first, if it is not here or no longer sound. Raises IntegrityError, RegistryError."""
        path = self._found(digest, self._hold_s)
        with self._readable(digest):
            return self.form.local(path, digest)

    def read(self, digest: str) -> bytes:
        with self._to_read(digest) as path:
            return self._bytes_in(path, digest)

    def stream(self, digest: str) -> Iterator[bytes]:
        with self._to_read(digest) as path:
            yield from self._chunks_in(path, digest)

    def entries(self) -> Iterator[BlobEntry]:
        """Of the object store, in order of digest."""
        yield from self.remote.entries()

    def entry(self, digest: str) -> BlobEntry | None:
        return self.remote.entry(digest)

    def statistics(self) -> BlobStatistics:
        sizes = [entry.size_bytes for entry in self.remote.entries()]
        return BlobStatistics(len(sizes), sum(sizes))

    def verify(self, digest: str, size_bytes: int | None = None) -> BlobCheck:
        """The object, read over the network; a cached copy that does not fit is dropped."""
        if self.standing(digest).exists() and super().verify(digest, size_bytes).state is not BlobState.OK:
            super().delete(digest)
        return self.remote.verify(digest, size_bytes)

    @contextmanager
    def at_rest(self, digest: str) -> Iterator[Path]:
        """As the object store has it, whatever the cache has."""
        with self.remote.fetched(digest) as path:
            yield path

    def reseal(self, digest: str) -> Stored:
        """At the object store, where it is sent however young it is; the cache fetches it again."""
        size = 0

        def counted(chunks: Iterator[bytes]) -> Iterator[bytes]:
            nonlocal size
            for chunk in chunks:
                size += len(chunk)
                yield chunk

        with self.remote.fetched(digest) as path:
            self.remote.send(digest, counted(self._chunks_in(path, digest)), None)
        super().delete(digest)
        return Stored(digest, size)

    def refresh(self, digest: str) -> None:
        now = self._now()
        if self.remote.young(digest, now=now) is None:
            with self.remote.fetched(digest) as path:
                self.remote.put(digest, path, now=now)

    def delete(self, digest: str) -> int:
        entry = self.remote.entry(digest)
        super().delete(digest)
        if entry is None:
            return 0
        self.remote.delete(digest)
        return entry.size_bytes

    def _place(self, name: Path, digest: str) -> None:
        """The object store first: what stands in the cache is also there."""
        size = name.stat().st_size
        self._check_size(digest, size)
        self.remote.put(digest, name, now=self._now())
        try:
            with self._room(size):
                super()._place(name, digest)
        except _CacheFull:
            name.unlink()  # it is stored; whoever loads it fetches it
            return
        self._touch(digest, 0.0, fresh=True)

    @contextmanager
    def _to_read(self, digest: str) -> Iterator[Path]:
        """Out of the cache; past it where it is full of what loads need."""
        path: Path | None
        try:
            path = self._found(digest, min(_OPENING_S, self._hold_s))
        except _CacheFull:
            path = None
        if path is not None:
            yield path
            return
        with self.remote.fetched(digest) as fresh:
            yield fresh

    def _found(self, digest: str, for_s: float) -> Path:
        """Sound and here, and it stays for so long."""
        path = self.standing(digest)
        with self._guard:
            lock = self._fetching.setdefault(digest, threading.Lock())
        with lock:
            self._ensure(digest, path, for_s)
        return path

    def _ensure(self, digest: str, path: Path, for_s: float) -> None:
        state = self._state(digest, path)
        if state is BlobState.OK:
            self._counts["hits"] += 1
            self._touch(digest, for_s)
            if path.exists():  # else another process made room just before
                return
        elif state is not BlobState.MISSING:
            self._counts["healed"] += 1
            super().delete(digest)
        self._fetch(digest, path, for_s)

    def _state(self, digest: str, path: Path) -> BlobState:
        """Hashed at each asking, but for the second of two within ``hold_s`` on a file that nobody has touched."""
        try:
            seen = _looks(path)
            known = self._proved.get(digest)
            if known is not None and known[0] == seen and self._now() - known[1] < self._hold_s:
                return BlobState.OK
            with path.open("rb") as file:
                sound = digest_in(self.form, file) == digest
        except FileNotFoundError:
            return BlobState.MISSING
        if not sound:
            return BlobState.ALTERED
        self._proved[digest] = (seen, self._now())
        return BlobState.OK

    def _fetch(self, digest: str, path: Path, for_s: float) -> None:
        try:
            entry = self.remote.objects.stat(self.remote.name(digest))
            if entry is None:
                raise NotFound("it is not there")
            self._check_size(digest, entry.size_bytes)
            with self._room(entry.size_bytes), self.remote.fetched(digest) as fresh:
                self._keep(fresh, digest)
        except NotFound as error:
            raise IntegrityError(
                f"{digest} is missing from the artifact store {self.where}: {error}. Push the version there again "
                "from a store that has it, or register it again."
            ) from error
        self._counts["fetches"] += 1
        self._touch(digest, for_s, fresh=True)
        with suppress(FileNotFoundError):
            self._proved[digest] = (_looks(path), self._now())

    def _keep(self, fresh: Path, digest: str) -> None:
        with explained(f"keep {digest} in {self.root}"):
            fresh.chmod(0o444)
            with fresh.open("rb") as file:
                os.fsync(file.fileno())
            super()._place(fresh, digest)

    def _touch(self, digest: str, for_s: float, *, fresh: bool = False) -> None:
        """Notes the use in the file's time, so that every process sees that it is to stay ``for_s``: it may go
        ``hold_s`` after that time. (Not in the access time, which any reading sets.) Of a ``fresh`` file it means
        nothing yet; else a longer stay that was given before is kept."""
        path, used_ns = self.standing(digest), int((self._now() - self._hold_s + for_s) * 1e9)
        with suppress(FileNotFoundError, PermissionError):
            status = path.stat()
            used_ns = used_ns if fresh else max(used_ns, status.st_mtime_ns)
            os.utime(path, ns=(status.st_atime_ns, used_ns))
            if digest in self._proved:
                self._proved[digest] = (_looks(path), self._proved[digest][1])

    def _check_size(self, digest: str, size: int) -> None:
        if size > self._most:
            raise RegistryError(
                f"{digest} has {size} bytes, and the cache of {self.where} in {self.root} may hold {self._most} "
                "(registry.cache_bytes); raise it"
            )

    @contextmanager
    def _room(self, size: int) -> Iterator[None]:
        """Kept for what comes until it is there, so that several who fetch at once do not take the same room."""
        with self._guard:
            self._make_room(size)
            self._coming += size
        try:
            yield
        finally:
            with self._guard:
                self._coming -= size

    def _make_room(self, size: int) -> None:
        """Under the guard."""
        held = sorted(self._held(), key=lambda pair: pair[1].st_mtime)
        total = self._coming + sum(status.st_size for _, status in held)
        for path, status in held:
            if total + size <= self._most:
                return
            if self._now() - status.st_mtime >= self._hold_s:
                path.unlink(missing_ok=True)
                total -= status.st_size
                self._counts["evicted"] += 1
        if total + size > self._most:
            raise _CacheFull(
                f"the cache in {self.root} is full: {total} of {self._most} bytes were asked for within the last "
                f"{self._hold_s:g} s, and {size} more are needed. Try again then, or raise registry.cache_bytes"
            )

    def _held(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._files.glob("??/*"):
            with suppress(FileNotFoundError):
                yield path, path.stat()


def _looks(path: Path) -> tuple[int, ...]:
    """Any of these changes with the file."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
