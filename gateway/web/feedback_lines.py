"""A body of lines, given on as they come: memory holds one piece of it and one line that is not whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from gateway.errors import TooLarge
from gateway.web.exchange import ClientLeft, Exchange
from gateway.web.problem_table import ReceiveTimeout

__all__ = ["MAX_LINE_BYTES", "lines_of"]

MAX_LINE_BYTES = 256 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024 * 1024


async def lines_of(exchange: Exchange, *, idle_s: float) -> AsyncIterator[bytes]:
    """Without their ends. Raises TooLarge, ReceiveTimeout after ``idle_s`` in which nothing came, ClientLeft."""
    left, size, more = b"", 0, True
    while more:
        try:
            async with asyncio.timeout(idle_s):
                message = await exchange.receive()
        except TimeoutError:
            raise ReceiveTimeout(f"nothing of the body came for {idle_s:g} s; send it faster, or in parts") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        more = message.get("more_body", False)
        size += len(message.get("body", b""))
        *lines, left = (left + message.get("body", b"")).split(b"\n")
        if len(left) > MAX_LINE_BYTES or size > MAX_BODY_BYTES:
            raise TooLarge(f"a line of more than {MAX_LINE_BYTES} bytes, or a body of more than {MAX_BODY_BYTES}")
        for line in lines:
            yield line
    if left:
        yield left
