"""Decides that a child hangs, and is fair about it: a loop that stood still itself condemns nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["HangWatch"]

_LATE_S = 0.05


class HangWatch:
    """Counts a batch's time, fairly: a loop that was late itself looks at the socket first, and waits once more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit_s: float,
        look: Callable[[], bool],
        on_hang: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._limit_s = limit_s
        self._look = look
        self._on_hang = on_hang
        self._due = loop.time() + limit_s
        self._extended = False
        self._timer = loop.call_at(self._due, self._passed)

    def cancel(self) -> None:
        self._timer.cancel()

    def _passed(self) -> None:
        late_s = self._loop.time() - self._due
        progressed = self._look()
        if not self._extended and (progressed or late_s > _LATE_S):
            # Whoever stopped the loop may have stopped the child as well.
            self._extended = True
            self._due = self._loop.time() + min(self._limit_s, max(late_s, _LATE_S))
            self._timer = self._loop.call_at(self._due, self._passed)
        else:
            self._on_hang(self._limit_s)
