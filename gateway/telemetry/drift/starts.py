"""Since when one looks: windows that begin at several moments and end now, few whatever the time that has passed.

Nobody knows when a drift begins, so a bet is opened every ten minutes (``START_S``) and all that are open are summed:
the Shiryaev-Roberts sum of e-processes, an *e-detector* (Shin, Ramdas, Rinaldo, "E-detectors: a nonparametric framework
for sequential change detection", 2022). Without drift its mean is at most the number of bets ever opened, so its chance
to reach ``tests * bets / budget`` within a budget's time is at most the budget's share of one test. Looking is free: it
may be done as often as one likes. Bets are dropped as they age, so that those left are about as many for each doubling
of age; dropping gives something up and promises nothing, since every term of the sum is positive.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gateway.telemetry.drift.cells import Counts

__all__ = ["START_S", "Starts", "bets_in", "stays"]

START_S = 600.0
_ALL_YOUNGER = 8
_PER_DOUBLING = 4


def bets_in(days: float) -> float:
    """The most bets that are opened in so many days."""
    return days * 86_400.0 / START_S


@dataclass(frozen=True, slots=True, eq=False)
class Starts:
    """``serials`` and ``before``: of each open bet its number, and all that had been counted when it was opened (s,
    size). ``opened_at`` of the last one, by the wall; ``opened``: how many ever were; ``now``: all counted by the last
    look."""

    now: Counts
    serials: tuple[int, ...] = ()
    before: Counts | None = None
    times: tuple[float, ...] = ()
    opened: int = 0

    @classmethod
    def begin(cls, now: Counts, at: float) -> Starts:
        """One bet, open from here."""
        return cls(now, (0,), now[None, :].copy(), (at,), 1)

    @property
    def windows(self) -> Counts:
        """What was counted since each start (s, size)."""
        if self.before is None:
            return np.zeros((0, len(self.now)), np.int64)
        found: Counts = self.now[None, :] - self.before
        return found

    def counted(self, now: Counts) -> Starts:
        return replace(self, now=now)

    def moved(self, now: Counts) -> Starts:
        """The counters began anew, at ``now``: what the bets have seen stays theirs, what came between is nobody's."""
        before = None if self.before is None else self.before + (now - self.now)[None, :]
        return replace(self, now=now, before=before)

    def opened_anew(self, at: float, most_rows: int) -> Starts:
        """Another bet from ``now`` on when it is time and rows came since the last; old and filled ones are dropped.
        Of a clock that went back it only matters that time has passed."""
        if self.before is None or not self.times:
            return Starts.begin(self.now, at)
        if abs(at - self.times[-1]) < START_S or self.now[0] == self.before[-1][0]:
            return self
        serial = self.opened
        kept = [
            place
            for place, number in enumerate(self.serials)
            if stays(number, serial)
            and (number == self.serials[-1] or self.now[0] - self.before[place][0] <= most_rows)
        ]
        return Starts(
            self.now,
            (*(self.serials[place] for place in kept), serial),
            np.concatenate([self.before[kept], self.now[None, :]]),
            (*(self.times[place] for place in kept), at),
            serial + 1,
        )


def stays(number: int, newest: int) -> bool:
    """Multiples of a power of two that grows with age: once dropped, a number would never have come back."""
    age = newest - number
    if age <= _ALL_YOUNGER:
        return True
    return number % (1 << (age // _PER_DOUBLING).bit_length() - 1) == 0
