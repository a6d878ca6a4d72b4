"""A server of a test's own on a free port, of which nothing is left: a connection that the other end let go, and that
nobody closed, would be found by the collector in a later test, and fail that one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

__all__ = ["listening", "nobody"]

_STEPS = 5
"""Turns of the loop from an accepted connection to the first step of its call, and one or two more."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """Calls ``serve`` for each connection; yields the port. At its end no connection is open and no call under way."""
    calls: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        calls.add(task)
        try:
            await serve(reader, writer)
            writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # the other end has left, or this one does
        with suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        calls.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for _ in range(_STEPS):
            await asyncio.sleep(0)
        while calls:
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
        await server.wait_closed()


@contextmanager
def nobody() -> Iterator[int]:
    """A port at which every connection is refused, and which no other program can have meanwhile: it is taken, and
    nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])
