"""The gateway's end of the process that looks for drift: started for a round of looks, ended when it is over."""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from collections.abc import Mapping
from contextlib import suppress

from gateway.clock import Clock, Timer
from gateway.errors import StoreUnavailable, TurnoutError
from gateway.telemetry.drift.looks import Look, Looked, ReadProfile

__all__ = ["LooksElsewhere"]

_MODULE = "gateway.telemetry.drift.look_desk"
_ANSWER_S = 300.0
"""It has what processor time others leave: a second of work takes a while on a busy machine."""
_IDLE_S = 5.0
_HEAD = 8


class LooksElsewhere:
    """One look at a time; others wait. A process that dies, or is too slow, is replaced for the next.

    Messages are pickles between two processes of one program, over pipes that nobody else holds.
    """

    def __init__(
        self, read_profile: ReadProfile, *, clock: Clock, environment: Mapping[str, str], idle_s: float = _IDLE_S
    ) -> None:
        self._read_profile = read_profile
        self._clock = clock
        self._environment = dict(environment)
        self._idle_s = idle_s
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._known: set[str] = set()
        self._idle: Timer | None = None
        self._ending: set[asyncio.Task[int]] = set()

    def __repr__(self) -> str:
        return f"<LooksElsewhere [{'asleep' if self._process is None else self._process.pid}]>"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    async def do(self, look: Look) -> Looked:
        async with self._turn:
            if self._idle is not None:
                self._idle.cancel()
            octets = None if look.profile in self._known else await self._read_profile(look.profile)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    answer = await self._said(pickle.dumps((look, octets), protocol=5))
            except (OSError, TimeoutError, EOFError, asyncio.CancelledError) as fault:
                self._end()  # its answer would be taken for the next look's
                if isinstance(fault, asyncio.CancelledError):
                    raise
                raise StoreUnavailable(f"the process that looks for drift was lost with a look: {fault!r}") from fault
            self._idle = self._clock.call_at(self._clock.monotonic() + self._idle_s, self._end)
            if not isinstance(answer, Looked):
                raise TurnoutError(f"a look for drift failed: {answer}")
            self._known.add(look.profile)
            return answer

    async def close(self) -> None:
        self._end()
        await asyncio.gather(*self._ending)

    async def _said(self, message: bytes) -> object:
        process = self._process or await self._begin()
        if process.stdin is None or process.stdout is None:
            raise OSError("the process has no pipes")
        process.stdin.write(len(message).to_bytes(_HEAD, "little") + message)
        await process.stdin.drain()
        size = int.from_bytes(await process.stdout.readexactly(_HEAD), "little")
        found: object = pickle.loads(await process.stdout.readexactly(size))  # noqa: S301 - our own process
        return found

    async def _begin(self) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE, str(os.getpid()), stdin=pipe, stdout=pipe, env=self._environment
        )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        self._known.clear()
        if self._idle is not None:
            self._idle.cancel()
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.kill()
        task = asyncio.ensure_future(process.wait())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
