"""This replica among the others: it tells what it serves, renews its lease, and waits until all serve a revision."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from gateway.clock import Clock
from gateway.control.coordination import Coordination, ReplicaView
from gateway.control.ending import ended
from gateway.control.reconcile import Reconciler
from gateway.errors import StoreUnavailable

__all__ = ["Presence", "PresenceStatistics"]

log = logging.getLogger("turnout.control")

FAILED = "failed: "
BEATS = 3
"""In a lease."""
_LOOK_S = 0.02
"""How often others are looked at while somebody waits for them."""


@dataclass(frozen=True, slots=True)
class PresenceStatistics:
    told: int
    heard: bool


async def _at_once() -> bool:
    return True


class Presence:
    """``beat_s``: how often the lease is renewed when nothing changes: a third of it.

    ``settled``: returns when all processes of this replica have in force what the node has.
    """

    def __init__(
        self,
        coordination: Coordination,
        reconciler: Reconciler,
        *,
        clock: Clock,
        address: str,
        version: str,
        beat_s: float = 1.0,
    ) -> None:
        self._coordination = coordination
        self._reconciler = reconciler
        self._clock = clock
        self._self = ReplicaView(coordination.replica, 0, {}, address, version, clock.wall())
        self._beat_s = beat_s
        self._changed = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self._told = 0
        self._heard = True
        self._sure_at = 0.0
        self.settled: Callable[[], Awaitable[bool]] = _at_once

    def __repr__(self) -> str:
        return f"<Presence {self._self.replica} [{self._told} told]>"

    def statistics(self) -> PresenceStatistics:
        return PresenceStatistics(self._told, self._heard)

    def changed(self) -> None:
        """Something may be newly in force here: the others are told at once."""
        self._changed.set()

    def start(self) -> None:
        self._telling = asyncio.ensure_future(self._tell())
        self._telling.add_done_callback(self._stopped)

    async def close(self) -> None:
        await ended(self._telling)

    def _stopped(self, telling: asyncio.Task[None]) -> None:
        if not telling.cancelled():
            log.critical("the other replicas are told nothing any more", exc_info=telling.exception())

    async def _tell(self) -> None:
        told: ReplicaView | None = None
        while True:
            self._changed.clear()
            view = self._view()
            try:
                if view != told:
                    await self.settled()
                stood = await self._coordination.announce(view)
                if told is not None and not (stood and self._heard):
                    self._sure_at = self._clock.monotonic() + BEATS * self._beat_s
                told = view
                self._told, self._heard = self._told + 1, True
            except StoreUnavailable as error:
                if self._heard:
                    log.warning("the other replicas are not told what this one serves: %s", error)
                self._heard = False
            await self._rest(view)

    async def _rest(self, told: ReplicaView) -> None:
        """Until the next beat, or until there is something new to tell."""
        due = list[bool]()

        def beat() -> None:  # what the clock says then may be a little before the time that was asked for
            due.append(True)
            self._changed.set()

        timer = self._clock.call_at(self._clock.monotonic() + self._beat_s, beat)
        try:
            while True:
                await self._changed.wait()
                if due or self._view() != told:
                    return
                self._changed.clear()
        finally:
            timer.cancel()

    def _view(self) -> ReplicaView:
        desired, behind = self._reconciler.desired, dict[str, str]()
        for name in desired.routes:
            progress = self._reconciler.progress(name)
            if progress.applied:
                continue
            if progress.settled:
                why = "; ".join(f"version {number}: {reason}" for number, reason in progress.failed.items())
                behind[name] = f"{FAILED}{why or 'it cannot be in force'}"
            else:
                behind[name] = f"waits for version {', '.join(map(str, progress.pending))}"
        return replace(self._self, revision=desired.revision, behind=behind)

    async def all_serve(self, revision: int, route: str, *, timeout_s: float) -> bool:
        """Whether every living replica serves the route as of the revision, within the time.

        Ends early when one of them cannot: a version failed there. One that is not heard of within its lease counts
        as ended; after an outage all leases have ended, so for the time of one nobody does. Cancelling changes
        nothing.
        """
        limit = self._clock.monotonic() + timeout_s
        if not await self._reconciler.wait_applied(revision, route=route, timeout_s=timeout_s):
            return False
        while True:
            try:
                others = [view for view in await self._coordination.replicas() if view.replica != self._self.replica]
            except StoreUnavailable:
                others = []
                if self._clock.monotonic() >= limit:
                    return False
            else:
                late = [view for view in others if view.revision < revision or route in view.behind]
                if not late and self._heard and self._clock.monotonic() >= self._sure_at:
                    return True
                if any(view.revision >= revision and view.behind.get(route, "").startswith(FAILED) for view in late):
                    return False
            if self._clock.monotonic() >= limit:
                return False
            await self._clock.sleep(_LOOK_S)
