"""Has the names of other systems looked at that routes follow: each in its time, on the replica that leads the post."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.control.coordination import Coordination
from gateway.control.desired import DesiredRoute
from gateway.control.ending import ended
from gateway.control.follow_spec import FollowSpec
from gateway.control.follow_state import FollowPhase
from gateway.control.following import Followed, Following
from gateway.control.reconcile import Reconciler
from gateway.control.store import Fence
from gateway.errors import Fenced, StoreUnavailable

__all__ = ["POST", "Follower"]

log = logging.getLogger("turnout.follow")

POST = "follow"
TICK_S = 1.0
LOOKS_AT_ONCE = 2
"""Each has a client in a process of its own, which imports its vendor: seconds of a processor."""
LONGEST_S = 900.0


@dataclass(slots=True)
class _Watch:
    """One followed name. ``failures`` in a row put off the next look."""

    spec: FollowSpec
    due: float
    task: asyncio.Task[None] | None = None
    failures: int = 0


class Follower:
    """``tick`` is all of it; ``start`` has it called each second, which keeps the post."""

    def __init__(
        self, following: Following, *, coordination: Coordination, reconciler: Reconciler, clock: Clock
    ) -> None:
        self._following = following
        self._coordination = coordination
        self._reconciler = reconciler
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        self._term: int | None = None
        self._places = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._troubles: dict[str, str] = {}
        self._ticking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        looking = sum(watch.task is not None for watch in self._watches.values())
        return f"<Follower [{len(self._watches)} followed | {looking} looked at]>"

    def start(self) -> None:
        self._ticking = asyncio.ensure_future(self._tick_on())

    async def close(self) -> None:
        await ended(self._ticking)
        self._ticking = None
        await self._leave()

    async def _tick_on(self) -> None:
        """A round that fails in a way nobody thought of is logged, and the next one is tried."""
        while True:
            (failure,) = await asyncio.gather(self.tick(), return_exceptions=True)
            if isinstance(failure, Exception):
                self._trouble("", failure)
            await self._clock.sleep(TICK_S)

    async def tick(self) -> None:
        """Begins the looks that are due. While the store or the others cannot be reached, none is."""
        followed = self._followed()
        if not followed:
            await self._leave()
            return
        try:
            term = await self._coordination.lead(POST)
        except StoreUnavailable:
            return  # a look that is under way writes nothing now, and one that has lost the post never again
        if term != self._term:
            await self._leave()
            self._term = term
        if term is None:
            return
        await self._sort(followed)
        now = self._clock.monotonic()
        for name, watch in self._watches.items():
            if watch.task is None and watch.due <= now:
                watch.task = asyncio.ensure_future(self._look(name, watch, Fence(POST, term)))

    def _followed(self) -> Mapping[str, FollowSpec]:
        routes: Mapping[str, DesiredRoute] = self._reconciler.desired.routes
        specs = {name: route.document.spec.follow for name, route in routes.items() if not route.local}
        return {name: spec for name, spec in specs.items() if spec is not None}

    async def _sort(self, followed: Mapping[str, FollowSpec]) -> None:
        """Forgets what nobody follows any more; what is followed otherwise than before is looked at now."""
        for name in [name for name, watch in self._watches.items() if followed.get(name) != watch.spec]:
            await ended(self._watches.pop(name).task)
        for name, spec in followed.items():
            self._watches.setdefault(name, _Watch(spec, self._clock.monotonic()))

    async def _leave(self) -> None:
        for name in list(self._watches):
            await ended(self._watches.pop(name).task)

    async def _look(self, name: str, watch: _Watch, fence: Fence) -> None:
        try:
            async with self._places:
                state = await self._following.look(name, fence)
            failed = state.phase in (FollowPhase.UNREACHABLE, FollowPhase.FAILED)
            watch.failures = watch.failures + 1 if failed else 0
            self._troubles.pop(name, None)
        except (Followed, Fenced, StoreUnavailable) as error:
            log.info("what route %s follows is looked at again: %s", name, error)
        except Exception as error:  # noqa: BLE001 - the outermost boundary of a look; it is logged and shown by no state
            watch.failures += 1
            self._trouble(name, error)
        finally:
            watch.task = None
            pause = watch.spec.every_s * 2 ** min(max(0, watch.failures - 1), 16)
            watch.due = self._clock.monotonic() + min(pause, max(watch.spec.every_s, LONGEST_S))

    def _trouble(self, name: str, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if self._troubles.get(name) != text:
            self._troubles[name] = text
            log.error("what route %s follows cannot be looked at: %s", name or "any", text, exc_info=error)
