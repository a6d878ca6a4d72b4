"""Where log lines go: standard output, standard error or a file, as whole lines written to a descriptor of our own.

A duplicate of the descriptor, unbuffered: Python's own ``sys.stdout`` holds a lock while it
waits for a slow reader, and a thread that still holds it when the interpreter ends aborts the process.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Protocol

from gateway.errors import SettingsError

__all__ = ["DescriptorSink", "Sink", "open_sink"]


class Sink(Protocol):
    """``write`` takes whole lines and may block; it raises OSError when they could not all be written."""

    def write(self, lines: bytes) -> None: ...

    def close(self) -> None: ...


class DescriptorSink:
    """Owns one descriptor. After a write that stopped midway (a full disk), the next begins on a new line,
    so that one torn line never spoils another."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def __repr__(self) -> str:
        return f"<DescriptorSink {self._descriptor}{' torn' if self._torn else ''}>"

    def fileno(self) -> int:
        return self._descriptor

    @property
    def prompt(self) -> bool:
        """Nobody has to read before more can be written: it is a file."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def write(self, lines: bytes) -> None:
        left = memoryview(b"\n" + lines if self._torn else lines)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
                self._torn = bool(left)
        except BlockingIOError as full:
            raise OSError(full.errno, "the reader of the log does not keep up") from full

    def close(self) -> None:
        os.close(self._descriptor)


def open_sink(where: str, folder: Path = Path()) -> DescriptorSink | None:
    """``stdout``, ``stderr``, ``off`` (None) or a file to append to, in ``folder`` if its path is relative.

    A file is made with mode 0640. Raises SettingsError.
    """
    if where == "off":
        return None
    if where in ("stdout", "stderr"):
        return DescriptorSink(os.dup(1 if where == "stdout" else 2))
    path = folder / where
    try:
        return DescriptorSink(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640))
    except OSError as error:
        raise SettingsError(
            f"telemetry.request_log: {str(path)!r} cannot be opened for appending: {error.strerror};"
            " expected stdout, stderr, off or a writable file"
        ) from None
