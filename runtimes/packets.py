"""The message between gateway and child: one small packet, of fixed form, over a SOCK_SEQPACKET socket.

Tensors never travel here: they lie in shared memory (``runtimes.channel``), and a packet says which
memories are meant, which layout they have and how many rows. Standard library only, so that a child whose
interpreter lacks numpy can still say so.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

__all__ = ["TAIL_BYTES", "ChannelFault", "Op", "Packet", "Reader", "failure", "receive", "send"]

_FORM = struct.Struct("<BBBBHxxIQd")
_SIZE = _FORM.size
TAIL_BYTES = 60 * 1024
_TEXT_BYTES = 16 * 1024
_INT_BYTES = array.array("i").itemsize
# As plain numbers: an operation on an enumeration's members costs a microsecond.
_TRUNCATED, _CLOSED_ON_EXEC = int(socket.MSG_TRUNC), int(socket.MSG_CMSG_CLOEXEC)


class ChannelFault(Exception):
    """The other side sent what the protocol does not allow."""


class Op(IntEnum):
    """Gateway to child: INPUT and OUTPUT bring a memory's descriptor, CHANNEL that of one more channel, LOAD has its
    body in input 0, RUN is a batch, NORMAL ends the low priority of loading, COUNT brings a memory with the plans to
    count with, CAPTURE asks for a profile of live rows. Child to gateway: LOADED has its body in output 0, DONE answers
    a RUN, FAILED says why not, GROW wants a larger output, COUNTS is a part of what was counted, PROFILE of what was
    captured. Both: LAYOUT numbers a layout."""

    INPUT = 1
    OUTPUT = 2
    LOAD = 3
    RUN = 4
    NORMAL = 5
    CHANNEL = 6
    LAYOUT = 7
    COUNT = 8
    CAPTURE = 9
    LOADED = 16
    DONE = 17
    FAILED = 18
    GROW = 19
    COUNTS = 20
    PROFILE = 21


_KNOWN = frozenset(int(op) for op in Op)


class Packet(NamedTuple):
    """One message; ``op`` is an ``Op``, and what the other fields mean depends on it.

    ``slot`` numbers an input memory and ``output`` an output memory. RUN: ``flags`` 1 forbids sharing the run, 2
    counting it. COUNT: ``layout`` numbers this set of plans, ``size_bytes`` is the body. COUNTS: ``layout`` is that
    number, ``slot`` the plan's place in the set, ``output`` the part's and ``flags`` how many parts there are, ``rows``
    were counted and ``size_bytes`` rows seen. CAPTURE: ``layout`` numbers it, of ``rows`` rows, ``size_bytes`` is the
    seed. PROFILE: ``layout`` is that number, ``size_bytes`` all of it; ``flags`` 1: ``tail`` says why there is none.
    ``layout`` is a number that LAYOUT gave; LAYOUT's ``rows`` are its capacity. ``rows`` of DONE are all that ran
    together, ``seconds`` what that took. ``size_bytes`` of LOAD and LOADED is the body, of GROW what is wanted.
    ``tail``: the shapes of a LAYOUT, the sizes of BYTES tensors, the text of a failure.
    """

    op: int
    slot: int = 0
    output: int = 0
    flags: int = 0
    layout: int = 0
    rows: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    tail: bytes = b""

    @property
    def failure(self) -> tuple[str, str]:
        """Kind and message of a FAILED packet."""
        kind, _, message = self.tail.decode("utf-8", "replace").partition("\n")
        return kind, message

    @property
    def name(self) -> str:
        """The operation's."""
        return Op(self.op).name


def failure(kind: str, message: str, *, slot: int = 0) -> Packet:
    return Packet(Op.FAILED, slot, tail=f"{kind}\n{message}".encode("utf-8", "replace")[:_TEXT_BYTES])


def send(sock: socket.socket, packet: Packet, fds: Sequence[int] = (), *, wait: bool = True) -> None:
    """One packet with descriptors. ``OSError`` when the other side is gone, ``ValueError`` for too long a tail.

    ``wait`` False: ``BlockingIOError`` where there is no room for it now.
    """
    data = _FORM.pack(*packet[:8])
    if packet.tail:
        if len(packet.tail) > TAIL_BYTES:
            raise ValueError(f"{len(packet.tail)} bytes do not fit a packet; {TAIL_BYTES} do")
        data += packet.tail
    if fds:
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
    else:
        sock.send(data, 0 if wait else socket.MSG_DONTWAIT)


class Reader:
    """Takes packets off one socket into a buffer of its own, so that a packet costs no allocation of its room."""

    def __init__(self, sock: socket.socket, *, fds: bool = False) -> None:
        """Without ``fds`` no descriptor is accepted: the kernel closes what the other side attached."""
        self._sock = sock
        self._buffer = bytearray(_SIZE + TAIL_BYTES)
        self._rooms = [self._buffer]
        self._fds_bytes = socket.CMSG_SPACE(_INT_BYTES) if fds else 0

    def read(self) -> Packet | None:
        """The next packet; None at the end. ``ChannelFault`` for what is none. For sockets without descriptors."""
        size = self._sock.recv_into(self._buffer, 0, _TRUNCATED)
        return self._packet(size)

    def read_with_fd(self) -> tuple[Packet | None, int | None]:
        """The same, and the descriptor that came with it, which is the caller's to close."""
        size, ancillary, flags, _ = self._sock.recvmsg_into(self._rooms, self._fds_bytes, _CLOSED_ON_EXEC)
        fd = _only(ancillary) if ancillary else None
        try:
            if flags & _TRUNCATED:
                size = len(self._buffer) + 1
            return self._packet(size), fd
        except ChannelFault:
            if fd is not None:
                os.close(fd)
            raise

    def _packet(self, size: int) -> Packet | None:
        if size < _SIZE:
            if size == 0:
                return None
            raise ChannelFault(f"a packet of {size} bytes came; expected at least {_SIZE}")
        if size > len(self._buffer):
            raise ChannelFault(f"a packet larger than {len(self._buffer)} bytes came")
        fields = _FORM.unpack_from(self._buffer)
        if fields[0] not in _KNOWN:
            raise ChannelFault(f"a packet with unknown operation {fields[0]} came")
        return Packet._make((*fields, bytes(self._buffer[_SIZE:size])))


def _only(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The first descriptor; more than one is asked for by nobody, and closed."""
    came = array.array("i")
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            came.frombytes(body[: len(body) - len(body) % _INT_BYTES])
    for fd in came[1:]:
        os.close(fd)
    return came[0] if came else None


def receive(sock: socket.socket, *, fds: bool = False) -> tuple[Packet, int | None] | None:
    """The next packet and the descriptor with it; None at the end. For those who read one packet only."""
    reader = Reader(sock, fds=fds)
    packet, fd = reader.read_with_fd() if fds else (reader.read(), None)
    return None if packet is None else (packet, fd)
