"""How many runs of a simulation may show what a promise allows only seldom, before the promise is broken."""

from __future__ import annotations

from math import comb

__all__ = ["ONE_IN", "most"]

ONE_IN = 1_000_000


def most(runs: int, chance: float) -> int:
    """The least number that is exceeded with a chance of one in a million at most, were each run's chance ``chance``.
    So no seed has to be looked for, and none that is changed makes a sound test fail."""
    left = 1.0
    for number in range(runs + 1):
        left -= comb(runs, number) * chance**number * (1.0 - chance) ** (runs - number)
        if left <= 1.0 / ONE_IN:
            return number
    return runs
