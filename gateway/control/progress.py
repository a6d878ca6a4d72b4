"""How far this replica is with what is desired, and waiting until it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.control.desired import DesiredRoute
from gateway.control.plan import InForce
from gateway.messages import VersionRef

__all__ = ["RouteProgress", "Waiting", "route_progress"]


@dataclass(frozen=True, slots=True)
class RouteProgress:
    """How far a route is here: the document revision in force, and the versions that are not there yet, or failed."""

    revision: int | None
    applied: bool
    pending: tuple[int, ...]
    failed: Mapping[int, str]

    @property
    def settled(self) -> bool:
        return not self.pending

    def to_json(self) -> dict[str, Any]:
        failed = {str(number): reason for number, reason in self.failed.items()}
        return {"applied": self.applied, "in_force": self.revision, "pending": list(self.pending), "failed": failed}


def route_progress(
    desired: DesiredRoute | None,
    in_force: InForce | None,
    reachable: Collection[VersionRef],
    reasons: Mapping[VersionRef, str],
) -> RouteProgress:
    """``reachable``: versions that requests can get to; ``reasons`` of those that failed to load."""
    revision = None if in_force is None else in_force.desired.revision
    if desired is None:
        return RouteProgress(revision, False, (), {})
    missing = [number for number in sorted(desired.document.routable()) if desired.ref(number) not in reachable]
    failed = {number: reasons[desired.ref(number)] for number in missing if desired.ref(number) in reasons}
    pending = tuple(number for number in missing if number not in failed)
    applied = in_force is not None and in_force.open and in_force.desired == desired
    return RouteProgress(revision, applied, pending, failed)


class Waiting:
    """Those who wait for something to become true here; ``wake`` is called whenever it may have."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._events: set[asyncio.Event] = set()

    def __repr__(self) -> str:
        return f"<Waiting [{len(self._events)} waiting]>"

    def wake(self) -> None:
        for event in self._events:
            event.set()

    async def until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it became true within the time. Cancelling it changes nothing."""
        event, late = asyncio.Event(), asyncio.Event()
        self._events.add(event)

        def end() -> None:  # a timer may ring half a millisecond before its time, and rings once
            late.set()
            event.set()

        timer = self._clock.call_at(self._clock.monotonic() + timeout_s, end)
        try:
            while not condition():
                if late.is_set() or timeout_s <= 0:
                    return False
                event.clear()
                await event.wait()
            return True
        finally:
            timer.cancel()
            self._events.discard(event)
