"""A closed-loop load: N clients on keep-alive connections, each waiting for its answer before it asks again."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass(slots=True)
class Answer:
    """``started`` and ``finished`` on the monotonic clock; ``status`` 0: the connection broke."""

    started: float
    finished: float
    status: int
    body: Any
    client: int

    @property
    def version(self) -> int | None:
        return self.body.get("version") if isinstance(self.body, dict) else None

    @property
    def reason(self) -> str | None:
        return self.body.get("reason") if isinstance(self.body, dict) else None

    def output(self, name: str) -> Any:
        return self.body["outputs"][name]


@dataclass(slots=True)
class Load:
    """Runs in a thread with a loop of its own, so that a test can act meanwhile.

    ``make`` gives each request's JSON body (and optional headers) from client and sequence number.
    """

    port: int
    path: str
    make: Callable[[int, int], tuple[dict[str, Any], dict[str, str]]]
    clients: int = 32
    pause_s: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> list[Answer]:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(90)
        return self.answers

    def count(self) -> int:
        return len(self.answers)

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.clients)))

    async def _client(self, number: int) -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        sequence = 0
        while not self._stop.is_set():
            body, headers = self.make(number, sequence)
            sequence += 1
            started = time.monotonic()
            status, answer = 0, None
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                status, answer, keep = await exchange(*connection, self.path, body, headers)
            except (OSError, asyncio.IncompleteReadError, ValueError):
                keep = False
            self.answers.append(Answer(started, time.monotonic(), status, answer, number))
            if not keep:
                if connection is not None:
                    connection[1].transport.abort()
                connection = None
                if status == 0:
                    await asyncio.sleep(0.01)
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
        if connection is not None:
            connection[1].close()


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    body: dict[str, Any],
    headers: dict[str, str],
) -> tuple[int, Any, bool]:
    """One request over an open connection: status, decoded body, whether the connection lives on."""
    payload = json.dumps(body).encode()
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{extra}content-length: {len(payload)}"
    writer.write(head.encode() + b"\r\n\r\n" + payload)
    head_bytes = await reader.readuntil(b"\r\n\r\n")
    status = int(head_bytes[9:12])
    fields = {}
    for line in head_bytes.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    raw = await reader.readexactly(int(fields[b"content-length"]))
    return status, json.loads(raw), fields.get(b"connection", b"").lower() != b"close"
