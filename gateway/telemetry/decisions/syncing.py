"""Makes durable what was written, on a thread of its own: the writer goes on while the disk turns."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

__all__ = ["Mark", "Syncer"]


class Mark(NamedTuple):
    """How the chain stood: up to which line, with which link, in which segment; ``at`` on the writer's clock."""

    segment: int
    sequence: int
    link: bytes
    at: float


class Syncer:
    """Takes a descriptor of its own for each request, and closes it. What is asked while it is busy is done together:
    of marks in one segment, the last. With the first of a segment its ``folder`` is made durable: a file whose name
    a power failure takes is a file that is gone. ``fsync`` is the system's own."""

    def __init__(self, done: Mark, folder: Path, *, fsync: Callable[[int], None] = os.fsync) -> None:
        # Written by the thread alone, whole values at once.
        self.done = done
        self._folder = folder
        self._fsync = fsync
        self._entered: int | None = None
        self.fault: str | None = None
        self._asked: queue.SimpleQueue[tuple[int, Mark] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._work, name="turnout-decisions-sync", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Syncer [{self.done.sequence} durable{f' | {self.fault}' if self.fault else ''}]>"

    @property
    def busy(self) -> bool:
        return not self._idle.is_set()

    def ask(self, descriptor: int, mark: Mark) -> None:
        """Raises OSError when the process has no descriptor left."""
        copy = os.dup(descriptor)
        self._idle.clear()
        self._asked.put((copy, mark))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until all that was asked is done."""
        return self._idle.wait(timeout_s)

    def close(self) -> None:
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (asked := self._asked.get()) is not None:
            descriptor, mark = asked
            try:
                self._fsync(descriptor)
                self._enter(mark.segment)
                self.done, self.fault = mark, None
            except OSError as error:
                self.fault = f"what was recorded cannot be made durable: {error.strerror}"
            finally:
                os.close(descriptor)
            if self._asked.empty():
                self._idle.set()

    def _enter(self, segment: int) -> None:
        if segment == self._entered:
            return
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._fsync(folder)
        finally:
            os.close(folder)
        self._entered = segment
