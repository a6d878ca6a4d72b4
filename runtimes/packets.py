"""The message between gateway and child: one small packet, of fixed form, over a SOCK_SEQPACKET socket.

Tensors and long texts never travel here: they lie in shared memory (``runtimes.channel``), and a
packet only says how many bytes of it are the header. Standard library only, so that a child whose
interpreter lacks numpy can still say so.
"""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["ChannelFault", "Op", "Packet", "failure", "receive", "send"]

_FORM = struct.Struct("<BBIQd")
_TEXT_BYTES = 16 * 1024
_FDS = 4


class ChannelFault(Exception):
    """The other side sent what the protocol does not allow."""


class Op(IntEnum):
    """Gateway to child: INPUT and OUTPUT bring a memory's descriptor, LOAD and RUN have their header in the input.
    Child to gateway: LOADED and DONE have theirs in the output, FAILED says why, GROW wants a larger output."""

    INPUT = 1
    OUTPUT = 2
    LOAD = 3
    RUN = 4
    NORMAL = 5
    LOADED = 16
    DONE = 17
    FAILED = 18
    GROW = 19


@dataclass(frozen=True, slots=True)
class Packet:
    """``slot`` numbers the pair of memories meant (one today); ``seconds`` is compute time in DONE;
    ``kind`` and ``text`` tell a failure."""

    op: Op
    slot: int = 0
    header_bytes: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    text: str = ""

    def encode(self) -> bytes:
        head = _FORM.pack(self.op, self.slot, self.header_bytes, self.size_bytes, self.seconds)
        return head + self.text.encode("utf-8", "replace")[:_TEXT_BYTES]

    @classmethod
    def decode(cls, data: bytes) -> Packet:
        """Raises ``ChannelFault`` when the bytes are no packet."""
        if len(data) < _FORM.size:
            raise ChannelFault(f"a packet of {len(data)} bytes came; expected at least {_FORM.size}")
        op, slot, header_bytes, size_bytes, seconds = _FORM.unpack_from(data)
        try:
            known = Op(op)
        except ValueError:
            raise ChannelFault(f"a packet with unknown operation {op} came") from None
        return cls(known, slot, header_bytes, size_bytes, seconds, data[_FORM.size :].decode("utf-8", "replace"))

    @property
    def failure(self) -> tuple[str, str]:
        """Kind and message of a FAILED packet."""
        kind, _, message = self.text.partition("\n")
        return kind, message


def failure(kind: str, message: str) -> Packet:
    return Packet(Op.FAILED, text=f"{kind}\n{message}")


def send(sock: socket.socket, packet: Packet, fds: Sequence[int] = ()) -> None:
    """One packet with descriptors. ``OSError`` when the other side is gone."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([packet.encode()], ancillary)


def receive(sock: socket.socket, *, fds: int = 0) -> tuple[Packet, list[int]] | None:
    """The next packet and its descriptors; None at the end. ``ChannelFault`` for what is no packet.

    With ``fds`` 0 no descriptor is accepted: the kernel closes what the other side attached.
    """
    room = socket.CMSG_SPACE(_FDS * array.array("i").itemsize) if fds else 0
    data, ancillary, flags, _ = sock.recvmsg(_FORM.size + _TEXT_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    came = array.array("i")
    for level, kind, body in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            came.frombytes(body[: len(body) - len(body) % came.itemsize])
    if flags & socket.MSG_TRUNC:
        raise ChannelFault(f"a packet larger than {_FORM.size + _TEXT_BYTES} bytes came")
    if not data:
        return None
    return Packet.decode(data), list(came)
