"""Frames on a Unix stream socket between the gateway and its recorder: a length, a kind and a body."""

from __future__ import annotations

import array
import marshal
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any

from gateway.recording.bursts import MARSHAL_VERSION

__all__ = ["Down", "Frames", "Up", "close_all", "frame", "pack", "receive", "unpack"]

_HEAD = struct.Struct("<IB")
_READ_BYTES = 512 * 1024
_SMALL_BYTES = 16 * 1024
_MAX_FRAME_BYTES = 256 * 1024 * 1024
_MAX_DESCRIPTORS = 8


class Down(IntEnum):
    """To the recorder. BEGIN and LINE bring descriptors along; STATE is told to a new recorder, of what was before."""

    BEGIN = 0
    BURST = 1
    TOLD = 2
    ASK = 3
    LINE = 4
    END = 5
    STATE = 6


class Up(IntEnum):
    """From the recorder. DONE: how many more BURST and TOLD frames have been taken in."""

    DONE = 0
    ANSWER = 1
    STANDING = 2


def frame(kind: int, body: bytes = b"") -> bytes:
    return _HEAD.pack(len(body), kind) + body


def pack(body: Any) -> bytes:
    """Plain values only: what JSON has, bytes and tuples. ValueError for others."""
    return marshal.dumps(body, MARSHAL_VERSION)


def unpack(body: bytes) -> Any:
    """Raises ValueError."""
    try:
        return marshal.loads(body)  # noqa: S302 (see gateway.recording.bursts: both ends are this program)
    except (EOFError, TypeError) as error:
        raise ValueError(f"no message of this program: {error}") from error


class Frames:
    """Puts together what a stream brings in pieces."""

    def __init__(self) -> None:
        self._unread = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Whole frames, in order. ValueError for what is none."""
        unread = self._unread
        unread += data
        at = 0
        try:
            while len(unread) - at >= _HEAD.size:
                size, kind = _HEAD.unpack_from(unread, at)
                if size > _MAX_FRAME_BYTES:
                    raise ValueError(f"a frame of kind {kind} with {size} bytes")
                end = at + _HEAD.size + size
                if len(unread) < end:
                    break
                body = bytes(memoryview(unread)[at + _HEAD.size : end])
                at = end
                yield kind, body
        finally:
            del unread[:at]


def receive(connection: socket.socket, fds: list[int]) -> bytes | None:
    """What can be read now, with its descriptors; nothing: the other end is gone; None: nothing yet. OSError."""
    try:
        room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, _, _ = connection.recvmsg(_READ_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    except (BlockingIOError, InterruptedError):
        return None
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found = array.array("i")
            found.frombytes(body[: len(body) - len(body) % found.itemsize])
            fds.extend(found)
    # A few bytes at the beginning of so large a block would keep the next one from its place, and scatter the heap.
    return bytes(memoryview(data)) if len(data) <= _SMALL_BYTES else data


def close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
