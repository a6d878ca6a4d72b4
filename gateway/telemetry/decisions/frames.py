"""Frames: what the log's files are made of, each with its length, a check sum, and its link of the chain.

A file is ``MAGIC`` and frames, one after the other; all numbers are little-endian::

    length of the body   4 bytes
    CRC-32 of the body   4 bytes
    link                32 bytes   SHA-256 over the link before and the body
    body                 1 byte    R: records, C: control
                         8 bytes   sequence number of the first line
                         8 bytes   when it was written, milliseconds since the epoch
                                   lines of JSON, a newline between them

One link covers a burst and not one record: it is over all of their bytes in their order, so the place and the content
of each are covered as well, and a burst of 256 costs one hash, not 256. The check sum finds a torn end quickly and asks
for no link before; a link proves. The chain goes on from file to file.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

__all__ = [
    "CONTROL",
    "GENESIS",
    "HEAD_BYTES",
    "MAGIC",
    "MAX_FRAME_BYTES",
    "RECORDS",
    "Damage",
    "Frame",
    "link_of",
    "pack",
    "read_frames",
]

MAGIC = b"TURNDEC1"
GENESIS = bytes(32)
RECORDS, CONTROL = ord("R"), ord("C")
MAX_FRAME_BYTES = 256 * 1024 * 1024
"""A length beyond it is damage, not a frame."""

_HEAD = struct.Struct("<II32s")
_BODY = struct.Struct("<BQQ")
HEAD_BYTES = _HEAD.size


class Frame(NamedTuple):
    """``offset`` and ``end`` in its file; ``sequence`` of its first line."""

    offset: int
    end: int
    link: bytes
    kind: int
    sequence: int
    written_ms: int
    body: bytes

    @property
    def lines(self) -> Sequence[bytes]:
        return self.body[_BODY.size :].split(b"\n")

    @property
    def last(self) -> int:
        """The sequence number of its last line."""
        return self.sequence + self.body.count(b"\n", _BODY.size)


@dataclass(frozen=True, slots=True)
class Damage:
    """From ``offset`` on there is no whole frame. ``more``: whole ones follow all the same."""

    offset: int
    reason: str
    more: bool = False


def body_of(kind: int, sequence: int, written_ms: int, lines: Sequence[bytes]) -> bytes:
    return _BODY.pack(kind, sequence, written_ms) + b"\n".join(lines)


def link_of(before: bytes, body: bytes) -> bytes:
    digest = hashlib.sha256(before)
    digest.update(body)
    return digest.digest()


def pack(before: bytes, kind: int, sequence: int, written_ms: int, lines: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The frame's bytes, and its link."""
    body = body_of(kind, sequence, written_ms, lines)
    link = link_of(before, body)
    return _HEAD.pack(len(body), zlib.crc32(body), link) + body, link


def read_frames(file: BinaryIO, start: int = len(MAGIC)) -> Iterator[Frame | Damage]:
    """Every whole frame from ``start``, or from the file's beginning if that is where the magic ends; where there is
    none, one Damage, and then, if whole frames follow it, those too. Links are not looked at."""
    offset = start
    if start == len(MAGIC):
        file.seek(0)
        if file.read(len(MAGIC)) != MAGIC:
            yield Damage(0, "it does not begin as a file of decisions")
            return
    while True:
        found = _frame_at(file, offset)
        if found is None:
            return
        if isinstance(found, Frame):
            yield found
            offset = found.end
            continue
        after = _next_whole(file, offset)
        yield Damage(offset, found, more=after is not None)
        if after is None:
            return
        offset = after


def _frame_at(file: BinaryIO, offset: int) -> Frame | str | None:  # noqa: PLR0911 (one for each fault)
    """The frame, what is wrong there, or None at the end of the file."""
    file.seek(offset)
    head = file.read(HEAD_BYTES)
    if not head:
        return None
    if len(head) < HEAD_BYTES:
        return f"{len(head)} bytes of a frame's head"
    length, check, link = _HEAD.unpack(head)
    if not _BODY.size <= length <= MAX_FRAME_BYTES:
        return f"a frame's length is {length}"
    body = file.read(length)
    if len(body) < length:
        return f"{len(body)} of a frame's {length} bytes"
    if zlib.crc32(body) != check:
        return "a frame's check sum does not fit its bytes"
    kind, sequence, written_ms = _BODY.unpack_from(body)
    if kind not in (RECORDS, CONTROL):
        return f"a frame of the unknown kind {kind}"
    return Frame(offset, offset + HEAD_BYTES + length, link, kind, sequence, written_ms, body)


def _next_whole(file: BinaryIO, offset: int) -> int | None:
    """Where the next frame begins whose check sum fits: by the length that the damaged one names, else by search."""
    file.seek(offset)
    head = file.read(HEAD_BYTES)
    if len(head) == HEAD_BYTES:
        after: int = offset + HEAD_BYTES + _HEAD.unpack(head)[0]
        if isinstance(_frame_at(file, after), Frame):
            return after
    file.seek(offset)
    rest = file.read(MAX_FRAME_BYTES)
    for kind in (RECORDS, CONTROL):
        place = rest.find(bytes((kind,)), HEAD_BYTES + 1)
        while place >= 0:
            begin = place - HEAD_BYTES
            length: int = _HEAD.unpack_from(rest, begin)[0]
            fits = _BODY.size <= length <= len(rest) - place
            if fits and isinstance(_frame_at(file, offset + begin), Frame):
                return offset + begin
            place = rest.find(bytes((kind,)), place + 1)
    return None
