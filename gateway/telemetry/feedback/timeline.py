"""The time that answers and labels are kept by: it goes as fast as the monotonic clock, and never back."""

from __future__ import annotations

from gateway.clock import Clock

__all__ = ["Timeline"]


class Timeline:
    """Begins at the wall clock, or where it was left if the wall clock has gone back since. A wall clock that jumps
    while this runs neither makes a horizon pass nor keeps one from passing."""

    def __init__(self, clock: Clock, *, left_at_ms: int = 0) -> None:
        self._clock = clock
        self._began = max(int(clock.wall() * 1000), left_at_ms)
        self._monotonic = clock.monotonic()

    def now_ms(self) -> int:
        return self._began + max(0, int((self._clock.monotonic() - self._monotonic) * 1000))
