"""A version in a child process: batches go over in shared memory, and a crash or a hang stays over there.

The gateway keeps the batch's arrays until the answer is in, so a child that dies costs nobody an
answer. What is said to the child is in ``gateway.serving.conversation``; this is the child's life.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gateway.errors import LoadError, NotBegun, TurnoutError, VersionCrashed, VersionHung, VersionUnavailable
from gateway.messages import Arrays, Signature
from gateway.serving.child import Child
from gateway.serving.conversation import DEPTH, Conversation
from gateway.serving.counts import Counting
from gateway.serving.engine import BatchResult, Done, EngineInfo, VersionSpec, run_on
from gateway.serving.fork_server import ForkServer
from runtimes.channel import write_json
from runtimes.packets import ChannelFault

__all__ = ["ProcessEngine"]

log = logging.getLogger("turnout.serving")

_END_LIMIT_S = 5.0
_CLOSE_GRACE_S = 2.0


class ProcessEngine:
    """See ``gateway.serving.engine.Engine``. Two slots: the child finds its next batch in the socket."""

    def __init__(self, spec: VersionSpec, fork_server: ForkServer, on_exit: Callable[[str], None]) -> None:
        self._spec = spec
        self._fork_server = fork_server
        self._on_exit: Callable[[str], None] | None = on_exit
        self._child: Child | None = None
        self._conversation: Conversation | None = None
        self._loaded = False
        self._ending = False
        # What the oldest batch under way is told once the child is gone; None: how the child ended.
        self._verdict: TurnoutError | None = None
        self._patience: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "closed" if self._conversation is None else "running" if self._underway else "idle"
        return f"<ProcessEngine {self._spec.ref} [{state} | pid {self._child.pid if self._child else None}]>"

    @property
    def depth(self) -> int:
        return DEPTH

    @property
    def pid(self) -> int | None:
        """Of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    def kill(self) -> None:
        """Ends the child, as a hang does; whoever waits on it is told."""
        if self._child is not None:
            self._child.kill()

    @property
    def _underway(self) -> int:
        return 0 if self._conversation is None else self._conversation.underway

    async def start(self) -> EngineInfo:
        """Loads the version in a new child. Failed or cancelled, it has given everything back."""
        if self._ending or self._child is not None:
            raise LoadError(f"{self._spec.ref}: this engine was started before; make a new one")
        try:
            async with asyncio.timeout(self._spec.load_timeout_s):
                return await self._load()
        except TimeoutError:
            await self._abandon()
            raise LoadError(f"{self._spec.ref}: not loaded within {self._spec.load_timeout_s:g} s") from None
        except (VersionCrashed, ChannelFault, OSError) as error:
            await self._abandon()
            raise LoadError(str(error)) from error
        except BaseException:
            await self._abandon()
            raise

    def launch(self, parts: Sequence[Arrays], *, limit_s: float, done: Done, alone: bool = False) -> None:
        """One batch, as the interface says; on an engine that has ended it is not begun.

        ``alone``: the child must not run it together with what came over other channels.
        """
        if self._conversation is None or self._ending or not self._loaded:
            gone = NotBegun(f"{self._spec.ref}: its process is gone; start a new engine")
            asyncio.get_running_loop().call_soon(done, gone)
        else:
            self._conversation.launch(parts, limit_s, done, alone=alone)

    def stage(self, inputs: Arrays) -> None:
        """Copies a large item to where it will lie in its batch, if that comes next."""
        if self._conversation is not None:
            self._conversation.stage(inputs)

    def count(self, counting: Counting) -> None:
        """The child counts what comes over any of its channels, and tells it over the main one."""
        if self._conversation is None or self._ending or not self._loaded:
            return
        try:
            self._conversation.counting.count(counting)
        except (ValueError, OSError) as error:
            log.warning("%s is not counted: %s", self._spec.ref, error)

    def capture(self, rows: int, seed: int) -> asyncio.Future[bytes]:
        """Of what comes over any of the child's channels. VersionUnavailable when the child is gone, or goes."""
        if self._conversation is None or self._ending or not self._loaded:
            raise VersionUnavailable(f"{self._spec.ref}: its process is gone; ask again once it is back")
        return self._conversation.counting.capture(rows, seed)

    def share(self) -> socket.socket:
        """A new channel of the child: the end for ``BorrowedEngine``, wherever that is. VersionUnavailable."""
        if self._conversation is None or self._ending or not self._loaded:
            raise VersionUnavailable(f"{self._spec.ref}: its process is gone; there is nothing to share")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                if self._conversation.lend(theirs):
                    return ours
            except OSError as error:
                ours.close()
                raise VersionUnavailable(f"{self._spec.ref}: its process takes no channel: {error.strerror}") from error
        ours.close()
        raise VersionUnavailable(f"{self._spec.ref}: its process is gone; there is nothing to share")

    async def run(self, parts: Sequence[Arrays], *, limit_s: float) -> BatchResult:
        """One batch and the wait for it. Cancelled, it kills the child."""
        try:
            return await run_on(partial(self.launch, alone=True), parts, limit_s)
        except asyncio.CancelledError:
            await self._abandon()
            raise

    async def close(self) -> None:
        """Lets the child end by itself for two seconds, then kills it; at once when a batch is under way."""
        self._on_exit = None
        child, conversation = self._child, self._conversation
        if child is not None and conversation is not None and not self._underway and not self._ending:
            self._ending = True
            conversation.hang_up()
            await asyncio.wait([child.ended], timeout=_CLOSE_GRACE_S)
        await self._abandon()

    def memory_bytes(self) -> int:
        """What the child's end would give back: its private memory, not what the fork server shares with it."""
        child = self._child  # read once: another thread may be asking
        if child is None:
            return 0
        try:
            # A Path interns its parts anew for each scrape, and Python's table of names grows by what it has seen.
            with open(f"/proc/{child.pid}/smaps_rollup", encoding="ascii") as file:  # noqa: PTH123
                return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_"))
        except (OSError, ValueError):
            return 0

    async def _load(self) -> EngineInfo:
        spec = self._spec
        load = await spec.current_load()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        conversation = Conversation(spec.ref, ours, self._on_lost, max_rows=spec.batch.max_rows)
        self._conversation = conversation
        with theirs:
            child = self._child = await self._fork_server.spawn(
                theirs,
                name=str(self._spec.ref),
                threads=self._spec.load.threads,
                interpreter=self._spec.interpreter,
                awaited=spec.awaited,
            )
        child.ended.add_done_callback(self._on_end)
        # What must not run twice must not run together with what may fail.
        together = spec.batch.max_rows if spec.retry else 0
        body = write_json({"spec": load.to_json(), "max_rows": together, "awaited": spec.awaited})
        info = self._info(await conversation.load(body), child.pid)
        conversation.begin(info.signature)
        self._loaded = True
        conversation.normal()
        return info

    def _info(self, body: Mapping[str, Any], pid: int) -> EngineInfo:
        try:
            signature = Signature.from_json(body["signature"])
            loaded = {str(name): str(digest) for name, digest in dict(body["loaded"]).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LoadError(f"{self._spec.ref}: its process answered the load with nonsense: {error}") from error
        held = body.get("device_memory_bytes", 0)
        taken = held if isinstance(held, int) and held >= 0 else 0
        return EngineInfo(signature, str(body.get("device")), pid, loaded, taken)

    def _on_lost(self, verdict: VersionCrashed | VersionHung | None) -> None:
        """Nothing more comes over the channel: the child is gone, or is now made to go."""
        self._verdict = verdict
        if self._child is None:
            return
        if not self._ending:
            self._child.kill()
        if self._child.ended.done():
            self._on_end(self._child.ended)
        elif self._patience is None:
            loop = asyncio.get_running_loop()
            self._patience = loop.call_later(_END_LIMIT_S, self._settle, "it does not end")

    def _on_end(self, ended: asyncio.Future[str]) -> None:
        conversation, how = self._conversation, ended.result()
        if conversation is None:
            return
        busy = conversation.busy
        # An answer may have been sent just before the end.
        conversation.take()
        if busy and not conversation.busy:
            # Answered with its last breath: whoever asked is told that before they are told of its end.
            asyncio.get_running_loop().call_soon(self._settle, how)
        else:
            self._settle(how)

    def _settle(self, how: str) -> None:
        """The child is gone: whoever waits for it is told, or ``on_exit`` when it did nothing for anybody."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        conversation, self._conversation = self._conversation, None
        closed, self._ending = self._ending, True
        if conversation is None:
            return
        if self._loaded and not closed and not conversation.begun and self._on_exit is not None:
            self._on_exit(how if self._verdict is None else str(self._verdict))
        work = "on this work" if self._loaded else "while loading"
        conversation.settle(self._verdict or VersionCrashed(f"{self._spec.ref}: its process ended {work}: {how}"))

    async def _abandon(self) -> None:
        """Kills what is left of the child, waits for its end, and gives back channel and memories."""
        self._ending = True
        child = self._child
        if child is not None:
            child.kill()
        if self._conversation is not None:
            self._conversation.hang_up()
        if child is not None:
            await asyncio.wait([child.ended], timeout=_END_LIMIT_S)
            self._child = None
        self._settle("it was closed")
