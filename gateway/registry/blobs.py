"""Files stored once, by the SHA-256 of their bytes: ``ROOT/blobs/sha256/ab/abcd…``.

A blob is written under a temporary name in the same file system, fsynced, renamed, and its
directory fsynced: under its digest stands either the whole of it or nothing. Storing the same
bytes again puts a fresh, sound copy in place of the old one, which also heals damage.

Two locks keep neighbours apart, and the kernel lets go of both when a process dies. A writer holds its temporary
file, so that only files of dead writers are swept. Writers share ``blobs/lock``, which
``gateway.registry.collect`` takes alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from pathlib import Path
from typing import IO

from gateway.errors import IntegrityError
from gateway.registry.canonical import DIGEST_PREFIX
from gateway.registry.disk import explained, sync_folder
from gateway.registry.names import check_digest

__all__ = ["BlobCheck", "BlobEntry", "BlobState", "BlobStatistics", "BlobStore", "Progress", "Stored"]

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_CHUNK = 1024 * 1024
_TEMPORARY = "writing-"


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put made: the blob's digest (``sha256:…``) and size."""

    digest: str
    size_bytes: int

    @property
    def sha256(self) -> str:
        return self.digest.removeprefix(DIGEST_PREFIX)


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """``stored_at``: seconds since the epoch, when it was last put."""

    digest: str
    size_bytes: int
    stored_at: float


class BlobState(StrEnum):
    OK = "ok"
    MISSING = "missing"
    TRUNCATED = "truncated"
    ALTERED = "altered"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class BlobCheck:
    """What stands under a digest. ``found`` is the digest of the bytes there, None if none could be read."""

    digest: str
    state: BlobState
    found: str | None
    size_bytes: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BlobStatistics:
    blobs: int
    bytes: int


