"""One HTTP exchange on raw ASGI: its headers, its names, and the one answer it gets."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from gateway.errors import TurnoutError
from gateway.trace_context import Contexts
from gateway.web.headers import Headers
from gateway.web.identity import request_id_of
from gateway.web.problems import Problem, render_oip, render_problem

__all__ = [
    "EXCHANGE",
    "LINGER_BYTES",
    "LINGER_S",
    "Arriving",
    "AsgiExchange",
    "ClientLeft",
    "Exchange",
    "HeaderLine",
    "Sink",
]

HeaderLine = tuple[bytes, bytes]

EXCHANGE = "turnout.exchange"
"""Where a Starlette endpoint finds its Exchange in the scope."""

LINGER_S = 1.0
LINGER_BYTES = 4 * 1024 * 1024
"""How much of a body that was answered already is let in, so that its client gets to read the answer."""


class ClientLeft(Exception):
    """The client closed the connection; nobody waits for an answer."""


class Sink(Protocol):
    """Memory that a body comes into. ``room``: for what comes next, at least a byte and at most so many; ``filled``
    tells how many came, and may raise a TurnoutError: it takes no more."""

    def room(self, most: int) -> memoryview: ...

    def filled(self, count: int) -> None: ...


class Arriving(Protocol):
    """A body of known ``size`` that is still on its way. ``begun`` is what has come. ``into`` takes in the rest, and
    returns when all of it is there; raises ReceiveTimeout, and what the sink raises. ``refuse`` raises this there."""

    @property
    def size(self) -> int: ...

    @property
    def begun(self) -> bytes | memoryview: ...

    async def into(self, sink: Sink) -> None: ...

    def refuse(self, error: TurnoutError) -> None: ...


class Exchange(ABC):
    """What every handler needs of a request, read once, and the way back.

    ``whole`` becomes True when the body has been received to its end (set by ``gateway.web.body``);
    ``started`` when the answer's first byte has gone out. ``body`` is there from the start where the whole
    request was; ``arriving`` gives it where its reader may have it in place. ``cancelled_by_leaving``: a client that
    leaves cancels the work itself, and nobody need watch ``receive``.
    """

    cancelled_by_leaving = False

    __slots__ = (
        "arriving",
        "body",
        "headers",
        "method",
        "path",
        "peer",
        "receive",
        "request_id",
        "started",
        "trace",
        "traceparent",
        "whole",
    )

    def __init__(
        self,
        method: str,
        path: str,
        headers: Headers,
        receive: Receive,
        *,
        contexts: Contexts,
        peer: Sequence[Any] | None = None,
    ) -> None:
        """``peer``: host and port of the client, None where there is no such thing."""
        self.method = method
        self.path = path
        self.peer = peer
        self.receive = receive
        self.headers = headers
        raw = headers.raw
        if b"traceparent" in raw:
            trace = contexts.accept(headers.get("traceparent"), headers.get("tracestate"))
        else:
            trace = contexts.new()
        self.trace = trace
        self.traceparent = trace.traceparent
        sent = raw.get(b"x-request-id")
        if sent is None and trace.parent_span_id is None:
            self.request_id = trace.trace_id  # as most are named
        else:
            self.request_id = request_id_of(sent, trace)
        self.body: bytes | None = None
        self.arriving: Arriving | None = None
        self.started = False
        self.whole = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.method} {self.path!r} [{self.request_id}]>"

    @property
    def speaks_oip(self) -> bool:
        return self.path == "/v2" or self.path.startswith("/v2/")

    def names(self) -> list[HeaderLine]:
        """The headers that every answer carries."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"traceparent", self.traceparent.encode()),
        ]

    def answer_at_once(
        self, status: int, body: bytes, content_type: bytes, lines: str, headers: Iterable[HeaderLine] = ()
    ) -> bool:
        """Sends the whole answer if that takes no waiting; False where it has to be awaited (``answer``). ``lines``:
        further headers as they stand on the wire, each with its end, in Latin-1."""
        return False

    @abstractmethod
    async def answer(self, status: int, body: bytes, content_type: bytes, headers: Iterable[HeaderLine] = ()) -> None:
        """Sends the whole answer, with ``names`` among its headers."""

    async def answer_problem(self, problem: Problem, headers: Iterable[HeaderLine] = ()) -> None:
        lines = (*problem.headers, *headers)
        if self.speaks_oip:
            await self.answer(problem.status, render_oip(problem), b"application/json", lines)
        else:
            body = render_problem(problem, self.request_id)
            await self.answer(problem.status, body, b"application/problem+json", lines)


class AsgiExchange(Exchange):
    """An exchange as an ASGI server has it."""

    __slots__ = ("scope", "send")

    def __init__(self, scope: Scope, receive: Receive, send: Send, *, contexts: Contexts) -> None:
        super().__init__(
            scope["method"],
            scope["path"],
            Headers(dict(scope["headers"])),
            receive,
            contexts=contexts,
            peer=scope.get("client"),
        )
        self.scope = scope
        self.send = send

    async def answer(self, status: int, body: bytes, content_type: bytes, headers: Iterable[HeaderLine] = ()) -> None:
        """Sends the whole answer. If the request's body is still on its way, the rest of it is let in and
        dropped, up to a bound, so that the client gets to read the answer; then the connection ends."""
        lines = [(b"content-type", content_type), (b"content-length", b"%d" % len(body)), *self.names(), *headers]
        unread = not self.whole and self._expects_body()
        if unread:
            lines.append((b"connection", b"close"))
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": lines})
        await self.send({"type": "http.response.body", "body": body, "more_body": unread})
        if unread:
            await self._linger()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def naming_send(self) -> Send:
        """A ``send`` for handlers that know nothing of request ids: adds ``names`` to their answer."""

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.started = True
                message["headers"] = [*message.get("headers", ()), *self.names()]
            await self.send(message)

        return send

    def _expects_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers

    async def _linger(self) -> None:
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_S):
                while left > 0:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
                    left -= len(message.get("body", b""))
        except TimeoutError:
            return
