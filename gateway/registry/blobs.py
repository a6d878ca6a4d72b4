"""Files stored once, by the SHA-256 of their bytes: ``ROOT/blobs/sha256/ab/abcd…``.

A blob is written under a temporary name in the same file system, fsynced, renamed, and its
directory fsynced: under its digest stands either the whole of it or nothing. Storing the same
bytes again puts a fresh, sound copy in place of the old one, which also heals damage. What stands there is in the
store's *form*: the bytes as they are, or sealed (``gateway.registry.sealing``); the digest is that of the plain bytes.

Two locks keep neighbours apart, and the kernel lets go of both when a process dies. A writer holds its temporary
file, so that only files of dead writers are swept. Writers share ``blobs/lock``, which
``gateway.registry.collect`` takes alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO

from gateway.errors import IntegrityError
from gateway.registry.blob_records import BlobCheck, BlobEntry, BlobState, BlobStatistics, Progress, Stored
from gateway.registry.canonical import DIGEST_PREFIX
from gateway.registry.disk import explained, sync_folder
from gateway.registry.names import check_digest
from gateway.registry.sealing.forms import PLAIN, Chunks, Form, Readable, proved

__all__ = ["BlobCheck", "BlobEntry", "BlobState", "BlobStatistics", "BlobStore", "Progress", "Stored"]

_TEMPORARY = "writing-"


class BlobStore:
    """Blobs under ``root``, which is made if it is missing. Safe from several threads and processes.

    ``step`` is told ``created``, ``written``, ``synced``, ``renamed`` and ``recorded`` as a put goes
    through them; crash tests die there.
    """

    def __init__(self, root: Path, *, form: Form = PLAIN, step: Callable[[str], None] = lambda _: None) -> None:
        self.root = root
        self.form = form
        self._blobs = root / "blobs"
        self._files = self._blobs / "sha256"
        self._temporary = self._blobs / "tmp"
        self._step = step
        with explained(f"open the artifact store {root}"):
            self._files.mkdir(parents=True, exist_ok=True)
            self._temporary.mkdir(exist_ok=True)
            self._sweep()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.root}>"

    @property
    def lasting(self) -> bool:
        """Whether the file that ``path`` gave stays for as long as the blob does."""
        return self.form.plain

    @property
    def where(self) -> str:
        """For people."""
        return str(self.root)

    def close(self) -> None:
        """Ends what belongs to the store and is not on the disk; its blobs stay."""
        self.form.close()

    def statistics(self) -> BlobStatistics:
        sizes = [entry.size_bytes for entry in self.entries()]
        return BlobStatistics(len(sizes), sum(sizes))

    def path(self, digest: str) -> Path:
        """A plain file of this machine with the blob's bytes, to be opened soon. Of a plain local store it is where the
        blob stands, or would, and may be anything: whoever reads it hashes it.

        Raises RegistryError if ``digest`` is none; of other stores, IntegrityError when there are no sound bytes.
        """
        if self.form.plain:
            return self.standing(digest)
        with self._readable(digest):
            return self.form.local(self.standing(digest), digest)

    def standing(self, digest: str) -> Path:
        """Where the bytes at rest stand on this machine, or would."""
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
            status = self.standing(digest).stat()
        except FileNotFoundError:
            return None
        return BlobEntry(digest, self.form.size(status.st_size), status.st_mtime)

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

    def put_chunks(
        self, chunks: Iterable[bytes], size: int, *, expected: str, progress: Progress | None = None
    ) -> Stored:
        """Stores what comes; IntegrityError, and nothing stored, when it is not what ``expected`` names."""
        return self._put(Chunks(chunks), size, expected, progress, expected)

    def read(self, digest: str) -> bytes:
        """The bytes, hashed again; IntegrityError when they are missing or not what the digest names."""
        return self._bytes_in(self.standing(digest), digest)

    def stream(self, digest: str) -> Iterator[bytes]:
        """The bytes in chunks; IntegrityError at the end when they were not what the digest names."""
        yield from self._chunks_in(self.standing(digest), digest)

    def verify(self, digest: str, size_bytes: int | None = None) -> BlobCheck:
        """Reads the blob to its end and says what is there; ``size_bytes`` tells truncated from altered."""
        try:
            with self.standing(digest).open("rb") as file:
                found, problem, size = proved(self.form, file)
                if found is None:
                    size = self.form.size(os.fstat(file.fileno()).st_size)
        except FileNotFoundError:
            return BlobCheck(digest, BlobState.MISSING, None, 0)
        except OSError as error:
            return BlobCheck(digest, BlobState.UNREADABLE, None, 0, str(error))
        if found == digest:
            return BlobCheck(digest, BlobState.OK, found, size)
        short = size_bytes is not None and size < size_bytes
        return BlobCheck(digest, BlobState.TRUNCATED if short else BlobState.ALTERED, found, size, problem)

    @contextmanager
    def at_rest(self, digest: str) -> Iterator[Path]:
        """The file with the bytes at rest, here on this machine."""
        yield self.standing(digest)

    def reseal(self, digest: str) -> Stored:
        """Writes a blob anew in the store's form, whatever it was in. Its age stays."""
        path = self.standing(digest)
        stored_at = path.stat().st_mtime
        stored = self._put(Chunks(self.stream(digest)), self.form.size(path.stat().st_size), digest, None, digest)
        os.utime(path, (stored_at, stored_at))
        return stored

    def refresh(self, digest: str) -> None:
        """Makes a blob as young as if it had been put now, so that no collection of garbage takes it that does not know
        of its new use. For who holds ``registering``."""
        with explained(f"touch {self.standing(digest)}"):
            os.utime(self.standing(digest))

    def delete(self, digest: str) -> int:
        """Removes a blob; the bytes freed, 0 if there was none."""
        path = self.standing(digest)
        with explained(f"remove {path}"):
            try:
                size = self.form.size(path.stat().st_size)
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

    def _bytes_in(self, path: Path, digest: str) -> bytes:
        with self._readable(digest), path.open("rb") as file:
            data = b"".join(self.form.chunks(file))
        found = DIGEST_PREFIX + hashlib.sha256(data).hexdigest()
        if found != digest:
            raise IntegrityError(
                f"{path} was altered: its bytes have digest {found}, expected {digest}. "
                "Restore it from a backup, or register the version again."
            )
        return data

    def _chunks_in(self, path: Path, digest: str) -> Iterator[bytes]:
        found = hashlib.sha256()
        with self._readable(digest), path.open("rb") as file:
            for chunk in self.form.chunks(file):
                found.update(chunk)
                yield chunk
        if DIGEST_PREFIX + found.hexdigest() != digest:
            raise IntegrityError(f"{digest} in {self.where} was altered; restore it, or register the version again.")

    @contextmanager
    def _readable(self, digest: str) -> Iterator[None]:
        """Names the blob in what goes wrong when it is read."""
        try:
            yield
        except OSError as error:
            raise IntegrityError(
                f"{digest} cannot be read from the artifact store {self.where}: {error.strerror}. "
                "Restore it from a backup, or register the version again."
            ) from error
        except IntegrityError as error:
            raise IntegrityError(f"{digest} in {self.where}: {error}") from error

    @contextmanager
    def _lock(self) -> Iterator[int]:
        with explained(f"lock the artifact store {self.root}"):
            lock = os.open(self._blobs / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            yield lock
        finally:
            os.close(lock)

    def _put(
        self, source: Readable, size: int, what: str, progress: Progress | None = None, expected: str | None = None
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

    def _copy(self, source: Readable, file: IO[bytes], size: int, progress: Progress | None) -> Stored:
        stored = self.form.write(source, file, progress, size)
        file.flush()
        self._step("written")
        os.fchmod(file.fileno(), 0o444)
        os.fsync(file.fileno())
        self._step("synced")
        return stored

    def _place(self, name: Path, digest: str) -> None:
        target = self.standing(digest)
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
