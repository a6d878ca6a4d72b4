"""What a route's response cache holds: answers by version and input, bounded in bytes, the least recently used leave.

Every version has a *shelf* of its own, named by its digest, so that nothing is ever looked up across versions, and
taking a version away takes its answers with it in one step. The shelves of a route share one bound. An eviction
compares the oldest entry of each shelf, of which there are a handful: nothing here grows with the number of entries.

Rejected: a smarter order than least recently used (S3-FIFO, TinyLFU). They win a few percent of hits on traces with
long scans, for ghost entries and a second structure; an entry here costs half a kilobyte before its first number.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from blake3 import blake3

from gateway.messages import Array, Arrays

__all__ = ["AnswerCache", "CacheStatistics", "Shelf", "cost_of", "key_of", "read_only_copies", "size_of"]

SHARE_OF_ONE = 8
"""An entry may take this part of the bound: one large answer must not drive out all others."""

_LARGE_BYTES = 4096
"""BLAKE3 reads more than that faster than SHA-256 does, 600 KB in a quarter of the time."""

ENTRY_BYTES, ARRAY_BYTES = 550, 136
"""What the interpreter and numpy hold beside the numbers, by entry and by output, held to tracemalloc by a test."""

_RECLAIM_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a route's cache holds now; ``evicted`` entries have made room for others so far."""

    entries: int
    held_bytes: int
    max_bytes: int
    evicted: int


class _Entry:
    """Read-only outputs, what they cost, when they were last given and when they are no longer good."""

    __slots__ = ("cost", "expires", "outputs", "used")

    def __init__(self, outputs: Arrays, cost: int, expires: float, used: int) -> None:
        self.outputs = outputs
        self.cost = cost
        self.expires = expires
        self.used = used


class Shelf:
    """One version's answers, the least recently used first. ``open`` until the version is taken off the route."""

    __slots__ = ("entries", "held_bytes", "open")

    def __init__(self) -> None:
        self.entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.held_bytes = 0
        self.open = True

    def __repr__(self) -> str:
        return f"<Shelf [{'open' if self.open else 'closed'} | {len(self.entries)} entries | {self.held_bytes} bytes]>"


class AnswerCache:
    """One route's answers. Used from the event loop only."""

    def __init__(self, max_bytes: int, ttl_s: float | None = None) -> None:
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self._shelves: dict[str, Shelf] = {}
        self._held_bytes = 0
        self._evicted = 0
        self._uses = 0

    def __repr__(self) -> str:
        held = self.statistics()
        return f"<AnswerCache [{len(self._shelves)} versions | {held.entries} entries | {held.held_bytes} bytes]>"

    @property
    def holds(self) -> tuple[int, int]:
        """Entries and bytes."""
        return sum(len(shelf.entries) for shelf in self._shelves.values()), self._held_bytes

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(*self.holds, self.max_bytes, self._evicted)

    def shelf(self, digest: str) -> Shelf | None:
        """Of a version that the route may ask; None for any other."""
        return self._shelves.get(digest)

    def allow(self, digests: Iterable[str]) -> None:
        """Only these versions have a shelf from now on; what others held is gone."""
        wanted = frozenset(digests)
        for digest in [digest for digest in self._shelves if digest not in wanted]:
            shelf = self._shelves.pop(digest)
            shelf.open = False
            self._held_bytes -= shelf.held_bytes
            shelf.held_bytes = 0
            _reclaim(shelf.entries)
        for digest in wanted:
            if digest not in self._shelves:
                self._shelves[digest] = Shelf()

    def get(self, shelf: Shelf, key: bytes, now: float) -> Arrays | None:
        entry = shelf.entries.get(key)
        if entry is None:
            return None
        if now >= entry.expires:
            self._drop(shelf, key)
            return None
        self._uses += 1
        entry.used = self._uses
        shelf.entries.move_to_end(key)
        return entry.outputs

    def takes(self, cost: int) -> bool:
        return cost <= self.max_bytes // SHARE_OF_ONE

    def put(self, shelf: Shelf, key: bytes, outputs: Arrays, cost: int, now: float) -> int:
        """Keeps outputs that nobody may change any more, if the version is still allowed; how many others left for
        them."""
        if not shelf.open or not self.takes(cost):
            return 0
        if key in shelf.entries:
            self._drop(shelf, key)
        self._drop_expired(shelf, now)
        evicted = 0
        while self._held_bytes + cost > self.max_bytes:
            self._drop_oldest()
            evicted += 1
        self._uses += 1
        expires = float("inf") if self.ttl_s is None else now + self.ttl_s
        shelf.entries[key] = _Entry(outputs, cost, expires, self._uses)
        shelf.held_bytes += cost
        self._held_bytes += cost
        self._evicted += evicted
        return evicted

    def _drop_expired(self, shelf: Shelf, now: float) -> None:
        """At most two a call: for each that comes, more than one that has passed may go."""
        for _ in range(2 if self.ttl_s is not None else 0):
            key = next(iter(shelf.entries), None)
            if key is None or now < shelf.entries[key].expires:
                return
            self._drop(shelf, key)

    def _drop_oldest(self) -> None:
        filled = [shelf for shelf in self._shelves.values() if shelf.entries]
        oldest = min(filled, key=lambda shelf: next(iter(shelf.entries.values())).used)
        self._drop(oldest, next(iter(oldest.entries)))

    def _drop(self, shelf: Shelf, key: bytes) -> None:
        entry = shelf.entries.pop(key)
        shelf.held_bytes -= entry.cost
        self._held_bytes -= entry.cost


