"""A version's bytes, hashed as they are read: what a runtime loads is what the manifest names, or nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from io import BytesIO
from pathlib import Path

from runtimes.base import FileRef, IntegrityFailed, LoadFailed

__all__ = ["VerifiedFiles"]

_BLOCK_BYTES = 1 << 20
"""A common kernel gives nobody else the processor within one ``read``, however low the reader's priority: 500 MB in
one take a tenth of all wake-ups beside it 3 ms (measured). What is read in blocks is also hashed from the cache."""
_PREFIX = "sha256:"


class VerifiedFiles:
    """``runtimes.base.Files`` over local paths. ``loaded`` maps each name read to the digest of its bytes."""

    def __init__(self, files: Iterable[FileRef]) -> None:
        self._files = {file.name: file for file in files}
        self.loaded: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<VerifiedFiles [{len(self.loaded)} of {len(self._files)} read]>"

    def names(self) -> tuple[str, ...]:
        return tuple(self._files)

    def read(self, name: str) -> bytes:
        """All bytes of a file. ``LoadFailed`` when it is missing, ``IntegrityFailed`` when it is not the one meant."""
        content = BytesIO()
        self._pass_through(self._ref(name), content.write)
        return content.getvalue()  # its own bytes, not a copy of them

    def verify_rest(self) -> None:
        """Hashes what no one has read: a version with one wrong file is not that version."""
        for file in self._files.values():
            if file.name not in self.loaded:
                self._pass_through(file, lambda _: None)

    def _pass_through(self, file: FileRef, take: Callable[[memoryview], object]) -> None:
        """Hands over and hashes the file's bytes, block by block; it is accepted when all fit."""
        digest, size = hashlib.sha256(), 0
        block = memoryview(bytearray(_BLOCK_BYTES))
        try:
            with Path(file.path).open("rb", buffering=0) as stream:
                while count := stream.readinto(block):
                    take(block[:count])
                    digest.update(block[:count])
                    size += count
        except OSError as error:
            raise self._unreadable(file, error) from error
        self._accept(file, digest.hexdigest(), size)

    def _ref(self, name: str) -> FileRef:
        try:
            return self._files[name]
        except KeyError:
            known = ", ".join(self._files) or "none"
            raise LoadFailed(f"file {name!r} is not part of this version; its files are: {known}") from None

    def _unreadable(self, file: FileRef, error: OSError) -> LoadFailed:
        return LoadFailed(
            f"file {file.name!r} cannot be read from {file.path}: {error.strerror or error}; "
            f"expected {file.size_bytes} bytes with digest {_PREFIX}{file.sha256.removeprefix(_PREFIX)}"
        )

    def _accept(self, file: FileRef, digest: str, size: int) -> None:
        expected = file.sha256.removeprefix(_PREFIX)
        if digest != expected:
            raise IntegrityFailed(
                f"file {file.name!r}: the stored bytes are not those that were registered: expected "
                f"{_PREFIX}{expected} ({file.size_bytes} bytes), read {_PREFIX}{digest} ({size} bytes) "
                f"from {file.path}; restore the file from a backup, or register the version again"
            )
        self.loaded[file.name] = file.sha256
