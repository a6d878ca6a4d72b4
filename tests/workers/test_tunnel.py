"""One request through the tunnel, both of whose ends are in this process."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from gateway.workers import tunnel
from gateway.workers.tunnel import Message, Receive, Send

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/metrics", "raw_path": b"/metrics", "headers": []}
LIMIT_S = 60.0


class Client:
    """Who asks the worker: ``leave`` ends its connection, ``got`` is what was sent to it."""

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.leave = asyncio.Event()
        self.began = asyncio.Event()
        self._asked = False

    async def receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leave.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.got.append(message)
        self.began.set()


async def test_a_client_that_leaves_in_the_middle_of_an_answer_is_nobodys_fault() -> None:
    """Neither the worker nor the node's application is told of an error: it would be two tracebacks in the log for
    each impatient health check."""
    client, serving = Client(), []
    left, ended = asyncio.Event(), asyncio.Event()

    async def application(_scope: Any, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 503, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        await left.wait()
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        ended.set()

    def hand_over(descriptor: int) -> None:
        serving.append(asyncio.ensure_future(tunnel.serve(application, socket.socket(fileno=descriptor))))

    async with asyncio.timeout(LIMIT_S):
        asking = asyncio.ensure_future(tunnel.ask(hand_over, SCOPE, client.receive, client.send))
        await client.began.wait()
        client.leave.set()
        assert await asking
        left.set()
        await asyncio.gather(*serving)
    assert ended.is_set()
    assert [message["type"] for message in client.got] == ["http.response.start"]


async def test_a_node_that_ends_in_the_middle_of_an_answer_is_an_error() -> None:
    """The client has had the beginning: all that tells it that the rest is missing is a connection that breaks."""
    client = Client()

    async def application(_scope: Any, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    serving = []

    def hand_over(descriptor: int) -> None:
        serving.append(asyncio.ensure_future(tunnel.serve(application, socket.socket(fileno=descriptor))))

    async with asyncio.timeout(LIMIT_S):
        (fault,) = await asyncio.gather(
            tunnel.ask(hand_over, SCOPE, client.receive, client.send), return_exceptions=True
        )
    assert isinstance(fault, ConnectionError)
