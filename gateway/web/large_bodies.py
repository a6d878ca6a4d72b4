"""Large JSON bodies: received straight into shared memory, and decoded in a process of their own.

orjson holds the interpreter lock for its whole parse, 60 ms and more for 16 MB; a thread would not
help. Here the socket is read into the shared memory itself (``gateway.web.arrival``), or what a server gives in
pieces is copied there, and arrays come back that lie in shared memory already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from gateway.clock import Clock
from gateway.codec.inflate import is_compressed
from gateway.codec.oip_json import RequestedOutput
from gateway.decoding.memories import Text
from gateway.decoding.pool import Decoders, Reading
from gateway.errors import TooLarge, TurnoutError
from gateway.messages import Array, Arrays, Signature
from gateway.web.disconnect import DisconnectWatch
from gateway.web.exchange import Arriving, ClientLeft, Exchange
from gateway.web.intake import Receipt, Receipts, hasten, late

if TYPE_CHECKING:
    from gateway.web.services import WebLimits

__all__ = ["Asked", "LargeBodies", "LargeEnvelope", "large_bodies"]

_T = TypeVar("_T")

_SLICE_BYTES = 256 * 1024
_MAX_DECODERS = 2

_PLACE_BYTES = 32 * 1024
"""How much of a body has come before it takes a place of the few."""


class Asked(NamedTuple):
    """What is known of a request before its body is read. ``likely``: the signature that will most probably be asked
    for; with it, the arrays come with the facts. ``deadline`` is the client's, ``timeout_s`` the route's."""

    protocol: str
    likely: Signature | None
    deadline: float | None
    timeout_s: float


class _Source(NamedTuple):
    """A text, in shared memory for as long as this lives, and who reads it."""

    decoders: Decoders
    text: Text
    protocol: str
    encoding: str

    async def read(self, signature: Signature | None, deadline: float | None) -> Reading:
        reading = self.decoders.read(
            self.text, self.protocol, encoding=self.encoding, signature=signature, deadline=deadline
        )
        return await _in_a_task(reading)


class _Inflow:
    """What comes of a text, and the place that it takes once ``_PLACE_BYTES`` of it are there: to say how much will
    come costs a client nothing. See ``gateway.web.exchange.Sink``."""

    __slots__ = ("_aside", "_came", "_deserved", "_receipt", "_receipts", "_take_place", "text")

    def __init__(
        self, receipt: Receipt, receipts: Receipts, take_place: Callable[[Receipt], Text], deserved: int
    ) -> None:
        """``deserved``: how much has to be there."""
        self.text: Text | None = None
        self._receipt = receipt
        self._receipts = receipts
        self._take_place = take_place
        self._deserved = deserved
        self._aside: Array | None = None
        self._came = 0

    def room(self, most: int) -> memoryview:
        if self.text is not None:
            return self.text.room(most)
        if self._aside is None:
            self._aside = np.empty(2 * _PLACE_BYTES, np.uint8)
        return self._aside.data[self._came : self._came + most]

    def filled(self, count: int) -> None:
        if self.text is not None:
            self.text.filled(count)
            self._receipts.saw(self._receipt, self.text.size_bytes)
            return
        self._came += count
        if self._came >= self._deserved:
            self.placed()

    def placed(self) -> Text:
        """The text, in its place. QueueFull where there is none."""
        if self.text is None:
            self.text = self._take_place(self._receipt)
            if self._aside is not None:
                self.text.append(self._aside.data[: self._came])
                self._aside = None
        return self.text


class LargeEnvelope:
    """A body read by a decoder: the facts of either dialect's envelope, and arrays once it is fitted.

    It keeps the text for another signature that may ask.
    """

    __slots__ = (
        "_likely", "_reading", "_source",
        "binary_default", "context", "id", "key", "outputs", "priority", "timeout_s",
    )  # fmt: skip

    def __init__(self, source: _Source, likely: Signature | None, reading: Reading) -> None:
        self._source = source
        self._likely = likely
        self._reading = reading
        facts: Mapping[str, Any] = reading.facts
        self.id: str | None = facts["id"]
        self.key: str | None = facts["key"]
        self.context: Mapping[str, Any] = facts["context"]
        self.timeout_s: float | None = facts["timeout_s"]
        self.priority: str | None = facts["priority"]
        self.binary_default: bool = facts["binary_default"]
        outputs = facts["outputs"]
        self.outputs = None if outputs is None else tuple(RequestedOutput(*output) for output in outputs)

    def __repr__(self) -> str:
        return f"<LargeEnvelope {self._source.protocol} {self._source.text!r}>"

    def fit(self, signature: Signature) -> tuple[Arrays, int] | Awaitable[tuple[Arrays, int]]:
        """Arrays at once for the signature that was expected, else when the decoder has read the text again.

        Raises InvalidInput, TooLarge. The arrays are views of shared memory that live as long as they are held.
        """
        return _arrays(self._reading) if signature == self._likely else self._fit_again(signature)

    async def _fit_again(self, signature: Signature) -> tuple[Arrays, int]:
        return _arrays(await self._source.read(signature, None))


class LargeBodies:
    """Receives and reads what is too large for the loop: bodies of JSON from ``from_bytes`` on."""

    def __init__(
        self,
        decoders: Decoders,
        *,
        clock: Clock,
        from_bytes: int,
        body_bytes: int,
        receive_s: float,
        watch_after_s: float,
    ) -> None:
        self._decoders = decoders
        self._clock = clock
        self.from_bytes = from_bytes
        self._body_bytes = body_bytes
        self._receive_s = receive_s
        self._watch_after_s = watch_after_s
        self._receipts = Receipts(clock)

    def __repr__(self) -> str:
        return f"<LargeBodies {self._decoders!r} [{len(self._receipts)} on their way]>"

    async def receive(self, exchange: Exchange, begun: bytes | memoryview, asked: Asked) -> LargeEnvelope:
        """The envelope of a body of which ``begun`` has come; the rest is received here.

        Raises TooLarge, ReceiveTimeout, BadRequest, UnsupportedContent, QueueFull, DeadlineExceeded, and ClientLeft
        when the client disconnects. Cancelled, it gives up its place and its memory.
        """
        receiving = self._receive(exchange, begun, asked)
        return await (_in_a_task(receiving) if exchange.cancelled_by_leaving else receiving)

    async def _receive(self, exchange: Exchange, begun: bytes | memoryview, asked: Asked) -> LargeEnvelope:
        encoding = exchange.headers.get("content-encoding", "")
        encoding = encoding if encoding and is_compressed(encoding) else ""
        wait = asyncio.timeout(self._receive_s)
        receipt = Receipt(partial(hasten, wait))
        try:
            async with wait:
                text = await self._take_in(exchange, begun, receipt)
        except TimeoutError:
            raise late(self._receive_s, gave_way=receipt.gave_way) from None
        finally:
            self._receipts.discard(receipt)
        return await self._read(exchange, text, encoding, asked)

    def _place(self, receipt: Receipt) -> Text:
        if self._decoders.crowded:
            self._receipts.make_room()
        text = self._decoders.text()
        self._receipts.add(receipt)
        return text

    async def decode(self, exchange: Exchange, body: bytes, asked: Asked) -> LargeEnvelope:
        """The envelope of a body that is here, since it came compressed to little, or at once."""
        text = self._decoders.text()
        for start in range(0, len(body), _SLICE_BYTES):
            text.append(body[start : start + _SLICE_BYTES])
            await asyncio.sleep(0)
        return await self._read(exchange, text, "", asked)

    async def close(self) -> None:
        """Ends the decoders; what waits for them is refused."""
        await self._decoders.close()

    async def _read(self, exchange: Exchange, text: Text, encoding: str, asked: Asked) -> LargeEnvelope:
        deadline = self._clock.monotonic() + asked.timeout_s
        if asked.deadline is not None:
            deadline = min(deadline, asked.deadline)
        source = _Source(self._decoders, text, asked.protocol, encoding)
        if exchange.cancelled_by_leaving:
            return LargeEnvelope(source, asked.likely, await source.read(asked.likely, deadline))
        with DisconnectWatch(exchange.receive, after_s=self._watch_after_s):
            return LargeEnvelope(source, asked.likely, await source.read(asked.likely, deadline))

    async def _take_in(self, exchange: Exchange, begun: bytes | memoryview, receipt: Receipt) -> Text:
        arriving = exchange.arriving
        if arriving is not None:
            return await self._into_place(arriving, receipt)
        text = self._place(receipt)
        text.append(begun)
        more = True
        while more:
            message = await exchange.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            piece: bytes = message.get("body", b"")
            if text.size_bytes + len(piece) > self._body_bytes:
                raise TooLarge(
                    f"the body is larger than the limit of {self._body_bytes} bytes; send fewer rows a request"
                )
            text.append(piece)
            self._receipts.saw(receipt, text.size_bytes)
            more = message.get("more_body", False)
        exchange.whole = True
        return text

    async def _into_place(self, arriving: Arriving, receipt: Receipt) -> Text:
        begun, deserved = arriving.begun, min(_PLACE_BYTES, arriving.size)
        inflow = _Inflow(receipt, self._receipts, self._place, deserved)
        if len(begun) < deserved:
            inflow.room(len(begun))[:] = begun
            inflow.filled(len(begun))
        else:
            inflow.placed().append(begun)
        del begun  # all of what was read with it
        await arriving.into(inflow)
        return inflow.placed()


def large_bodies(limits: WebLimits, clock: Clock, *, cores: int) -> LargeBodies:
    """As the limits say. A second decoder where there is a core for it beside the gateway's and a model's."""
    decoders = Decoders(
        limits=limits.codec, body_bytes=limits.body_bytes, clock=clock, most=max(1, min(_MAX_DECODERS, cores - 1))
    )
    return LargeBodies(
        decoders,
        clock=clock,
        from_bytes=limits.decode_elsewhere_bytes,
        body_bytes=limits.body_bytes,
        receive_s=limits.receive_s,
        watch_after_s=limits.watch_after_s,
    )


async def _in_a_task(work: Coroutine[Any, Any, _T]) -> _T:
    """What has a time-out needs a task, and a request that its connection answers is none.

    A time-out knows its task, a task its error, and an error the frames that it came through, that of the time-out
    among them, and the text: a ring, which would wait for the collector. So it ends here.
    """
    done, error = await asyncio.ensure_future(_outcome(work))
    if error is not None:
        raise error
    return done  # type: ignore[return-value]  # one of the two is there


async def _outcome(work: Coroutine[Any, Any, _T]) -> tuple[_T | None, TurnoutError | None]:
    try:
        return await work, None
    except TurnoutError as error:
        error.__context__ = None
        return None, error.with_traceback(None)


def _arrays(reading: Reading) -> tuple[Arrays, int]:
    if reading.unfit is not None:
        raise reading.unfit()
    return reading.arrays or {}, reading.rows
