"""What the guard knows of one version on one route: outcomes in a sliding window, deaths, and nothing else.

Counting one outcome is a few additions into a ring of intervals, so it costs the hot path next to nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import IntEnum

__all__ = ["Death", "Deaths", "Evidence", "Interval", "Outcome", "Window"]

INTERVALS = 20
MAX_DEATHS = 64


class Outcome(IntEnum):
    """Also the place of its count."""

    GOOD = 0
    FAILED = 1
    LATE = 2


@dataclass(frozen=True, slots=True)
class Interval:
    """Outcomes of requests for which the version was chosen, from ``start`` (monotonic seconds) on."""

    start: float
    good: int = 0
    failed: int = 0
    late: int = 0


@dataclass(frozen=True, slots=True)
class Death:
    """A child of the version died: ``cause`` crash, hang or load. ``waiting``: requests that it held up then.

    ``chained``: no batch of the version had come back well since the death before this one.
    """

    at: float
    cause: str
    isolating: bool = False
    waiting: int = 0
    chained: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    intervals: tuple[Interval, ...] = ()
    deaths: tuple[Death, ...] = ()


class Window:
    """Outcomes of one (route, version) in the last ``span_s`` seconds. Written by the guard alone."""

    __slots__ = ("_counts", "_stamps", "_width")

    def __init__(self, span_s: float) -> None:
        self._width = span_s / INTERVALS
        self._stamps = [-1] * INTERVALS
        self._counts = [[0] * len(Outcome) for _ in range(INTERVALS)]

    def add(self, now: float, outcome: Outcome, count: int = 1) -> None:
        stamp = int(now / self._width)
        place = stamp % INTERVALS
        if self._stamps[place] != stamp:
            self._stamps[place] = stamp
            self._counts[place] = [0] * len(Outcome)
        self._counts[place][outcome] += count

    def intervals(self) -> tuple[Interval, ...]:
        """Oldest first; those that have run out are for the reader to leave out."""
        known = sorted((stamp, place) for place, stamp in enumerate(self._stamps) if stamp >= 0)
        return tuple(self._interval(stamp, self._counts[place]) for stamp, place in known)

    def _interval(self, stamp: int, counts: list[int]) -> Interval:
        good, failed, late = counts
        return Interval(stamp * self._width, good, failed, late)


class Deaths:
    """The deaths of one version, on whatever route it serves."""

    __slots__ = ("_deaths", "_good_since")

    def __init__(self) -> None:
        self._deaths: deque[Death] = deque(maxlen=MAX_DEATHS)
        self._good_since = True

    def died(self, now: float, cause: str, *, isolating: bool, waiting: int) -> None:
        self._deaths.append(Death(now, cause, isolating, waiting, chained=not self._good_since))
        self._good_since = False

    def batch_came_back(self) -> None:
        self._good_since = True

    def listed(self) -> tuple[Death, ...]:
        return tuple(self._deaths)
