"""Who is told over HTTP: a real server on a free port that keeps what came, and answers as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.listening import listening

__all__ = ["Receiver", "receiver"]


@dataclass
class Receiver:
    """Answers with the next of ``answers``, then with the last of them again; 0: never. ``choose`` says it by what
    came."""

    answers: list[int]
    choose: Callable[[bytes], int] | None = None
    port: int = 0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.got.append((headers, await reader.readexactly(int(headers["content-length"]))))
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if self.choose is not None:
            status = self.choose(self.got[-1][1])
        if status:
            writer.write(f"HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        else:
            await reader.read()  # until the other end gives up


@asynccontextmanager
async def receiver(*answers: int) -> AsyncIterator[Receiver]:
    found = Receiver(list(answers))
    async with listening(found.serve) as found.port:
        yield found
