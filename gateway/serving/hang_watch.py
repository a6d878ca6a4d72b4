"""Decides that an engine hangs, and is fair about it: a loop that stood still itself condemns nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["HangWatch"]

_LATE_S = 0.05


class HangWatch:
    """Counts the time of the oldest batch under way, one batch after the other.

    ``look`` takes in what has come and tells whether anything had; ``on_hang`` is told the limit that has passed.
    A timer for each batch would cost more than the rest of its bookkeeping, so one stands as long as it can:
    when it rings early, for a batch that was answered long ago, it is set again for the batch of now.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, look: Callable[[], bool], on_hang: Callable[[float], None]
    ) -> None:
        self._loop = loop
        self._look = look
        self._on_hang = on_hang
        self._timer: asyncio.TimerHandle | None = None
        self._rings = 0.0
        # None while no batch is under way.
        self._due: float | None = None
        self._limit_s = 0.0
        self._extended = False

    def begin(self, limit_s: float) -> None:
        """A batch has become the oldest under way."""
        self._limit_s = limit_s
        self._extended = False
        due = self._due = self._loop.time() + limit_s
        if self._timer is None or due < self._rings:
            self._set(due)

    def rest(self) -> None:
        """Nothing is under way."""
        self._due = None

    def cancel(self) -> None:
        """For good: the timer is gone."""
        self._due = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings = when
        self._timer = self._loop.call_at(when, self._passed)

    def _passed(self) -> None:
        self._timer = None
        due = self._due
        if due is None:
            return
        now = self._loop.time()
        if now < due:
            self._set(due)
            return
        progressed = self._look()
        if self._due is not due:
            if self._due is not None and self._timer is None:
                self._set(self._due)
            return
        late_s = now - due
        if not self._extended and (progressed or late_s > _LATE_S):
            # Whoever stopped the loop may have stopped the child as well.
            self._extended = True
            self._due = self._loop.time() + min(self._limit_s, max(late_s, _LATE_S))
            self._set(self._due)
        else:
            self._on_hang(self._limit_s)
