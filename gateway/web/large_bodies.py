"""Large JSON bodies: received straight into shared memory, and decoded in a process of their own.

orjson holds the interpreter lock for its whole parse, 60 ms and more for 16 MB; a thread would not
help. Here the gateway only copies what the socket gives it, some 64 KB at a time, and gets arrays back
that lie in shared memory already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from gateway.codec.inflate import is_compressed
from gateway.codec.oip_json import RequestedOutput
from gateway.decoding.memories import Text
from gateway.decoding.pool import Decoders, Reading
from gateway.errors import TooLarge
from gateway.messages import Arrays, Signature
from gateway.web.disconnect import DisconnectWatch
from gateway.web.exchange import ClientLeft, Exchange
from gateway.web.problems import ReceiveTimeout

__all__ = ["LARGE_BYTES", "LargeBodies", "LargeEnvelope"]

LARGE_BYTES = 256 * 1024
"""A JSON body from here on is decoded elsewhere."""


class LargeEnvelope:
    """A body read by a decoder: the facts of either dialect's envelope, and arrays once it is fitted.

    It keeps the text, in shared memory, for another signature that may ask.
    """

    __slots__ = (
        "_decoders", "_encoding", "_likely", "_protocol", "_reading", "_text",
        "binary_default", "context", "id", "key", "outputs", "priority", "timeout_s",
    )  # fmt: skip

    def __init__(
        self,
        decoders: Decoders,
        text: Text,
        reading: Reading,
        *,
        protocol: str,
        encoding: str,
        likely: Signature | None,
    ) -> None:
        self._decoders = decoders
        self._text = text
        self._protocol = protocol
        self._encoding = encoding
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
        return f"<LargeEnvelope {self._protocol} {self._text!r}>"

    def fit(self, signature: Signature) -> tuple[Arrays, int] | Awaitable[tuple[Arrays, int]]:
        """Arrays at once for the signature that was expected, else when the decoder has read the text again.

        Raises InvalidInput, TooLarge. The arrays are views of shared memory that live as long as they are held.
        """
        if signature != self._likely:
            return self._fit_again(signature)
        return _arrays(self._reading)

    async def _fit_again(self, signature: Signature) -> tuple[Arrays, int]:
        reading = await self._decoders.read(self._text, self._protocol, encoding=self._encoding, signature=signature)
        return _arrays(reading)


class LargeBodies:
    """Receives and reads what is too large for the loop."""

    def __init__(self, decoders: Decoders, *, body_bytes: int, receive_s: float, watch_after_s: float = 0.02) -> None:
        self._decoders = decoders
        self._body_bytes = body_bytes
        self._receive_s = receive_s
        self._watch_after_s = watch_after_s

    def __repr__(self) -> str:
        return f"<LargeBodies {self._decoders!r}>"

    async def read(
        self,
        exchange: Exchange,
        protocol: str,
        likely: Signature | None,
        *,
        begun: Sequence[bytes] = (),
        deadline: float | None = None,
    ) -> LargeEnvelope:
        """The envelope of a body of JSON in the dialect ``protocol``, of which ``begun`` was received already.

        ``likely`` is the signature that will most probably be asked for: with it, the arrays come with the facts.
        Raises TooLarge, ReceiveTimeout, BadRequest, UnsupportedContent, QueueFull, DeadlineExceeded, and ClientLeft
        when the client disconnects. Cancelled, it gives up its place and its memory.
        """
        encoding = exchange.headers.get("content-encoding", "")
        encoding = encoding if encoding and is_compressed(encoding) else ""
        text = self._decoders.text()
        try:
            async with asyncio.timeout(self._receive_s):
                await self._receive(exchange, text, begun)
        except TimeoutError:
            raise ReceiveTimeout(f"the body did not arrive within {self._receive_s:g} s; send it faster") from None
        with DisconnectWatch(exchange.receive, after_s=self._watch_after_s):
            reading = await self._decoders.read(text, protocol, encoding=encoding, signature=likely, deadline=deadline)
        return LargeEnvelope(self._decoders, text, reading, protocol=protocol, encoding=encoding, likely=likely)

    async def close(self) -> None:
        """Ends the decoders."""
        await self._decoders.close()

    async def _receive(self, exchange: Exchange, text: Text, begun: Sequence[bytes]) -> None:
        for piece in begun:
            self._append(text, piece)
        more = True
        while more:
            message = await exchange.receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            self._append(text, message.get("body", b""))
            more = message.get("more_body", False)
        exchange.whole = True

    def _append(self, text: Text, piece: bytes) -> None:
        if text.size_bytes + len(piece) > self._body_bytes:
            raise TooLarge(f"the body is larger than the limit of {self._body_bytes} bytes; send fewer rows a request")
        text.append(piece)


def _arrays(reading: Reading) -> tuple[Arrays, int]:
    if reading.unfit is not None:
        raise reading.unfit
    return reading.arrays or {}, reading.rows
