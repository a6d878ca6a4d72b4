"""One timer for many deadlines: it stands at the earliest, and moves on when it has rung."""

from __future__ import annotations

from collections.abc import Callable, Collection

from gateway.clock import Clock, Timer
from gateway.serving.item import Item

__all__ = ["DeadlineAlarm"]

NEVER = float("inf")

LOOK_S = 0.00001
"""Ten times what a look at one item costs: rings so far apart keep the alarm below a tenth of the loop's time, however
many wait with deadlines however close to each other."""


class DeadlineAlarm:
    """Calls ``expire`` for each live item at its deadline, whether it waits or runs.

    An item that is answered in time costs nothing more than a comparison: its timer is not
    cancelled, since the one that stands is looked at again when it rings.
    """

    def __init__(
        self, items: Callable[[], Collection[Item]], expire: Callable[[Item, float], None], *, clock: Clock
    ) -> None:
        """``items``: all that wait or run, as a collection that stays whole while ``expire`` changes theirs."""
        self._items = items
        self._expire = expire
        self._clock = clock
        self._timer: Timer | None = None
        self._not_before = 0.0
        self.at = NEVER
        """The earliest deadline known of."""

    def watch(self, deadline: float | None) -> None:
        """A new item has this deadline."""
        if deadline is not None and deadline < self.at:
            self._set(deadline)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.at = None, NEVER

    def _set(self, when: float) -> None:
        self.stop()
        self.at = when
        self._timer = self._clock.call_at(max(when, self._not_before), self._ring)

    def _ring(self) -> None:
        self.stop()
        now = self._clock.monotonic()
        earliest = NEVER
        items = self._items()
        self._not_before = now + len(items) * LOOK_S
        for item in items:
            if item.deadline is None or item.left:
                continue
            if item.deadline <= now:
                self._expire(item, now)
            else:
                earliest = min(earliest, item.deadline)
        if earliest < NEVER:
            self._set(earliest)