class BlobStore:
    """Blobs under ``root``, which is made if it is missing. Safe from several threads and processes.

    ``step`` is told ``created``, ``written``, ``synced``, ``renamed`` and ``recorded`` as a put goes
    through them; crash tests die there.
    """

    def __init__(self, root: Path, *, step: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self._blobs = root / "blobs"
        self._files = self._blobs / "sha256"
        self._temporary = self._blobs / "tmp"
        self._step = step
        with explained(f"open the artifact store {root}"):
            self._files.mkdir(parents=True, exist_ok=True)
            self._temporary.mkdir(exist_ok=True)
            self._sweep()

    def __repr__(self) -> str:
        return f"<BlobStore {self.root}>"

    def statistics(self) -> BlobStatistics:
        sizes = [entry.size_bytes for entry in self.entries()]
        return BlobStatistics(len(sizes), sum(sizes))

    def path(self, digest: str) -> Path:
        """Where the blob stands, or would; raises RegistryError if ``digest`` is none."""
        name = check_digest(digest).removeprefix(DIGEST_PREFIX)
        return self._files / name[:2] / name

    def entries(self) -> Iterator[BlobEntry]:
        """Every blob, in order of digest; one that is removed meanwhile is left out."""
        for file in sorted(self._files.glob(f"{'[0-9a-f]' * 2}/{'[0-9a-f]' * 64}")):
            found = self.entry(DIGEST_PREFIX + file.name)
            if found is not None:
                yield found

    def entry(self, digest: str) -> BlobEntry | None:
        try:
            status = self.path(digest).stat()
        except FileNotFoundError:
            return None
        return BlobEntry(digest, status.st_size, status.st_mtime)

    def digests(self) -> tuple[str, ...]:
        return tuple(entry.digest for entry in self.entries())

    def put_bytes(self, data: bytes) -> Stored:
        return self._put(BytesIO(data), len(data), f"{len(data)} bytes")

    def put_file(self, source: Path, progress: Progress | None = None, *, expected: str | None = None) -> Stored:
        """Stores a copy of the file. RegistryError when it cannot be read or there is no room for it.

        ``expected``: IntegrityError, and nothing stored, when the bytes have another digest.
        """
        with explained(f"read {source}"):
            file = source.open("rb")
        with file:
            return self._put(file, os.fstat(file.fileno()).st_size, str(source), progress, expected)

    def read(self, digest: str) -> bytes:
        """The bytes, hashed again; IntegrityError when they are missing or not what the digest names."""
        try:
            data = self.path(digest).read_bytes()
        except OSError as error:
            raise IntegrityError(
                f"{digest} cannot be read from the artifact store {self.root}: {error.strerror}. "
                "Restore it from a backup, or register the version again."
            ) from error
        found = DIGEST_PREFIX + hashlib.sha256(data).hexdigest()
        if found != digest:
            raise IntegrityError(
                f"{self.path(digest)} was altered: its bytes have digest {found}, expected {digest}. "
                "Restore it from a backup, or register the version again."
            )
        return data

    def verify(self, digest: str, size_bytes: int | None = None) -> BlobCheck:
        """Reads the blob to its end and says what is there; ``size_bytes`` tells truncated from altered."""
        try:
            with self.path(digest).open("rb") as file:
                found = DIGEST_PREFIX + hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except FileNotFoundError:
            return BlobCheck(digest, BlobState.MISSING, None, 0)
        except OSError as error:
            return BlobCheck(digest, BlobState.UNREADABLE, None, 0, str(error))
        if found == digest:
            return BlobCheck(digest, BlobState.OK, found, size)
        short = size_bytes is not None and size < size_bytes
        return BlobCheck(digest, BlobState.TRUNCATED if short else BlobState.ALTERED, found, size)

    def delete(self, digest: str) -> int:
        """Removes a blob; the bytes freed, 0 if there was none."""
        path = self.path(digest)
        with explained(f"remove {path}"):
            try:
                size = path.stat().st_size
                path.unlink()
            except FileNotFoundError:
                return 0
        return size

    def copy_to(self, target: Path, progress: Progress | None = None) -> BlobStatistics:
        """Copies every blob into a store at ``target``; IntegrityError if one of them is damaged here.

        What the target has already, and sound, is not written again.
        """
        copy, total, done = BlobStore(target), self.statistics().bytes, 0
        for entry in self.entries():
            if copy.verify(entry.digest).state is not BlobState.OK:
                copy.put_file(self.path(entry.digest), expected=entry.digest)
            done += entry.size_bytes
            if progress is not None:
                progress(done, max(total, done))
        return copy.statistics()

    @contextmanager
    def registering(self) -> Iterator[None]:
        """While held, by any number of writers, nothing is collected.

        A registration holds it from its first put until the document that refers to it is durable.
        """
        with self._lock() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def collecting(self) -> Iterator[bool]:
        """Alone with the blobs; gives False at once, without waiting, while any writer is under way."""
        with self._lock() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone = False
            else:
                alone = True
            yield alone

    @contextmanager
    def _lock(self) -> Iterator[int]:
        with explained(f"lock the artifact store {self.root}"):
            lock = os.open(self._blobs / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lock
        finally:
            os.close(lock)

    def _put(
        self, source: IO[bytes], size: int, what: str, progress: Progress | None = None, expected: str | None = None
    ) -> Stored:
        with self.registering(), explained(f"store {what} in {self.root}", "Nothing of it was stored; "):
            handle, name = self._open_temporary()
            try:
                with os.fdopen(handle, "wb") as file:
                    stored = self._copy(source, file, size, progress)
                    if expected not in (None, stored.digest):
                        raise IntegrityError(f"{what} was altered: its digest is {stored.digest}, expected {expected}")
                    self._place(name, stored.digest)
            except BaseException:
                with suppress(FileNotFoundError):
                    name.unlink()
                raise
        return stored

    def _open_temporary(self) -> tuple[int, Path]:
        while True:
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=self._temporary)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:  # else a sweep took it for a dead writer's, between the two calls
                self._step("created")
                return handle, Path(name)
            os.close(handle)

    def _copy(self, source: IO[bytes], file: IO[bytes], size: int, progress: Progress | None) -> Stored:
        digest, done = hashlib.sha256(), 0
        while chunk := source.read(_CHUNK):
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, max(size, done))
        file.flush()
        self._step("written")
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
        self._step("synced")
        return Stored(DIGEST_PREFIX + digest.hexdigest(), done)

    def _place(self, name: Path, digest: str) -> None:
        target = self.path(digest)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            sync_folder(self._files)
        name.rename(target)
        self._step("renamed")
        sync_folder(target.parent)
        self._step("recorded")

    def _sweep(self) -> None:
        """Removes what dead writers left; a living one holds its file's lock."""
        for name in self._temporary.glob(f"{_TEMPORARY}*"):
            with suppress(FileNotFoundError, BlockingIOError), name.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                name.unlink()
