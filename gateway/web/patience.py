"""A connection that waits for its client, but not for ever.

uvicorn knows one time-out: a connection is closed when nothing has come for a while after an answer. A client that
never begins, sends its head a byte at a time, goes on sending a body that was answered already, or does not take its
answer, would keep a descriptor, and the answer, for as long as it likes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BUSY", "Outgoing", "PatientProtocol", "outgoing", "refusal"]

BUSY = -1.0
"""Since when a connection is idle that is not."""


_TCP_INFO_BYTES = 148
_UNACKNOWLEDGED, _ACKNOWLEDGED, _UNSENT = struct.Struct("@24xI"), struct.Struct("@120xQ"), struct.Struct("@144xI")
"""Where Linux's ``tcp_info`` has them: segments that are under way, bytes that arrived, bytes that have yet to go."""


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol with an end to each wait: ``timeout_keep_alive`` where nothing is under way, ``patience_s``
    where the client has something to send or to take."""

    patience_s = 30.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle_since = BUSY
        # For the rest of what is being parsed; set by who knows that nobody else waits for it.
        self._late: asyncio.TimerHandle | None = None
        self._last_word = b""
        # What is said behind the answers under way, as the last; nothing more is read then.
        self._refusal = b""
        self._untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.begin_idleness()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self.timeout_keep_alive_task, self._late, self._untaken):
            if timer is not None:
                timer.cancel()
        self.timeout_keep_alive_task = self._late = self._untaken = None
        super().connection_lost(exc)

    # Nothing is under way

    def _unset_keepalive_if_required(self) -> None:
        """Asked twice a request. The timer is left standing and looks how long it has been idle when it rings: to set
        one anew costs a request a microsecond."""
        self._idle_since = BUSY

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.see_off()
            return
        if self.pipeline:
            # Without reading on, as uvicorn would: for each answer another read may bring thousands of requests. One
            # that waits for its body reads on by itself.
            self._start_asgi_task(*self.pipeline.pop())
            return
        if self._refusal:
            self.end_with(self._refusal)
            return
        self.flow.resume_reading()
        if self._late is not None:  # it could not be read until now
            self.in_time()
            self.expect_the_rest(self._last_word)
        self.begin_idleness()

    def begin_idleness(self) -> None:
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idleness(self.timeout_keep_alive)

    def _watch_idleness(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since == BUSY:
            return  # the next answer sets it anew
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._watch_idleness(left_s)
        elif outgoing(self.transport).left:  # a large answer is on its way, perhaps slowly
            if self._untaken is None:
                self._watch_taking()
            self._watch_idleness(self.timeout_keep_alive)
        else:
            super().timeout_keep_alive_handler()

    # The client has something to send

    def expect_the_rest(self, last_word: bytes) -> None:
        """What is being parsed has to come, and nobody but this connection waits for it; if it does not, the client
        is told ``last_word``."""
        if self._late is None:
            self._last_word = last_word
            self._late = self.loop.call_later(self.patience_s, self._rest_is_late)

    def in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _rest_is_late(self) -> None:
        self._late = None
        if self.transport.is_closing():
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self.expect_the_rest(self._last_word)  # an answer before it is not to be cut off
            return
        self.end_with(self._last_word)

    def end_with(self, last_word: bytes) -> None:
        self.transport.write(last_word)
        self.transport.close()
        self.see_off()

    # The client has something to take

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_taking()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._untaken is not None and not self.transport.is_closing():
            self._untaken.cancel()
            self._untaken = None

    def see_off(self) -> None:
        """Closed, the connection lasts until the client has taken all; or takes nothing more."""
        if self._untaken is None and self.transport.get_write_buffer_size():
            self._watch_taking()

    def _watch_taking(self) -> None:
        self._untaken = self.loop.call_later(self.patience_s, self._look_at_taking, outgoing(self.transport).taken)

    def _look_at_taking(self, taken_before: int) -> None:
        self._untaken = None
        now = outgoing(self.transport)
        if now.left and now.taken > taken_before:
            self._watch_taking()  # slowly, but it does
        elif now.left:
            self.transport.abort()


class Outgoing(NamedTuple):
    """``taken`` grows with each byte that the client's side has. ``left``: bytes or more that it has not."""

    taken: int
    left: int


def outgoing(transport: asyncio.Transport) -> Outgoing:
    """As the system knows it: it holds megabytes, so what waits here may stand still while a slow client takes them;
    and with TLS nothing waits here."""
    waits = transport.get_write_buffer_size()
    try:
        facts = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        (arrived,), (under_way,), (unsent,) = (
            part.unpack_from(facts) for part in (_ACKNOWLEDGED, _UNACKNOWLEDGED, _UNSENT)
        )
    except (OSError, struct.error):  # no TCP, or a system that does not say
        return Outgoing(-waits, waits)
    return Outgoing(arrived, waits + unsent + under_way)


def refusal(status: int, text: str) -> bytes:
    """A whole answer to what is no whole request, after which the connection ends."""
    phrase = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}[status]
    head = f"HTTP/1.1 {status} {phrase}\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {len(text)}\r\n"
    return f"{head}connection: close\r\n\r\n{text}".encode()
