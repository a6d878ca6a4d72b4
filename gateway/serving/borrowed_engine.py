"""A version in a child that somebody else owns: batches go over a channel of one's own, and merge over there.

The owner starts the child, ends it, and knows how it ended; here only the channel is held. Several gateways
share one loaded version this way.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from gateway.errors import LoadError, NotBegun, TurnoutError, VersionCrashed, VersionHung, VersionUnavailable
from gateway.messages import Arrays
from gateway.serving.conversation import DEPTH, Conversation
from gateway.serving.counts import Counting
from gateway.serving.engine import BatchResult, Done, EngineInfo, VersionSpec, run_on

__all__ = ["BorrowedEngine", "Connect"]

Connect = Callable[[], Awaitable[tuple[socket.socket, EngineInfo]]]


class BorrowedEngine:
    """See ``gateway.serving.engine.Engine``.

    ``connect`` is asked once, by ``start``, for what ``ProcessEngine.share`` gave and what that engine's start
    had told; the socket is this engine's from then on. ``hung`` is told that the child has to be ended: it does
    not answer in time, or breaks the protocol. ``on_exit`` gets what can be seen from here of its end.
    """

    def __init__(
        self, spec: VersionSpec, connect: Connect, on_exit: Callable[[str], None], hung: Callable[[], None]
    ) -> None:
        self._spec = spec
        self._connect = connect
        self._on_exit: Callable[[str], None] | None = on_exit
        self._hung = hung
        self._conversation: Conversation | None = None
        self._pid: int | None = None
        self._started = False

    def __repr__(self) -> str:
        conversation = self._conversation
        state = "closed" if conversation is None else "running" if conversation.underway else "idle"
        return f"<BorrowedEngine {self._spec.ref} [{state} | pid {self._pid}]>"

    @property
    def depth(self) -> int:
        return DEPTH

    async def start(self) -> EngineInfo:
        """Waits for the owner to have the version loaded. Cancelled, it holds nothing."""
        if self._started:
            raise LoadError(f"{self._spec.ref}: this engine was started before; make a new one")
        self._started = True
        try:
            async with asyncio.timeout(self._spec.load_timeout_s):
                channel, info = await self._connect()
        except TimeoutError:
            raise LoadError(f"{self._spec.ref}: not loaded within {self._spec.load_timeout_s:g} s") from None
        except OSError as error:
            raise LoadError(f"{self._spec.ref}: no channel to its process: {error}") from error
        if self._on_exit is None:
            channel.close()
            raise LoadError(f"{self._spec.ref}: this engine was closed while it started")
        rows = self._spec.batch.max_rows
        conversation = Conversation(self._spec.ref, channel, self._on_lost, max_rows=rows, shared=True)
        conversation.begin(info.signature)
        self._conversation, self._pid = conversation, info.pid
        return info

    def launch(self, parts: Sequence[Arrays], *, limit_s: float, done: Done, alone: bool = False) -> None:
        """One batch, as the interface says; on an engine that has ended it is not begun.

        ``alone``: the child must not run it together with what came over other channels.
        """
        if self._conversation is None:
            gone = NotBegun(f"{self._spec.ref}: its process is gone; start a new engine")
            asyncio.get_running_loop().call_soon(done, gone)
        else:
            self._conversation.launch(parts, limit_s, done, alone=alone)

    def stage(self, inputs: Arrays) -> None:
        """Copies a large item to where it will lie in its batch, if that comes next."""
        if self._conversation is not None:
            self._conversation.stage(inputs)

    def count(self, counting: Counting) -> None:
        """Told to the child by its owner."""
        if self._conversation is not None:
            self._conversation.counting.probe = counting.probe

    def capture(self, rows: int, seed: int) -> asyncio.Future[bytes]:
        """Not here."""
        raise VersionUnavailable("a borrowed version makes no profile of live rows; register it with placement process")

    async def run(self, parts: Sequence[Arrays], *, limit_s: float) -> BatchResult:
        """One batch and the wait for it. Cancelled, it hangs up; the child goes on for others."""
        try:
            return await run_on(partial(self.launch, alone=True), parts, limit_s)
        except asyncio.CancelledError:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes the channel; whoever waits for an answer is told."""
        self._on_exit = None
        self._settle(VersionCrashed(f"{self._spec.ref}: its channel was closed"))

    def memory_bytes(self) -> int:
        """Nothing: what the version takes is its owner's to count, once for all who borrow it."""
        return 0

    def _on_lost(self, verdict: VersionCrashed | VersionHung | None) -> None:
        if verdict is not None:
            self._hung()
        self._settle(verdict or VersionCrashed(f"{self._spec.ref}: its process is gone"))

    def _settle(self, verdict: TurnoutError) -> None:
        conversation, self._conversation = self._conversation, None
        told, self._on_exit = self._on_exit, None
        if conversation is None:
            return
        if told is not None and not conversation.begun:
            told(str(verdict))
        conversation.settle(verdict)
