"""Plain copies of sealed blobs, in anonymous memory: what children open as files, and what is on no disk.

A copy is a memfd of this process, named to children of the same user as ``/proc/PID/fd/N``; a child that has opened it
keeps it, whatever happens here. It is sealed against any change, is gone with this process however that ends, and was
proved by its digest when it was made. Rejected: a folder in /dev/shm (64 MB in most containers, and a killed process
leaves the plain bytes there) and a private folder (then they are at rest in plain).

Copies are let go of ``hold_s`` after they were last asked for: a load reads its files at its beginning.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import IntegrityError, RegistryError
from gateway.registry.canonical import DIGEST_PREFIX

__all__ = ["CopyStatistics", "PlainCopies"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


@dataclass(frozen=True, slots=True)
class CopyStatistics:
    copies: int
    bytes: int


@dataclass(slots=True)
class _Copy:
    """``asked_at`` is written whenever the copy is handed out."""

    handle: int
    size_bytes: int
    asked_at: float

    @property
    def path(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self.handle}")


class PlainCopies:
    """At most ``most_bytes`` of memory. Safe from several threads; one at a time makes a copy."""

    def __init__(self, most_bytes: int, *, hold_s: float = 180.0, now: Callable[[], float] = time.monotonic) -> None:
        self._most = most_bytes
        self._hold_s = hold_s
        self._now = now
        self._lock = threading.Lock()
        self._copies: dict[str, _Copy] = {}  # in order of the last asking; under the lock
        self._ending: threading.Timer | None = None

    def __repr__(self) -> str:
        return f"<PlainCopies [{len(self._copies)} of {self.statistics().bytes} bytes]>"

    def statistics(self) -> CopyStatistics:
        return CopyStatistics(len(self._copies), sum(copy.size_bytes for copy in self._copies.values()))

    def path(self, digest: str, chunks: Iterable[bytes], size: int) -> Path:
        """``chunks`` are read only if there is no copy yet. IntegrityError when they have another digest, RegistryError
        when there is no room."""
        with self._lock:
            copy = self._copies.pop(digest, None)
            if copy is None:
                self._make_room(size)
                copy = _made(digest, chunks, self._now())
            copy.asked_at = self._now()
            self._copies[digest] = copy
            self._end_later()
            return copy.path

    def let_go(self) -> int:
        """Gives back the memory of copies that nobody has asked for of late; the copies that stay."""
        with self._lock:
            self._let_go(self._hold_s)
            return len(self._copies)

    def close(self) -> None:
        with self._lock:
            if self._ending is not None:
                self._ending.cancel()
            self._let_go(-1.0)

    def _let_go(self, older_than_s: float) -> None:
        for digest, copy in tuple(self._copies.items()):
            if self._now() - copy.asked_at > older_than_s:
                os.close(copy.handle)
                del self._copies[digest]

    def _make_room(self, size: int) -> None:
        if size > self._most:
            raise RegistryError(
                f"a file of {size} bytes cannot be read: its plain copy is kept in memory while a version loads, and "
                f"registry.encryption.memory_bytes is {self._most}; raise it"
            )
        self._let_go(self._hold_s)
        held = self.statistics().bytes
        if held + size > self._most:
            raise RegistryError(
                f"a file of {size} bytes cannot be read now: plain copies of {held} bytes are in use by loads of the "
                f"last {self._hold_s:g} s, and registry.encryption.memory_bytes is {self._most}; try again then, or "
                "raise it"
            )

    def _end_later(self) -> None:
        """A thread that only waits, and only while there are copies: memory comes back also when no load follows."""
        if self._ending is None or not self._ending.is_alive():
            self._ending = threading.Timer(self._hold_s + 1.0, self._ended)
            self._ending.daemon = True
            self._ending.start()

    def _ended(self) -> None:
        with self._lock:
            self._let_go(self._hold_s)
            self._ending = None
            if self._copies:
                self._end_later()


def _made(digest: str, chunks: Iterable[bytes], now: float) -> _Copy:
    handle = os.memfd_create(f"turnout-{digest[-12:]}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        found, size = hashlib.sha256(), 0
        for chunk in chunks:
            _write_all(handle, chunk)
            found.update(chunk)
            size += len(chunk)
        if DIGEST_PREFIX + found.hexdigest() != digest:
            raise IntegrityError(
                f"{digest} was altered: its bytes have digest {DIGEST_PREFIX}{found.hexdigest()}. Restore it from a "
                "backup, or register the version again."
            )
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(handle)
        raise
    return _Copy(handle, size, now)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
