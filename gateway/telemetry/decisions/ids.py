"""Where a request id is: a file beside a compacted segment, of hashes in order, each with its decision.

Request ids are the client's: in no order, and not always different. An entry is 24 bytes: eight of BLAKE2b, and the
sixteen of the decision's UUID, by which the record is found.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from uuid import UUID

__all__ = ["decisions_of", "hash_of", "ids_content", "write_ids"]

_ENTRY_BYTES = 24
_NAME_BYTES = 16


def hash_of(request: str) -> int:
    return int.from_bytes(blake2b(request.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def ids_content(found: Iterable[tuple[int, str]]) -> bytes:
    """Decisions that are no UUIDs have no entry: they are none of this program's."""
    return b"".join(_entries(found))


def _entries(found: Iterable[tuple[int, str]]) -> Iterator[bytes]:
    for hashed, decision in sorted(found):
        with suppress(ValueError):
            named = bytes.fromhex(decision.replace("-", ""))  # a quarter of what UUID takes
            if len(named) == _NAME_BYTES:
                yield hashed.to_bytes(8, "big") + named


def write_ids(path: Path, found: Iterable[tuple[int, str]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(ids_content(found))
            file.flush()
            os.fsync(file.fileno())
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def decisions_of(path: Path, request: str) -> Sequence[str]:
    """Of a request with this id, or one with the same hash: who asks looks at the record. Raises OSError."""
    sought = hash_of(request).to_bytes(8, "big")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        count = os.fstat(descriptor).st_size // _ENTRY_BYTES
        return list(_matching(descriptor, _first_from(descriptor, count, sought), sought))
    finally:
        os.close(descriptor)


def _first_from(descriptor: int, count: int, sought: bytes) -> int:
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if os.pread(descriptor, 8, middle * _ENTRY_BYTES) < sought:
            low = middle + 1
        else:
            high = middle
    return low


def _matching(descriptor: int, place: int, sought: bytes) -> Iterator[str]:
    while (entry := os.pread(descriptor, _ENTRY_BYTES, place * _ENTRY_BYTES))[:8] == sought:
        yield str(UUID(bytes=entry[8:]))
        place += 1
