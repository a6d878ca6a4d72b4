"""HTTP that is no inference, answered by the node: ASGI messages over a socket pair, one pair a request.

No private server, no path, no parser: the worker has parsed the request, and what it hands on is
the very ASGI scope and messages, so an upload streams with back-pressure and a client that leaves is
seen by the node as one that left. Only who holds the pair can speak, so nothing needs to be guarded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, MutableMapping
from enum import IntEnum
from typing import Any

import orjson

__all__ = ["ask", "serve"]

log = logging.getLogger("turnout.workers")

_HEAD = struct.Struct("<IB")
_MAX_FRAME_BYTES = 64 * 1024 * 1024
_DROPPED_BYTES = 256 * 1024
_COPIED = ("http_version", "method", "scheme", "path", "root_path")

Message = MutableMapping[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Message], Any]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Any]


class _Frame(IntEnum):
    SCOPE = 0
    BODY_MORE = 1
    BODY_LAST = 2
    START = 3


class _CutShort(ConnectionError):
    pass


async def ask(hand_over: Callable[[int], None], scope: MutableMapping[str, Any], receive: Receive, send: Send) -> bool:
    """Has the node answer one request. ``hand_over`` brings it the other end's descriptor, which it then owns.

    False when the node gave no answer: then nothing was sent to the client. Cancelling it tells the
    node that the client left. Where the client does leave, nobody is owed an answer, or the rest of one.
    """
    ours, theirs = socket.socketpair()
    hand_over(theirs.detach())
    reader, writer = await asyncio.open_connection(sock=ours)
    _write(writer, _Frame.SCOPE, _pack_scope(scope))
    pumping = asyncio.ensure_future(_pump(receive, writer))
    try:
        return await _answer(reader, send)
    except _CutShort:
        if writer.is_closing():  # by ``_pump``: the client left
            return True
        raise
    finally:
        pumping.cancel()
        writer.close()
        await asyncio.wait({pumping})


async def _pump(receive: Receive, writer: asyncio.StreamWriter) -> None:
    """The request's body, as it comes; then the client's end, which ends the connection."""
    with contextlib.suppress(ConnectionError):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                writer.close()
                return
            more = message.get("more_body", False)
            _write(writer, _Frame.BODY_MORE if more else _Frame.BODY_LAST, message.get("body", b""))
            await writer.drain()


async def _answer(reader: asyncio.StreamReader, send: Send) -> bool:
    started = False
    try:
        while True:
            kind, body = await _read(reader)
            if kind is _Frame.START:
                status, headers = orjson.loads(body)
                lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
                await send({"type": "http.response.start", "status": status, "headers": lines})
                started = True
            else:
                more = kind is _Frame.BODY_MORE
                await send({"type": "http.response.body", "body": body, "more_body": more})
                if not more:
                    return True
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        if started:
            raise _CutShort("the node ended in the middle of an answer") from None
        return False


async def serve(application: Application, connection: socket.socket) -> None:
    """Answers the one request that comes over ``connection``."""
    reader, writer = await asyncio.open_connection(sock=connection)
    answer = _Answer(writer)
    try:
        kind, body = await _read(reader)
        if kind is not _Frame.SCOPE:
            raise ValueError(f"expected a scope, got frame {kind.name}")
        await application(_unpack_scope(body), _receiver(reader), answer.send)
        if answer.whole:
            # The worker closes: if we did, what it still sends of a body that nobody wanted would break the
            # connection under an answer that it has not read yet.
            while await reader.read(_DROPPED_BYTES):
                pass
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as error:
        log.debug("a request from a worker was given up: %s", error)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _receiver(reader: asyncio.StreamReader) -> Receive:
    async def receive() -> Message:
        try:
            kind, body = await _read(reader)
        except (asyncio.IncompleteReadError, ConnectionError, ValueError):
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": kind is _Frame.BODY_MORE}

    return receive


class _Answer:
    """What the application sends, on its way to the worker; ``whole`` once its last byte is. What is sent to a client
    that has left is dropped, as servers of ASGI do: it is no fault of the application's."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.whole = False

    async def send(self, message: Message) -> None:
        if self._writer.is_closing():
            return
        if message["type"] == "http.response.start":
            lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in message.get("headers", ())]
            _write(self._writer, _Frame.START, orjson.dumps([message["status"], lines]))
        elif message["type"] == "http.response.body":
            more = message.get("more_body", False)
            _write(self._writer, _Frame.BODY_MORE if more else _Frame.BODY_LAST, message.get("body", b""))
            with contextlib.suppress(ConnectionError):
                await self._writer.drain()
            self.whole = not more


def _write(writer: asyncio.StreamWriter, kind: _Frame, body: bytes) -> None:
    writer.write(_HEAD.pack(len(body), kind))
    writer.write(body)


async def _read(reader: asyncio.StreamReader) -> tuple[_Frame, bytes]:
    """Raises IncompleteReadError at the end, ValueError for what is no frame."""
    size, kind = _HEAD.unpack(await reader.readexactly(_HEAD.size))
    if size > _MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes")
    return _Frame(kind), await reader.readexactly(size)


def _pack_scope(scope: MutableMapping[str, Any]) -> bytes:
    """Bytes travel as Latin-1 text, which is what they are in HTTP."""
    body = {name: scope[name] for name in _COPIED if name in scope}
    body["raw_path"] = scope.get("raw_path", b"").decode("latin-1")
    body["query_string"] = scope.get("query_string", b"").decode("latin-1")
    body["headers"] = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
    body["client"] = list(scope.get("client") or ()) or None
    body["server"] = list(scope.get("server") or ()) or None
    return orjson.dumps(body)


def _unpack_scope(packed: bytes) -> dict[str, Any]:
    body = orjson.loads(packed)
    return {
        **{name: body[name] for name in _COPIED if name in body},
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "raw_path": body["raw_path"].encode("latin-1"),
        "query_string": body["query_string"].encode("latin-1"),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in body["headers"]],
        "client": tuple(body["client"]) if body["client"] else None,
        "server": tuple(body["server"]) if body["server"] else None,
        "state": {},
    }
