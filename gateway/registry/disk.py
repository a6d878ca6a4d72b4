"""The disk beneath: its errors in words that say what to do, files written whole, and directories made durable."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gateway.errors import RegistryError, StorageFull

__all__ = ["explained", "sync_folder", "write_whole"]

_ADVICE = {
    errno.ENOSPC: "free some space there (turnout gc removes what no version refers to), then try again",
    errno.EDQUOT: "raise the disk quota or free some space (turnout gc), then try again",
    errno.EROFS: "the file system is mounted read-only; point TURNOUT_HOME at one that can be written",
    errno.EACCES: "give the user that runs turnout the right to read and write there",
    errno.ENOENT: "check the path",
}


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes) -> None:
    """The file is then this, or as it was before, also when the machine dies; only its owner can read it.

    One writer at a time: what a killed one has left is written over. Raises OSError, and leaves nothing behind.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def explained(what: str, outcome: str = "") -> Iterator[None]:
    """Turns the system's errors into RegistryError with what to do next."""
    try:
        yield
    except OSError as error:
        advice = outcome + _ADVICE.get(error.errno or 0, "check the path and the disk, then try again")
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else RegistryError
        raise kind(f"cannot {what}: {error.strerror or error}. {advice[0].upper()}{advice[1:]}.") from error
