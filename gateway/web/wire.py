"""Inference without the round through ASGI, for a request that has come whole.

uvicorn spends as much on a small request as everything else here together: a scope, a cycle with an
event, a body copied twice, messages both ways, two regular expressions for each header of the
answer. A request for inference whose head and body came in one read needs none of it: it is begun
as soon as its last byte is parsed, and answered with one write. Whatever else a connection carries
(other paths, bodies that come in pieces, pipelined or upgraded requests, ``Expect``) goes through
uvicorn as ever, to the same application.
"""

from __future__ import annotations

import asyncio
import http
from collections.abc import Coroutine, Iterable
from typing import Any

from httptools import HttpParserError
from starlette.types import Message

from gateway.web.application import Application, Endpoint, Head
from gateway.web.exchange import Exchange, HeaderLine
from gateway.web.headers import Headers
from gateway.web.patience import BUSY, PatientProtocol, refusal

__all__ = ["WireProtocol"]

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}
_COLD = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"content-encoding"})
"""Headers that ask for more than is done here."""

_HEAD_END = b"\r\n\r\n"

_JOINED_BYTES = 64 * 1024
"""An answer up to here goes out in one piece; a larger one is not copied behind its head."""

_MOST_QUEUED = 256
"""Requests behind one that is not answered yet: one read may bring thousands, of two kilobytes each."""

_HEAD_BYTES = 64 * 1024
"""A head that goes on for longer, after the read in which it began, is refused: the parser has no limit of its own."""


