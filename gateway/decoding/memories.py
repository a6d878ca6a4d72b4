"""Shared memory for bodies and their arrays, used again: pages that were touched once need not be faulted in anew.

Every memory has room for the largest body. What is not written costs nothing, so there is one
size, and any memory that is free will do.
"""

from __future__ import annotations

import weakref
from collections import deque

import numpy as np

from gateway.errors import QueueFull
from gateway.messages import Array
from runtimes.memory import Memory

__all__ = ["Memories", "Text"]

_KEPT = 4
_KEPT_BYTES = 32 * 1024 * 1024
"""A memory that has more pages than this is given back to the system."""


class _Sheet:
    """One memory. ``touched_bytes``: how much of it has pages, at most."""

    __slots__ = ("filled_bytes", "memory", "touched_bytes")

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.filled_bytes = 0
        self.touched_bytes = 0


class Text:
    """A body in shared memory, written piece by piece; the memory goes back when nobody holds the text."""

    __slots__ = ("__weakref__", "_sheet", "_store")

    def __init__(self, store: Memories, sheet: _Sheet) -> None:
        self._store = store
        self._sheet = sheet
        weakref.finalize(self, store.take_back, sheet).atexit = False

    def __repr__(self) -> str:
        return f"<Text [{self.size_bytes} bytes]>"

    @property
    def size_bytes(self) -> int:
        return self._sheet.filled_bytes

    @property
    def memory(self) -> Memory:
        return self._sheet.memory

    def append(self, piece: bytes | memoryview) -> None:
        """QueueFull when all texts together hold as much as they may. ``piece`` must fit into the memory."""
        self._store.hold(len(piece))
        sheet = self._sheet
        end = sheet.filled_bytes + len(piece)
        sheet.memory.buffer[sheet.filled_bytes : end] = piece
        self._fill(end)

    def room(self, most: int) -> memoryview:
        """Where the next piece is to be written, of so many bytes at most. Not to be kept: what is seen of a memory
        keeps it from being given back."""
        start = self._sheet.filled_bytes
        return memoryview(self._sheet.memory.buffer)[start : start + most]

    def filled(self, count: int) -> None:
        """So much of the room was written. QueueFull as for ``append``."""
        self._store.hold(count)
        self._fill(self._sheet.filled_bytes + count)

    def _fill(self, end: int) -> None:
        self._sheet.filled_bytes = end
        self._sheet.touched_bytes = max(self._sheet.touched_bytes, end)


class Memories:
    """Lends memories of one size, and takes them back, from any thread, when their last user is gone.

    ``most_bytes`` bounds what texts may hold together.
    """

    def __init__(self, name: str, size_bytes: int, *, written_by_child: bool, most_bytes: int | None = None) -> None:
        self._name = name
        self._size_bytes = size_bytes
        self._written_by_child = written_by_child
        self._most_bytes = most_bytes
        self._free: deque[_Sheet] = deque()
        self.lent = 0
        self.held_bytes = 0

    def __repr__(self) -> str:
        return f"<Memories {self._name} [{self.lent} lent | {len(self._free)} free | {self.held_bytes} bytes]>"

    @property
    def filled(self) -> float:
        """The share of what texts may hold together that they hold."""
        return self.held_bytes / self._most_bytes if self._most_bytes else 0.0

    def text(self) -> Text:
        """An empty text. ``OSError`` when the system has no memory or descriptor for it."""
        return Text(self, self._sheet())

    def array(self) -> tuple[Memory, Array]:
        """A memory, and all of it as octets: views of them keep it."""
        sheet = self._sheet()
        octets = np.frombuffer(sheet.memory.buffer, np.uint8)
        weakref.finalize(octets, self.take_back, sheet).atexit = False
        sheet.touched_bytes = _KEPT_BYTES  # the other side writes it
        return sheet.memory, octets

    def hold(self, more_bytes: int) -> None:
        """Counts what comes in; QueueFull past the bound."""
        if self._most_bytes is not None and self.held_bytes + more_bytes > self._most_bytes:
            raise QueueFull(
                f"large bodies take {self.held_bytes} of the {self._most_bytes} bytes that they may take together;"
                " send this one again later",
                retry_after_s=1.0,
            )
        self.held_bytes += more_bytes

    def take_back(self, sheet: _Sheet) -> None:
        self.lent -= 1
        self.held_bytes -= sheet.filled_bytes
        sheet.filled_bytes = 0
        if len(self._free) < _KEPT and sheet.touched_bytes <= _KEPT_BYTES:
            self._free.append(sheet)
        else:
            sheet.memory.close()

    def drop_free(self) -> None:
        """Gives what is not lent back to the system."""
        while self._free:
            self._free.popleft().memory.close()

    def _sheet(self) -> _Sheet:
        sheet = (
            self._free.pop()
            if self._free
            else _Sheet(Memory.create(self._name, self._size_bytes, writable_by_child=self._written_by_child))
        )
        self.lent += 1
        return sheet
