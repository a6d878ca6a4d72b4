"""Blobs in an object store, under the same names as on disk: ``URL/blobs/sha256/ab/abcd…``.

What is sent is read back and compared before it counts as stored. What is fetched is taken only if its bytes have the
digest that is its name; a fetch that was cut off goes on where it ended.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.errors import IntegrityError, NotFound
from gateway.registry.blob_records import BlobCheck, BlobEntry, BlobState
from gateway.registry.canonical import DIGEST_PREFIX
from gateway.registry.disk import explained
from gateway.registry.names import check_digest
from gateway.registry.remote.objects import ObjectRow, ObjectStore, Told
from gateway.registry.sealing.forms import Chunks, Form, digest_in, proved

__all__ = ["RemoteBlobs"]

_UNDER = "blobs/sha256"
_NAME = re.compile(r"blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")
_STALE_S = 7 * 86_400.0
"""An unfinished fetch that nobody went on with for so long is removed."""
_FRESH_S = 1200.0
"""What was stored longer ago is sent again when it is put again, so that it is young: a collection of garbage that
knows nothing of the new use leaves young blobs alone (for ``collect.GRACE_S``, which is longer)."""


class RemoteBlobs:
    """``scratch`` is a folder of this machine for what is on its way; ``form`` is what bytes look like at rest."""

    def __init__(self, objects: ObjectStore, scratch: Path, form: Form) -> None:
        self.objects = objects
        self.form = form
        self._scratch = scratch
        with explained(f"use the folder {scratch}"):
            scratch.mkdir(parents=True, exist_ok=True)
            self._sweep()

    def __repr__(self) -> str:
        return f"<RemoteBlobs {self.objects.place.url}>"

    def name(self, digest: str) -> str:
        """Of its object."""
        name = check_digest(digest).removeprefix(DIGEST_PREFIX)
        return f"{_UNDER}/{name[:2]}/{name}"

    def entries(self) -> list[BlobEntry]:
        """In order of digest; sizes are those of the plain bytes."""
        rows = [(match[2], row) for row in self.objects.list(_UNDER) if (match := _NAME.fullmatch(row.name))]
        return [self._entry(DIGEST_PREFIX + name, row) for name, row in sorted(rows, key=lambda pair: pair[0])]

    def entry(self, digest: str) -> BlobEntry | None:
        row = self.objects.stat(self.name(digest))
        return None if row is None else self._entry(digest, row)

    def young(self, digest: str, *, now: float) -> ObjectRow | None:
        """The object, if it is there and need not be sent again to be left alone by a collection of garbage."""
        row = self.objects.stat(self.name(digest))
        return row if row is not None and now - row.changed_at < _FRESH_S else None

    def put(self, digest: str, source: Path, *, now: float, told: Told | None = None) -> bool:
        """Sends a file that is already in the form; False when the store has it, of this size and young."""
        row = self.young(digest, now=now)
        if row is not None and row.size_bytes == source.stat().st_size:
            return False
        self.objects.put(self.name(digest), source, told)
        return True

    def send(self, digest: str, chunks: Iterator[bytes], source: Path | None, told: Told | None = None) -> None:
        """Sends plain bytes, put into the form first; ``source``: a plain file that has them. IntegrityError, and
        nothing sent, when they have another digest."""
        if self.form.plain and source is not None:
            self.objects.put(self.name(digest), source, told, sha256=digest.removeprefix(DIGEST_PREFIX))
            return
        with self._temporary(f"sealing-{digest.removeprefix(DIGEST_PREFIX)}") as path, path.open("r+b") as file:
            file.truncate()
            stored = self.form.write(Chunks(chunks), file)
            if stored.digest != digest:
                raise IntegrityError(f"what was to be sent was altered: its digest is {stored.digest}, not {digest}")
            file.flush()
            self.objects.put(self.name(digest), path, told)

    @contextmanager
    def fetched(self, digest: str, told: Told | None = None) -> Iterator[Path]:
        """A file of this machine with the bytes at rest, proved to be those of the digest; move it away, or it goes.

        NotFound, or IntegrityError when what is there is something else.
        """
        with self._temporary(f"fetching-{digest.removeprefix(DIGEST_PREFIX)}", keep=True) as path:
            resumed = path.stat().st_size > 0
            self._fetch(digest, path, told)
            if self._digest(path) != digest and resumed:  # what an earlier fetch has left was of something else
                os.truncate(path, 0)
                self._fetch(digest, path, told)
            if (found := self._digest(path)) != digest:
                path.unlink()
                raise IntegrityError(
                    f"{self.objects.place.url}/{self.name(digest)} was altered: its bytes have digest {found}, "
                    f"expected {digest}. Push the version there again from a store that has it"
                )
            own = _identity(path)
            yield path
            if _identity(path) == own:  # moved away it may be another's by now, who waited for this one
                path.unlink(missing_ok=True)

    def read(self, digest: str) -> bytes:
        """A small one, proved."""
        with self.fetched(digest) as path, path.open("rb") as file:
            return b"".join(self.form.chunks(file))

    def verify(self, digest: str, size_bytes: int | None = None) -> BlobCheck:
        """Reads all of it over the network; nothing is kept."""
        with self._temporary(f"verifying-{digest.removeprefix(DIGEST_PREFIX)}") as path:
            try:
                self._fetch(digest, path, None)
            except NotFound:
                return BlobCheck(digest, BlobState.MISSING, None, 0)
            with path.open("rb") as file:
                found, problem, size = proved(self.form, file)
            if found is None:
                size = self.form.size(path.stat().st_size)
        if found == digest:
            return BlobCheck(digest, BlobState.OK, found, size)
        short = size_bytes is not None and size < size_bytes
        return BlobCheck(digest, BlobState.TRUNCATED if short else BlobState.ALTERED, found, size, problem)

    def delete(self, digest: str) -> None:
        self.objects.delete(self.name(digest))

    def _fetch(self, digest: str, path: Path, told: Told | None) -> None:
        self.objects.get(self.name(digest), path, told)

    def _digest(self, path: Path) -> str | None:
        with path.open("rb") as file:
            return digest_in(self.form, file)

    def _entry(self, digest: str, row: ObjectRow) -> BlobEntry:
        return BlobEntry(digest, self.form.size(row.size_bytes), row.changed_at)

    def _sweep(self) -> None:
        for pattern in ("fetching-*", "sealing-*", "verifying-*"):
            for path in self._scratch.glob(pattern):
                with suppress(FileNotFoundError):
                    if time.time() - path.stat().st_mtime > _STALE_S:
                        path.unlink()

    @contextmanager
    def _temporary(self, name: str, *, keep: bool = False) -> Iterator[Path]:
        """An empty file, or with ``keep`` what an earlier try left, for this process and thread alone."""
        path = self._scratch / name
        with explained(f"keep {path}"):
            while True:
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                fcntl.flock(handle, fcntl.LOCK_EX)
                status = os.fstat(handle)
                if _identity(path) == (status.st_dev, status.st_ino):
                    break
                os.close(handle)  # another has moved it into place, or removed it, while this one waited
        try:
            if not keep:
                os.truncate(path, 0)
            yield path
        finally:
            if not keep:
                with suppress(FileNotFoundError):
                    path.unlink()
            os.close(handle)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
