"""The messages between gateway and decoder: small JSON objects on a SOCK_SEQPACKET socket, and descriptors.

Texts, facts and arrays lie in shared memory. Errors cross by name, words and places.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.errors import BadRequest, FieldProblem, InvalidInput, TooLarge, TurnoutError, UnsupportedContent

__all__ = ["FACTS", "error_of", "receive", "refusal_of", "send"]

FACTS = ""
"""The name under which the facts travel among the arrays; no input has it."""

_PACKET_BYTES = 128 * 1024
_FDS = 2
_ERRORS: dict[str, type[TurnoutError]] = {
    kind.__name__: kind for kind in (BadRequest, InvalidInput, TooLarge, UnsupportedContent)
}


def send(sock: socket.socket, body: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """``OSError`` when the other side is gone."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([orjson.dumps(body)], ancillary)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors; None at the end."""
    room = socket.CMSG_SPACE(_FDS * array.array("i").itemsize)
    data, ancillary, _, _ = sock.recvmsg(_PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    fds = array.array("i")
    for level, kind, rights in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return orjson.loads(data), fds.tolist()


def refusal_of(error: TurnoutError) -> dict[str, Any]:
    problems: Sequence[FieldProblem] = getattr(error, "problems", ())
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "problems": [[problem.field, problem.expected, problem.got] for problem in problems],
    }


def error_of(refusal: dict[str, Any]) -> TurnoutError:
    kind = _ERRORS.get(refusal["kind"], TurnoutError)
    if kind is BadRequest or kind is InvalidInput:
        return kind(refusal["message"], *(FieldProblem(*problem) for problem in refusal["problems"]))
    return kind(refusal["message"])
