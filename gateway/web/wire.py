"""Inference without the round through ASGI, for a request that has come whole.

uvicorn spends as much on a small request as everything else here together: a scope, a cycle with an
event, a body copied twice, messages both ways, two regular expressions for each header of the
answer. A request for inference whose head and body came in one read needs none of it: it is begun
as soon as its last byte is parsed, and answered with one write. One whose body is binary tensors, or
large JSON, is begun once its head is here, and the body received in place (``gateway.web.arrival``). Whatever else
a connection carries (other paths, other bodies that come in pieces, pipelined or upgraded requests,
``Expect``) goes through uvicorn as ever, to the same application.
"""

from __future__ import annotations

from typing import Any

from httptools import HttpParserError, HttpRequestParser

from gateway.web.application import Application, Endpoint, Head
from gateway.web.arrival import Arrival
from gateway.web.direct_exchange import DirectExchange
from gateway.web.headers import Headers
from gateway.web.patience import BUSY, PatientProtocol, refusal

__all__ = ["WireProtocol"]

_COLD = frozenset({b"expect", b"transfer-encoding", b"upgrade", b"content-encoding"})
"""Headers that ask for more than is done here."""

_HEAD_END = b"\r\n\r\n"

_MOST_QUEUED = 256
"""Requests behind one that is not answered yet: one read may bring thousands, of two kilobytes each."""

_MOST_DIGITS = 18
"""Of a body's length."""

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
        self.work: DirectExchange | None = None

    def data_received(self, data: bytes) -> None:
        if not self._parsing and self._application is not None:
            end = data.find(_HEAD_END) + len(_HEAD_END)
            head = self._application.heads.get(data[:end])
            if head is not None and self._is_free():
                missing = head.body_bytes - (len(data) - end)
                if missing == 0:
                    self._idle_since = BUSY
                    self._answer(self._application, head, data[end:])
                    return
                if missing > 0 and head.in_place:
                    self._receive_in_place(self._application, head, memoryview(data)[end:])
                    return
            self._read = data
        if self._refusal:
            self._read = b""
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            self._read = b""
            self.see_off()
            return
        if self._parsing and not self._head_complete and self._head_bytes > _HEAD_BYTES:
            self._refuse(refusal(431, "The head of the request is too long."))
            return
        if self._held and not (self._head_complete and self._begin_in_place()):
            self._let_go()
        self._read = b""
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

    def _begin_in_place(self) -> bool:
        """Begins the request whose head has been parsed, and takes the rest of its body in; False if it is for
        uvicorn."""
        application, inference, length = self._application, self._inference, self._named.get(b"content-length", b"")
        if application is None or inference is None or not (length.isdigit() and len(length) < _MOST_DIGITS):
            return False
        endpoint, path = inference
        head = application.head_of(endpoint, path, Headers(self._named), int(length))
        if not head.in_place:
            return False
        begun = b"".join(self._pieces)
        self._receive_in_place(application, head, begun)
        end = self._read.find(_HEAD_END) + len(_HEAD_END)
        if len(self._read) == end + len(begun):
            application.remember(self._read[:end], head)
        return True

    def _receive_in_place(self, application: Application, head: Head, begun: bytes | memoryview) -> None:
        """Of the body, ``begun`` has come."""
        if self._parsing:  # its parser would wait for this body
            self.parser = new_parser(self)
            self._parsing = self._held = False
            self._pieces = []
        self._idle_since = BUSY
        work = self.work = DirectExchange(self, application, head, None)
        self.cycle = work  # type: ignore[assignment]
        arrival = Arrival(
            self, self.transport, begun, head.body_bytes, receive_s=application.receive_s, arrived=work.arrived
        )
        work.expect(arrival)
        work.begin(application.infer(head.endpoint, work))
        arrival.wait()

    def _begin(self) -> None:
        application, inference, pieces = self._application, self._inference, self._pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if application is None or inference is None or len(body) > application.body_bytes:
            self._let_go()
            super().on_message_complete()
            return
        self._pieces = []  # an idle connection holds no body
        endpoint, path = inference
        head = application.head_of(endpoint, path, Headers(self._named), len(body))
        end = self._read.find(_HEAD_END) + len(_HEAD_END)
        if len(self._read) == end + len(body):
            application.remember(self._read[:end], head)
        self._answer(application, head, body)

    def _answer(self, application: Application, head: Head, body: bytes) -> None:
        work = self.work = DirectExchange(self, application, head, body)
        self.cycle = work  # type: ignore[assignment]
        work.begin(application.infer(head.endpoint, work))


def new_parser(protocol: WireProtocol) -> HttpRequestParser:
    """As uvicorn makes it."""
    parser = HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
