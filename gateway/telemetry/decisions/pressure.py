"""Whether processors are short: as the kernel says, of this container where it keeps count of one, else of the machine.

*Some* pressure is the share of the last ten seconds in which a task that could have run waited for a processor.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["PLACES", "processors_are_short"]

PLACES = (Path("/sys/fs/cgroup/cpu.pressure"), Path("/proc/pressure/cpu"))
_SHORT_PERCENT = 20.0
"""Idle machines show below 3, and one whose clients keep it full above 50."""


def processors_are_short(places: tuple[Path, ...] = PLACES) -> bool:
    """False where the kernel does not say."""
    for place in places:
        with suppress(OSError, ValueError):
            kind, average, *_ = place.read_text(encoding="ascii").split()
            if kind == "some" and average.startswith("avg10="):
                return float(average.removeprefix("avg10=")) >= _SHORT_PERCENT
    return False
