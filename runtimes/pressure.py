"""Whether processors are short: as the kernel says, of this container where it keeps count of one, else of the machine.

*Some* pressure is the share of the last ten seconds in which a task that could have run waited for a processor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["PLACES", "Shortage", "processors_are_short"]

PLACES = (Path("/sys/fs/cgroup/cpu.pressure"), Path("/proc/pressure/cpu"))
_SHORT_PERCENT = 20.0
"""Idle machines show below 3, and one whose clients keep it full above 50."""

_STANDS_S = 1.0


def processors_are_short(places: tuple[Path, ...] = PLACES) -> bool:
    """False where the kernel does not say."""
    for place in places:
        with suppress(OSError, ValueError):
            kind, average, *_ = place.read_text(encoding="ascii").split()
            if kind == "some" and average.startswith("avg10="):
                return float(average.removeprefix("avg10=")) >= _SHORT_PERCENT
    return False


class Shortage:
    """What ``read`` said last. It is asked once a second at most, and only when somebody has the time for that."""

    def __init__(
        self, read: Callable[[], bool] = processors_are_short, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._read = read
        self._clock = clock
        self._stands_until = -math.inf
        self.known = False

    def __repr__(self) -> str:
        return f"<Shortage [{'short' if self.known else 'none'}]>"

    def look(self) -> bool:
        now = self._clock()
        if now >= self._stands_until:
            self._stands_until = now + _STANDS_S
            self.known = self._read()
        return self.known
