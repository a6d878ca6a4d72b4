"""The open segment's file: whole frames, also after a write that failed midway."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["SegmentFile", "room"]


class SegmentFile:
    """``descriptor``: for who syncs it. ``size_bytes``: of the whole frames."""

    def __init__(self, descriptor: int, size_bytes: int) -> None:
        self.descriptor = descriptor
        self.size_bytes = size_bytes
        # A write failed, and what it left could not be taken off.
        self._torn = False

    def __repr__(self) -> str:
        return f"<SegmentFile [{self.size_bytes} bytes{' | torn' if self._torn else ''}]>"

    @classmethod
    def create(cls, path: Path, content: bytes) -> SegmentFile:
        """A new file with this in it. Raises OSError, and leaves nothing behind."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            _write_all(descriptor, content)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return cls(descriptor, len(content))

    @classmethod
    def resume(cls, path: Path) -> SegmentFile:
        """One that ends with a whole frame."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        return cls(descriptor, os.lseek(descriptor, 0, os.SEEK_END))

    def append(self, frame: bytes) -> None:
        """OSError where it was not written whole; then nothing of it stays, at the latest when the next is written."""
        try:
            self._mend()
            _write_all(self.descriptor, frame)
        except OSError:
            self._torn = True
            with suppress(OSError):  # tried again before the next write
                self._mend()
            raise
        self.size_bytes += len(frame)

    def close(self) -> None:
        os.close(self.descriptor)

    def _mend(self) -> None:
        """Takes off what a write that failed midway has left."""
        if self._torn:
            os.ftruncate(self.descriptor, self.size_bytes)
            os.lseek(self.descriptor, self.size_bytes, os.SEEK_SET)
            self._torn = False


def room(folder: Path) -> int:
    """Bytes that are left there; a quota may leave less, and then the write itself tells."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
