"""A large body that comes straight into the memory from which it is read.

On its way through uvicorn a body is copied five times: out of the loop's buffer, out of the parser, onto what came
before, out of that for its reader, and there onto the rest. Binary tensors need none of it: their length is known once
the head is read, and they are views of the body as it lies. So a connection steps aside for as long as such a body is
on its way, and the socket is read into an array of its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from gateway.web.exchange import LINGER_BYTES, LINGER_S
from gateway.web.problem_table import ReceiveTimeout

__all__ = ["Arrival", "reserve"]

_NOTHING = memoryview(b"")
_TURN_BYTES = 512 * 1024
"""What is read at most before others have their turn: 0.1 ms."""


def reserve(size: int) -> memoryview | None:
    """Memory for a body, not touched before it comes; None where there is none."""
    try:
        return np.empty(size, np.uint8).data
    except MemoryError:
        return None


class Arrival(asyncio.BufferedProtocol):
    """Stands in for a connection's protocol from the head of a request to the end of its body.

    ``whole``, to be asked for at once, is done with the body, or fails with ReceiveTimeout; ``arrived`` is told before.
    """

    def __init__(
        self,
        connection: asyncio.Protocol,
        transport: asyncio.Transport,
        memory: memoryview,
        begun: bytes | memoryview,
        *,
        receive_s: float,
        arrived: Callable[[memoryview], None],
    ) -> None:
        """``begun`` is what has come of it, less than all."""
        loop = asyncio.get_running_loop()
        memory[: len(begun)] = begun
        self._memory = memory
        self._filled = len(begun)
        self._connection: asyncio.Protocol | None = connection
        self._transport = transport
        self._arrived: Callable[[memoryview], None] | None = arrived
        self._receive_s = receive_s
        # Of a body that was answered before it was here, how much more is let in; None while it is wanted.
        self._lingers: int | None = None
        self.whole: asyncio.Future[memoryview] | None = loop.create_future()
        self._timer = loop.call_later(receive_s, self._is_late)
        transport.set_protocol(self)

    def __repr__(self) -> str:
        return f"<Arrival [{self._filled} of {len(self._memory)} bytes]>"

    # What the transport calls

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._memory[self._filled : self._filled + _TURN_BYTES]

    def buffer_updated(self, nbytes: int) -> None:
        if self._lingers is not None:
            self._lingers -= nbytes
            if self._lingers <= 0:
                self._transport.close()
            return
        self._filled += nbytes
        connection, arrived, whole = self._connection, self._arrived, self.whole
        if self._filled < len(self._memory) or connection is None or arrived is None:
            if nbytes == _TURN_BYTES:
                self._transport.pause_reading()
                asyncio.get_running_loop().call_soon(self._transport.resume_reading)
            return
        body = self._memory.toreadonly()
        self._let_go()
        self._transport.set_protocol(connection)
        arrived(body)
        if whole is not None and not whole.done():
            whole.set_result(body)

    def eof_received(self) -> None:
        """The transport closes by itself: the rest will not come."""

    def connection_lost(self, exc: Exception | None) -> None:
        connection = self._connection
        self._let_go()
        if connection is not None:
            connection.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.resume_writing()

    # What becomes of it

    def linger(self) -> None:
        """It was answered before it was here: more of it is let in and dropped, up to a bound, so that the client gets
        to read the answer; then the connection ends."""
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._transport.close)
        self._lingers = min(LINGER_BYTES, len(self._memory) - self._filled)
        self._filled = 0
        whole = self.whole
        if whole is not None and not whole.cancel() and not whole.cancelled():
            whole.exception()  # nobody else will ask

    def _is_late(self) -> None:
        if self.whole is not None and not self.whole.done():
            late = ReceiveTimeout(f"the body did not arrive within {self._receive_s:g} s; send it faster")
            self.whole.set_exception(late)

    def _let_go(self) -> None:
        """The transport knows this object for longer, and nothing large may hang on it."""
        self._timer.cancel()
        self._memory, self._connection, self._arrived, self.whole = _NOTHING, None, None, None
