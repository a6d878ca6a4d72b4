"""Ends versions that nothing wants any more: by draining, or at once where waiting would be in vain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gateway.clock import Clock
from gateway.messages import VersionRef
from gateway.serving.fleet import Fleet

__all__ = ["QUARANTINE_GRACE_S", "Retirements"]

log = logging.getLogger("turnout.control")

QUARANTINE_GRACE_S = 1.0
"""How long work under way on a version rolled back may go on; after that it is decided anew, on the new table."""


class Retirements:
    """Begun only when no table in force names the version. ``changed`` is told when one is gone."""

    def __init__(self, fleet: Fleet, *, clock: Clock, changed: Callable[[], None]) -> None:
        self._fleet = fleet
        self._clock = clock
        self._changed = changed
        self._tasks: dict[VersionRef, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Retirements [{len(self._tasks)} under way]>"

    @property
    def under_way(self) -> frozenset[VersionRef]:
        return frozenset(self._tasks)

    def begin(self, ref: VersionRef, *, quarantined: bool, hopeless: bool) -> None:
        """``quarantined``: rolled back, so it gets little time; ``hopeless``: it holds work back, so it gets none."""
        task = asyncio.ensure_future(self._end(ref, quarantined=quarantined, hopeless=hopeless))
        self._tasks[ref] = task
        task.add_done_callback(lambda done: self._ended(ref, done))

    async def finished(self) -> None:
        """Returns when all that were begun have ended."""
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    async def _end(self, ref: VersionRef, *, quarantined: bool, hopeless: bool) -> None:
        handle = self._fleet.handles.get(ref)
        if quarantined and (hopeless or (handle is not None and not handle.ready)):
            await self._fleet.retire(ref, abandon=True)
            return
        draining = asyncio.ensure_future(self._fleet.retire(ref))
        if quarantined:
            patience = asyncio.ensure_future(self._clock.sleep(QUARANTINE_GRACE_S))
            await asyncio.wait({draining, patience}, return_when=asyncio.FIRST_COMPLETED)
            patience.cancel()
            if not draining.done():
                await self._fleet.retire(ref, abandon=True)
        await draining

    def _ended(self, ref: VersionRef, task: asyncio.Task[None]) -> None:
        self._tasks.pop(ref, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("retiring %s went wrong", ref, exc_info=fault)
        self._changed()
