"""A large body that comes straight into the memory from which it is read.

On its way through uvicorn a body is copied five times, 64 KB at a time: out of the loop's buffer, out of the parser,
onto what came before, out of that for its reader, and there onto the rest. Where its length is known and it is wanted
as it lies, none of it is needed: a connection steps aside for as long as such a body is on its way, and the socket is
read into an array of its size (binary tensors are views of it), or into the memory that another process reads (JSON).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import numpy as np

from gateway.errors import QueueFull, TurnoutError
from gateway.web.exchange import LINGER_BYTES, LINGER_S, Arriving, Sink
from gateway.web.intake import Intake, late

__all__ = ["Arrival", "receive_in_place"]

_TURN_BYTES = 512 * 1024
"""What is read at most before others have their turn: 0.1 ms."""
_DROPPED_BYTES = 64 * 1024


class _Body:
    """See ``gateway.web.exchange.Sink``. Memory that is not touched before something comes."""

    def __init__(self, size: int, came: Callable[[int], None]) -> None:
        """``came`` hears of what comes, and may refuse it."""
        self._octets = np.empty(size, np.uint8)
        self._filled = 0
        self._came = came

    def room(self, most: int) -> memoryview:
        return self._octets.data[self._filled : self._filled + most]

    def filled(self, count: int) -> None:
        self._filled += count
        self._came(count)

    def view(self) -> memoryview:
        return self._octets.data.toreadonly()


async def receive_in_place(arriving: Arriving, intake: Intake) -> memoryview:
    """The whole body, which cannot be written to. Raises ReceiveTimeout, and QueueFull where there is no memory, or the
    bodies on their way hold as much as they may."""
    share = intake.share(partial(_give_way, arriving))
    try:
        body = _Body(arriving.size, share.came)
        body.room(len(arriving.begun))[:] = arriving.begun
        body.filled(len(arriving.begun))
        await arriving.into(body)
    except MemoryError:
        raise QueueFull(
            f"there is no memory for a body of {arriving.size} bytes; send it again later", retry_after_s=1.0
        ) from None
    finally:
        share.end()
    return body.view()


def _give_way(arriving: Arriving) -> bool:
    arriving.refuse(late(0.0, gave_way=True))
    return True


class Arrival(asyncio.BufferedProtocol):
    """Stands in for a connection's protocol from the head of a request to the end of its body. See
    ``gateway.web.exchange.Arriving``."""

    def __init__(
        self,
        connection: asyncio.Protocol,
        transport: asyncio.Transport,
        begun: bytes | memoryview,
        size: int,
        *,
        receive_s: float,
        arrived: Callable[[], None],
    ) -> None:
        """``begun`` is what has come of it, less than all. ``arrived`` is told before whoever waits for it."""
        self.begun: bytes | memoryview = begun
        self.size = size
        self._missing = size - len(begun)
        self._connection: asyncio.Protocol | None = connection
        self._transport = transport
        self._arrived: Callable[[], None] | None = arrived
        self._receive_s = receive_s
        self._is_late = False
        self._sink: Sink | None = None
        self._whole: asyncio.Future[None] | None = None
        # Once it is answered before it is here: where the rest goes, and how much of it is let in.
        self._dropped: memoryview | None = None
        self._let_in = 0
        self._timer = asyncio.get_running_loop().call_later(receive_s, self._end_of_patience)
        transport.set_protocol(self)

    def __repr__(self) -> str:
        return f"<Arrival [{self._missing} of {self.size} bytes to come]>"

    # Who takes it in

    async def into(self, sink: Sink) -> None:
        if self._is_late:
            # Anew: one that is kept would keep the frames that it came through, and the body in them.
            raise late(self._receive_s)
        self._whole = asyncio.get_running_loop().create_future()
        self._sink = sink
        self._transport.resume_reading()
        try:
            await self._whole
        finally:
            self._sink = self._whole = None
            self.wait()

    def refuse(self, error: TurnoutError) -> None:
        if self._whole is not None and not self._whole.done():
            self._whole.set_exception(error)

    def wait(self) -> None:
        """Until somebody takes it in, what comes stays in the socket."""
        if self._sink is None and self._dropped is None and self._connection is not None:
            self._transport.pause_reading()

    # What the transport calls

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._dropped is not None or self._sink is None:
            return self._dropped or memoryview(bytearray(1))
        return self._sink.room(min(self._missing, _TURN_BYTES))

    def buffer_updated(self, nbytes: int) -> None:
        self._missing -= nbytes
        sink, whole = self._sink, self._whole
        if sink is None or whole is None:
            self._let_in -= nbytes
            if self._let_in <= 0:
                self._transport.close()
            return
        try:
            sink.filled(nbytes)
        except TurnoutError as error:
            self._sink = None
            self.wait()
            self.refuse(error.with_traceback(None))  # without its frames: this one knows the future, and that the error
            return
        if not self._missing:
            self._arrive(whole)
        elif nbytes == _TURN_BYTES:
            self._transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._read_on)

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
        self._dropped = memoryview(bytearray(_DROPPED_BYTES))
        self._let_in = min(LINGER_BYTES, self._missing)
        self.begun = b""
        self._transport.resume_reading()

    def _arrive(self, whole: asyncio.Future[None]) -> None:
        connection, arrived = self._connection, self._arrived
        self._let_go()
        if connection is None or arrived is None:
            return
        self._transport.set_protocol(connection)
        arrived()
        if not whole.done():
            whole.set_result(None)

    def _read_on(self) -> None:
        if self._sink is not None:
            self._transport.resume_reading()

    def _end_of_patience(self) -> None:
        self._is_late = True
        self.refuse(late(self._receive_s))

    def _let_go(self) -> None:
        """The transport knows this object for longer, and nothing large may hang on it."""
        self._timer.cancel()
        self.begun = b""
        self._connection = self._arrived = self._sink = self._whole = None
