"""The gateway's end of the log's reader: a process that is started for the first question and ends when none come."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from gateway import errors
from gateway.clock import Clock, Timer
from gateway.errors import StoreUnavailable, TurnoutError

__all__ = ["DecisionReader"]

_MODULE = "gateway.telemetry.decisions.reader"
_LINE_BYTES = 64 * 1024 * 1024
_ANSWER_S = 10.0
_IDLE_S = 900.0


class DecisionReader:
    """One question at a time; others wait. A reader that dies, or is too slow, is replaced for the next question."""

    def __init__(self, folder: Path, *, clock: Clock, idle_s: float = _IDLE_S) -> None:
        self._folder = folder
        self._clock = clock
        self._idle_s = idle_s
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._idle: Timer | None = None
        self._ending: set[asyncio.Task[int]] = set()

    def __repr__(self) -> str:
        return f"<DecisionReader {self._folder} [{'asleep' if self._process is None else self._process.pid}]>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def find(self, name: str) -> Mapping[str, Any]:
        """A decision by its id, or by its request's. Raises NotFound, and StoreUnavailable when nobody answers."""
        return await self._ask({"one": name})

    async def page(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """``Question`` by its fields; ``decisions`` and ``cursor``."""
        return await self._ask({"page": dict(question)})

    async def close(self) -> None:
        self._end()
        await asyncio.gather(*self._ending)

    async def _ask(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            try:
                async with asyncio.timeout(_ANSWER_S):
                    said = await self._say(orjson.dumps(question) + b"\n")
            except (OSError, TimeoutError, ValueError, asyncio.CancelledError) as fault:
                self._end()  # its answer would be taken for the next question's
                if isinstance(fault, asyncio.CancelledError):
                    raise
                raise StoreUnavailable("the decision log's reader did not answer; ask again, or use the command "
                                       "`turnout decisions` where the files are") from fault  # fmt: skip
            self._idle = self._clock.call_at(self._clock.monotonic() + self._idle_s, self._end)
        if "error" in said:
            raise _failure(str(said["error"]), str(said["detail"]))
        found: Mapping[str, Any] = said["answer"]
        return found

    async def _say(self, line: bytes) -> Mapping[str, Any]:
        process = self._process or await self._begin()
        if process.stdin is None or process.stdout is None:
            raise OSError("the reader has no pipes")
        process.stdin.write(line)
        await process.stdin.drain()
        return _read(await process.stdout.readline())

    async def _begin(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, str(self._folder), stdin=pipe, stdout=pipe, limit=_LINE_BYTES
        )
        if self._process.stdout is not None:
            _read(await self._process.stdout.readline())
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        task = asyncio.ensure_future(process.wait())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


def _read(line: bytes) -> Mapping[str, Any]:
    """Raises ValueError when the reader is gone."""
    said: Mapping[str, Any] = orjson.loads(line)
    return said


def _failure(name: str, detail: str) -> TurnoutError:
    kind = getattr(errors, name, TurnoutError)
    return kind(detail) if isinstance(kind, type) and issubclass(kind, TurnoutError) else TurnoutError(detail)
