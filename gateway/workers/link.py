"""Framed messages and descriptors between the node and one web worker, over one Unix stream socket.

A frame is a length, a kind and a count of descriptors, then its body. Control messages (JSON) always
queue: there are few. Telemetry is offered, and refused once too much waits: a node that does not
read must neither block a worker nor let it grow.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Protocol

import orjson

__all__ = ["Kind", "Link", "Receiver"]

_HEAD = struct.Struct("<IBB")
_READ_BYTES = 256 * 1024
_MAX_FRAME_BYTES = 64 * 1024 * 1024
_MAX_DESCRIPTORS = 16
_READS_AT_ONCE = 8
OFFERED_LIMIT_BYTES = 4 * 1024 * 1024


class Kind(IntEnum):
    CONTROL = 0
    TELEMETRY = 1


class Receiver(Protocol):
    """Called on the loop. ``control`` owns the descriptors. ``ended`` comes once: nothing more will."""

    def control(self, message: dict[str, Any], fds: Sequence[int]) -> None: ...

    def telemetry(self, body: bytes) -> None: ...

    def ended(self, why: str) -> None: ...


class Link:
    """One end. ``start`` begins to read; ``close`` ends it without telling the receiver."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._receiver: Receiver | None = None
        self._unread = bytearray()
        self._fds: deque[int] = deque()
        # Bytes with the descriptors that leave with their first byte; the head may be sent in part.
        self._unsent: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._unsent_bytes = 0
        self._writing = False
        self._open = True
        self._all_sent = asyncio.Event()
        self._all_sent.set()

    def __repr__(self) -> str:
        return f"<Link [{'open' if self._open else 'closed'} | {self._unsent_bytes} bytes to send]>"

    @property
    def open(self) -> bool:
        return self._open

    def start(self, receiver: Receiver) -> None:
        self._receiver = receiver
        asyncio.get_running_loop().add_reader(self._socket, self._readable)

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        self._all_sent.set()
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        if self._writing:
            loop.remove_writer(self._socket)
        self._socket.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        _close_all(self._fds)
        self._fds.clear()

    # Out

    def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """Queues a control message. The descriptors are the link's from now on, and closed once they are sent."""
        if not self._open:
            _close_all(fds)
            return
        self._put(Kind.CONTROL, orjson.dumps(message), tuple(fds))

    def offer(self, body: bytes) -> bool:
        """Queues telemetry; False when too much waits, and then it is the caller's to count as lost."""
        if not self._open or self._unsent_bytes > OFFERED_LIMIT_BYTES:
            return False
        self._put(Kind.TELEMETRY, body, ())
        return True

    async def sent(self) -> None:
        """Returns when everything is with the system, or the link is closed."""
        await self._all_sent.wait()

    def _put(self, kind: Kind, body: bytes, fds: tuple[int, ...]) -> None:
        frame = memoryview(_HEAD.pack(len(body), kind, len(fds)) + body)
        self._unsent.append((frame, fds))
        self._unsent_bytes += len(frame)
        self._all_sent.clear()
        if not self._writing:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                self._send_first()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._end(f"the other end is gone: {error.strerror}")
            return
        self._watch_writable(bool(self._unsent))
        if not self._unsent:
            self._all_sent.set()

    def _send_first(self) -> None:
        frame, fds = self._unsent[0]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self._socket.sendmsg([frame], rights)
        self._unsent_bytes -= sent
        _close_all(fds)
        if sent == len(frame):
            self._unsent.popleft()
        else:
            self._unsent[0] = (frame[sent:], ())

    def _watch_writable(self, wanted: bool) -> None:
        if wanted is self._writing:
            return
        self._writing = wanted
        loop = asyncio.get_running_loop()
        if wanted:
            loop.add_writer(self._socket, self._flush)
        else:
            loop.remove_writer(self._socket)

    # In

    def _readable(self) -> None:
        for _ in range(_READS_AT_ONCE):
            if not self._open:
                return
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _READ_BYTES, socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._end(f"the other end is gone: {error.strerror}")
                return
            for level, kind, body in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(body[: len(body) - len(body) % fds.itemsize])
                    self._fds.extend(fds)
            if flags & socket.MSG_CTRUNC:
                self._end("descriptors were lost: this process has too many open")
                return
            if not data:
                self._end("the other end hung up")
                return
            self._unread += data
            self._take()
            if len(data) < _READ_BYTES:
                return

    def _take(self) -> None:
        at, unread = 0, self._unread
        try:
            while self._open and len(unread) - at >= _HEAD.size:
                size, kind, count = _HEAD.unpack_from(unread, at)
                if size > _MAX_FRAME_BYTES or kind > Kind.TELEMETRY or count > len(self._fds):
                    raise ValueError(f"a frame of kind {kind} with {size} bytes and {count} descriptors")
                if len(unread) - at - _HEAD.size < size:
                    break
                begin = at + _HEAD.size
                at = begin + size
                self._hand(Kind(kind), bytes(unread[begin:at]), [self._fds.popleft() for _ in range(count)])
        except ValueError as error:
            self._end(f"the other end broke the protocol: {error}")
            return
        del unread[:at]

    def _hand(self, kind: Kind, body: bytes, fds: Sequence[int]) -> None:
        if self._receiver is None:
            raise ValueError("nobody receives")
        if kind is Kind.TELEMETRY:
            self._receiver.telemetry(body)
            return
        message = orjson.loads(body)
        if not isinstance(message, dict) or not isinstance(message.get("op"), str):
            raise ValueError(f"a message that is no object with an op: {body[:100]!r}")
        self._receiver.control(message, fds)

    def _end(self, why: str) -> None:
        if not self._open:
            return
        self.close()
        if self._receiver is not None:
            self._receiver.ended(why)


def _close_all(fds: Sequence[int] | deque[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