class WireProtocol(PatientProtocol):
    """uvicorn's protocol, but for inference that comes whole.

    A request is held back until its read has been parsed to the end (``_held``). Then it is either
    complete, and answered here, or uvicorn is told of it from the first callback on.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        application = self.config.app
        self._application = application if isinstance(application, Application) and not self.root_path else None
        if self._application is not None:
            self.patience_s = self._application.receive_s
        self._held = False
        self._head_complete = False
        # Of a head under way, without the read in which it began.
        self._head_bytes = 0
        # From a message's first byte to its last.
        self._parsing = False
        # What is being parsed, if it began with a message.
        self._read = b""
        self._pieces: list[bytes] = []
        self._named: dict[bytes, bytes] = {}
        self._inference: tuple[Endpoint, str] | None = None
        # The request being answered here; uvicorn sees it as the cycle under way.
        self.work: _Work | None = None

    def data_received(self, data: bytes) -> None:
        if not self._parsing and self._application is not None:
            end = data.find(_HEAD_END) + len(_HEAD_END)
            head = self._application.heads.get(data[:end])
            if head is not None and len(data) - end == head.body_bytes and self._is_free():
                self._idle_since = BUSY
                self._answer(self._application, head, data[end:])
                return
            self._read = data
        if self._refusal:
            self._read = b""
            return
        self._head_bytes += len(data)
        super().data_received(data)
        self._read = b""
        if self.transport.is_closing():
            self.see_off()
            return
        if self._parsing and not self._head_complete and self._head_bytes > _HEAD_BYTES:
            self._refuse(refusal(431, "The head of the request is too long."))
            return
        if self._held:
            self._let_go()
        if self._parsing:
            self._watch_the_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        work, self.work = self.work, None
        if work is not None:
            work.cancel()
        super().connection_lost(exc)
        # Each refers to this connection: left here, both would wait for the collector, which seldom comes.
        self.cycle = None  # type: ignore[assignment]
        self.pipeline.clear()

    # What the parser calls

    def _unset_keepalive_if_required(self) -> None:
        """At each read. Only a request ends idleness: blank lines may come before one (RFC 9112, 2.2), and would else
        hold a connection for ever."""
        if self._parsing:
            self._idle_since = BUSY

    def on_message_begin(self) -> None:
        self._parsing = True
        self._head_complete = False
        self._head_bytes = 0
        self._idle_since = BUSY  # an answer before it in the same read may have set it
        if self._application is None:
            super().on_message_begin()
            return
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._pieces = []
        self._held = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """uvicorn's own, but for the blanks behind a value: they are no part of it (RFC 9112, 5.1), and the parser
        leaves them there. Trailers come here, too, and are no headers (RFC 9110, 6.5.1)."""
        if self._head_complete:
            return
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._head_complete = True
        self.in_time()
        if not self._held:
            super().on_headers_complete()
        elif not self._may_be_answered_here():
            if len(self.pipeline) >= _MOST_QUEUED:
                raise HttpParserError("too many requests behind each other")  # ends the parsing, and the connection
            self._let_go()

    def on_body(self, body: bytes) -> None:
        if self._held:
            self._pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._parsing = False
        self.in_time()
        if self._held:
            self._held = False
            self._begin()
        else:
            super().on_message_complete()
            if self.cycle.response_complete:
                self.begin_idleness()

    def _may_be_answered_here(self) -> bool:
        application, parser = self._application, self.parser
        self._named = dict(self.headers)
        self._inference = None if application is None else application.inference_at_url(self.url)
        return (
            self._inference is not None
            and parser.get_method() == b"POST"
            and self._is_free()
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and _COLD.isdisjoint(self._named)
        )

    def _is_free(self) -> bool:
        """Nothing before it waits for its answer, and the client takes in what it gets."""
        cycle = self.cycle
        return (cycle is None or cycle.response_complete) and not self.pipeline and not self.flow.write_paused

    def _watch_the_rest(self) -> None:
        """A body that was not answered yet is watched by who reads it."""
        if not self._head_complete:
            text = f"The head of the request did not arrive within {self.patience_s:g} s."
            self.expect_the_rest(refusal(408, text))
        elif self.cycle.response_complete:
            self.expect_the_rest(b"")

    def send_400_response(self, msg: str) -> None:
        self._refuse(refusal(400, msg))

    def _refuse(self, last_word: bytes) -> None:
        """Not in the place of an answer that is under way: behind it."""
        of_its_body = self._parsing and self._head_complete and not self._held
        self._held = self._parsing = False
        if of_its_body or self.cycle is None or self.cycle.response_complete:
            self.end_with(last_word)
        else:
            self._refusal = last_word
            self.flow.pause_reading()

    def _let_go(self) -> None:
        """Tells uvicorn of the request, as far as it has been parsed."""
        self._held = False
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        self.expect_100_continue = expects
        if self._head_complete:
            super().on_headers_complete()
            for piece in self._pieces:
                super().on_body(piece)
        self._pieces = []

    def _begin(self) -> None:
        application, inference, pieces = self._application, self._inference, self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if application is None or inference is None or len(body) > application.body_bytes:
            self._let_go()
            super().on_message_complete()
            return
        self._pieces = []  # an idle connection holds no body
        endpoint, path = inference
        head = Head(endpoint, path, Headers(self._named), len(body))
        end = self._read.find(_HEAD_END) + len(_HEAD_END)
        if len(self._read) == end + len(body):
            application.remember(self._read[:end], head)
        self._answer(application, head, body)

    def _answer(self, application: Application, head: Head, body: bytes) -> None:
        work = self.work = _Work(self, application, head, body)
        self.cycle = work  # type: ignore[assignment]
        work.begin(application.infer(head.endpoint, work))


class _Work(Exchange):
    """A request that has come whole, answered here with one write. Header values are not looked at: every one is ours,
    or was checked when it was taken.

    In uvicorn's eyes it is its cycle: ``response_complete``, ``disconnected``, ``message_event`` and ``keep_alive`` are
    what it reads and writes of one.

    It runs its coroutine itself: at once as far as its first wait, which is mostly the queue, and on when
    that is over. A task would cost 4 µs and a turn of the loop more. So there is no current task
    in it, and what needs one (a time-out, say) is awaited as a task of its own.
    """

    __slots__ = (
        "_application", "_awaited", "_cancelled", "_confesses", "_coroutine", "_protocol", "disconnected", "keep_alive",
        "response_complete",
    )  # fmt: skip

    def __init__(self, protocol: WireProtocol, application: Application, head: Head, body: bytes) -> None:
        _, path, headers, _ = head
        super().__init__("POST", path, headers, _left, contexts=application.contexts, peer=protocol.client)
        self.body = body
        self.whole = True
        self._application = application
        self._protocol = protocol
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._awaited: asyncio.Future[Any] | None = None
        self._cancelled = self._confesses = False
        self.response_complete = False
        self.disconnected = False
        self.keep_alive = True

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
        """No client is left to wait for an answer that will not come: whatever ended the work, it gets one."""
        self._coroutine = self._awaited = None
        if self._protocol.work is self:
            self.keep_alive = False
            self._finish([_STATUS_LINES[500], b"content-length: 0\r\n"], b"")

    @property
    def message_event(self) -> _Work:
        return self

    def set(self) -> None:
        """Somebody would be told of the client's end; the protocol has told the task."""

    def _finish(self, head: list[bytes], body: bytes) -> None:
        protocol = self._protocol
        if protocol.work is not self:
            return  # the client has left
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
        if not self.keep_alive:
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
