"""A request that its connection answers itself, without the round through ASGI: see ``gateway.web.wire``."""

from __future__ import annotations

import asyncio
import http
from collections.abc import Coroutine, Iterable
from typing import Any, Protocol

from starlette.types import Message

from gateway.web.application import Application, Head
from gateway.web.arrival import Arrival
from gateway.web.exchange import Exchange, HeaderLine

__all__ = ["Connection", "DirectExchange"]

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}

_JOINED_BYTES = 64 * 1024
"""An answer up to here goes out in one piece; a larger one is not copied behind its head."""


class Connection(Protocol):
    """What it needs of the protocol whose request it is. ``work``: what is being answered there."""

    client: tuple[str, int] | None
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    work: DirectExchange | None

    def on_response_complete(self) -> None: ...


class DirectExchange(Exchange):
    """A request that has come whole, answered here with one write. Header values are not looked at: every one is ours,
    or was checked when it was taken.

    In uvicorn's eyes it is its cycle: ``response_complete``, ``disconnected``, ``message_event`` and ``keep_alive`` are
    what it reads and writes of one.

    It runs its coroutine itself: at once as far as its first wait, which is mostly the queue, and on when
    that is over. A task would cost 4 µs and a turn of the loop more. So there is no current task
    in it, and what needs one (a time-out, say) is awaited as a task of its own.
    """

    cancelled_by_leaving = True

    __slots__ = (
        "_application", "_arrival", "_awaited", "_cancelled", "_confesses", "_coroutine", "_protocol", "disconnected",
        "keep_alive", "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: Connection, application: Application, head: Head, body: bytes | None) -> None:
        """``body``: None where it is on its way (``expect``)."""
        _, path, headers, _, _ = head
        super().__init__("POST", path, headers, _left, contexts=application.contexts, peer=protocol.client)
        self.body = body
        self.whole = body is not None
        self._application = application
        self._arrival: Arrival | None = None
        self._protocol = protocol
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._cancelled = self._confesses = False
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True

    def expect(self, arrival: Arrival) -> None:
        self._arrival = self.arriving = arrival

    def arrived(self) -> None:
        self.whole = True
        self._arrival = None

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._step()

    def cancel(self) -> None:
        """As a task's: what it waits for is cancelled; if that has just come, it is told at its next step."""
        if self._coroutine is not None and (self._awaited is None or not self._awaited.cancel()):
            self._cancelled = True

    def _step(self, _: object = None) -> None:
        coroutine = self._coroutine
        if coroutine is None:
            return
        try:
            if self._cancelled:
                self._cancelled = False
                awaited = coroutine.throw(asyncio.CancelledError())
            else:
                awaited = coroutine.send(None)
        except (StopIteration, asyncio.CancelledError):
            self._end()
            return
        except BaseException as fault:
            if self._confesses or not isinstance(fault, Exception):
                self._end()
                raise
            # The outermost boundary, as the application has it where a server runs it.
            self._confesses = True
            self.begin(self._application.confess(self, fault))
            return
        self._awaited = awaited
        if awaited is None:  # a bare yield: a turn of the loop
            self._protocol.loop.call_soon(self._step)
        else:
            awaited._asyncio_future_blocking = False  # noqa: SLF001 - what a task does with a future that it was given
            awaited.add_done_callback(self._step)

    def _end(self) -> None:
        """No client is left to wait for an answer that will not come: whatever ended the work, it gets one. The
        connection knows this until its next request, and an idle one holds no body."""
        self._coroutine = self._awaited = self.body = self.arriving = None
        if self._protocol.work is self:
            self.keep_alive = False
            self._finish([_STATUS_LINES[500], b"content-length: 0\r\n"], b"")

    @property
    def message_event(self) -> DirectExchange:
        return self

    def set(self) -> None:
        """Somebody would be told of the client's end; the protocol has told the task."""

    def _finish(self, head: list[bytes], body: bytes) -> None:
        protocol = self._protocol
        if protocol.work is not self:
            return  # the client has left
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            self.keep_alive = False
        if not self.keep_alive:
            head.append(b"connection: close\r\n")
        head.append(b"\r\n")
        transport = protocol.transport
        if len(body) <= _JOINED_BYTES:
            head.append(body)
            transport.write(b"".join(head))
        else:
            transport.write(b"".join(head))
            transport.write(body)
        self.response_complete = True
        protocol.work = None
        if arrival is not None:
            arrival.linger()
        elif not self.keep_alive:
            transport.close()
        protocol.on_response_complete()

    def answer_at_once(
        self, status: int, body: bytes, content_type: bytes, lines: str, headers: Iterable[HeaderLine] = ()
    ) -> bool:
        self.started = True
        # Text, encoded once: a piece for each name and each value costs three times as much.
        names = (
            f"\r\ncontent-length: {len(body)}\r\nx-request-id: {self.request_id}\r\n"
            f"traceparent: {self.traceparent}\r\n{lines}"
        )
        head = [_STATUS_LINES[status], b"content-type: ", content_type, names.encode("latin-1")]
        for name, value in headers:
            head += (name, b": ", value, b"\r\n")
        self._finish(head, body)
        return True

    async def answer(self, status: int, body: bytes, content_type: bytes, headers: Iterable[HeaderLine] = ()) -> None:
        self.answer_at_once(status, body, content_type, "", headers)


async def _left() -> Message:
    return {"type": "http.disconnect"}
