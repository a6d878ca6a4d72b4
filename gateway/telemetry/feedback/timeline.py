"""The time that answers and labels are kept by: it goes as fast as the monotonic clock, and never back.

There are two of it. What comes now is stamped with ``now_ms``, which begins at the wall clock; what ends does so by
``ended_ms``, which a wall clock that was wrong at a start cannot move.
"""

from __future__ import annotations

from gateway.clock import Clock
from gateway.telemetry.proven_time import ProvenTime

__all__ = ["Timeline"]


class Timeline:
    """Begins at the wall clock, or at the proven time if the wall clock is before it. A wall clock that jumps while
    this runs neither makes a horizon pass nor keeps one from passing."""

    def __init__(self, clock: Clock, proven: ProvenTime) -> None:
        self._clock = clock
        self._proven = proven
        self._began = proven.latest_ms()
        self._monotonic = clock.monotonic()

    def now_ms(self) -> int:
        passed = max(0, int((self._clock.monotonic() - self._monotonic) * 1000))
        return max(self._began + passed, self._proven.now_ms())

    def ended_ms(self) -> int:
        """What was to end before it has ended."""
        return self._proven.now_ms()

    def ended_there_ms(self) -> int:
        """The same for what another clock has stamped, such as an id: it has ended if ours agrees."""
        return min(self._proven.now_ms(), int(self._clock.wall() * 1000))
