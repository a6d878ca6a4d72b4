"""Gives a worker a channel of its own to a version's child: the same child for all, several channels."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from gateway.clock import Clock
from gateway.errors import TurnoutError, VersionUnavailable
from gateway.messages import VersionRef
from gateway.serving.engine import Engine
from gateway.serving.fleet import Fleet
from gateway.serving.handle import Handle, VersionState
from gateway.serving.process_engine import ProcessEngine
from gateway.workers.forms import info_to_json

__all__ = ["Lender"]

_NOTICE_S = 0.25
_LOOK_S = 0.005
_PATIENCE_S = 0.5
_START_S = 10.0
_REPORT_S = 1.0
_MOST_REPORTS = 64


class Lender:
    """Answers requests to borrow. ``gone``: the child that the asker saw die, which is not to be lent again."""

    def __init__(self, fleet: Fleet, clock: Clock) -> None:
        self._fleet = fleet
        self._clock = clock
        self._held: deque[tuple[float, VersionRef, int]] = deque(maxlen=_MOST_REPORTS)

    def __repr__(self) -> str:
        return f"<Lender of {self._fleet!r}>"

    async def lend(self, ref: VersionRef, gone: int | None) -> tuple[int, dict[str, Any]]:
        """The channel's descriptor, the caller's to close, and what the child has loaded. Raises TurnoutError.

        A restart that is under way is waited for.
        """
        handle = self._fleet.handles.get(ref)
        if handle is None:
            raise VersionUnavailable(f"{ref} is not loaded at the node")
        await self._noticed(ref, gone)
        engine = await self._running(handle)
        info = handle.info
        if not isinstance(engine, ProcessEngine) or info is None:
            raise VersionUnavailable(f"{ref} has no process of its own that could be shared")
        return engine.share().detach(), info_to_json(info)

    def held_up(self, ref: VersionRef) -> int:
        """Requests that a child of the version, just found hung, held up in the workers."""
        since = self._clock.monotonic() - _REPORT_S
        return sum(count for at, version, count in self._held if version == ref and at >= since)

    async def report_hung(self, ref: VersionRef, pid: int, held: int) -> None:
        """A worker waited in vain for an answer: the child is ended, for all, and started again."""
        handle = self._fleet.handles.get(ref)
        if handle is None or handle.info is None or handle.info.pid != pid:
            return
        self._held.append((self._clock.monotonic(), ref, held))
        try:
            engine = await handle.engine()
        except TurnoutError:
            return
        if isinstance(engine, ProcessEngine) and engine.pid == pid:
            engine.kill()

    async def _running(self, handle: Handle) -> Engine:
        """The version's engine, through a pause before a restart if that is short, and through the start: while one
        bad request is sought, the node, which cannot know, pauses for a moment where a single process would not.
        VersionUnavailable."""
        limit = self._clock.monotonic() + _START_S
        while True:
            try:
                return await handle.engine()
            except VersionUnavailable:
                waits = handle.state is VersionState.ACTIVE and handle.pause_s <= _PATIENCE_S
                if not waits or self._clock.monotonic() >= limit:
                    raise
            await asyncio.sleep(_LOOK_S)

    async def _noticed(self, ref: VersionRef, gone: int | None) -> None:
        """Waits until the end of ``gone`` is known here, too: a channel can tell of it before the child is reaped.

        Asked again and again, for a quarter of a second at most, after a death and never otherwise; a child that
        lives on has only closed one channel, and is lent again.
        """
        if gone is None:
            return
        limit = self._clock.monotonic() + _NOTICE_S
        while self._clock.monotonic() < limit:
            handle = self._fleet.handles.get(ref)
            if handle is None or handle.statistics().pid != gone:
                return
            await asyncio.sleep(_LOOK_S)