def key_of(inputs: Arrays) -> bytes:
    """SHA-256 over names, types, shapes and bytes of decoded tensors, or the BLAKE3 digest of many bytes: one key for
    equal inputs, however they were written. Takes 2 µs and 0.2 ms a megabyte (of strings 0.6), during which it lets
    other threads run."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        array = inputs[name]
        digest.update(f"{name!r}{array.dtype.str}{array.shape}".encode("utf-8", "backslashreplace"))
        if array.dtype.hasobject:
            texts = array.ravel().tolist()
            digest.update(np.fromiter(map(len, texts), np.int64, len(texts)).data)
            digest.update(b"".join(texts))
        elif array.nbytes > _LARGE_BYTES:
            digest.update(blake3(array.ravel().view(np.uint8).data).digest())
        else:
            digest.update((array if array.flags.c_contiguous else np.ascontiguousarray(array)).data)
    return digest.digest()


def size_of(inputs: Arrays) -> int:
    """Bytes that ``key_of`` reads."""
    return sum(_text_bytes(array) if array.dtype.hasobject else array.nbytes for array in inputs.values())


def cost_of(outputs: Arrays) -> int:
    """Bytes that an entry with these outputs takes."""
    total = ENTRY_BYTES
    for array in outputs.values():
        total += ARRAY_BYTES + array.nbytes
        if array.dtype.hasobject:
            total += sum(map(sys.getsizeof, array.ravel().tolist()))
    return total


def _text_bytes(array: Array) -> int:
    return sum(map(len, array.ravel().tolist()))


def read_only_copies(outputs: Arrays) -> Arrays:
    """Outputs that nobody can change, apart from the batch that they were views into."""
    return MappingProxyType({name: _read_only_copy(array) for name, array in outputs.items()})


def _read_only_copy(array: Array) -> Array:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def _reclaim(entries: OrderedDict[bytes, _Entry]) -> None:
    """Frees what nobody can find any more, a little at a time: a million entries at once would stall the loop for half
    a second, in the middle of a rollback."""
    for _ in range(min(len(entries), _RECLAIM_AT_ONCE)):
        entries.popitem()
    if entries:
        asyncio.get_running_loop().call_soon(_reclaim, entries)
