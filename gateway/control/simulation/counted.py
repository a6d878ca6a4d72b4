"""What the collectors of all replicas would have counted of an epoch, at every tick: by the same rules and names.

The unit is a key's first outcome in an epoch. It is drawn for the whole epoch at once, so that a tick costs nothing
but a look into a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gateway.control.simulation.arrivals import Booleans, Integers
from gateway.control.simulation.runs import Stage
from gateway.control.tallies import AGAIN, BASELINE, CANDIDATE, FRESH, Counter, rows_class, slow_bin_of

__all__ = ["LIMIT_MS", "Counted", "Met", "firsts"]

LIMIT_MS = 100
"""What is slow here: a stream says of each answer only whether it was, not how long it took."""

_QUICK_BIN, _SLOW_BIN = str(slow_bin_of(LIMIT_MS / 2000)), str(slow_bin_of(LIMIT_MS / 500))


class Met:
    """The keys that were a unit of an earlier epoch of the rollout, and those of which a pair was compared."""

    def __init__(self, key_count: int) -> None:
        self.units: Booleans = np.zeros(key_count, dtype=np.bool_)
        self.pairs: Booleans = np.zeros(key_count, dtype=np.bool_)

    def add(self, keys: Integers, paired: Booleans) -> None:
        self.units[keys] = True
        self.pairs[keys[paired]] = True


class Counted:
    """One epoch, from request ``start`` on. ``asked``: which requests the candidate answers; ``paired``: of which the
    other version gets a copy. ``ticks`` are the requests that had come by each of the ticks that follow."""

    def __init__(
        self, stage: Stage, *, start: int, asked: Booleans, paired: Booleans, met: Met, ticks: Sequence[int]
    ) -> None:
        span = slice(start, None)
        keys, arm, outcomes = stage.arrivals.keys[span], asked[span], stage.outcomes
        self._ends = np.asarray(ticks, dtype=np.int64) - start
        self._names: list[str] = []
        self._columns: list[Integers] = []
        units = firsts(keys, np.ones(len(keys), dtype=np.bool_), len(met.units))
        failed = np.where(arm, outcomes.candidate_failed[span], outcomes.baseline_failed[span])
        late = np.where(arm, outcomes.candidate_slow[span], outcomes.baseline_slow[span])
        fresh = ~met.units[keys]
        for named, mask in ((CANDIDATE, arm), (BASELINE, ~arm)):
            self._count(("error", "split", named), units & mask, fresh=fresh, bad=failed)
            self._count(("slow", rows_class(1), named), units & mask & ~failed, fresh=fresh, bad=late)
        pairs = firsts(keys, paired[span], len(met.pairs))
        differs = outcomes.differs[span]
        self._count(("disagreement", "all", CANDIDATE), pairs, fresh=~met.pairs[keys], bad=differs)
        harms = [column for name, column in zip(self._names, self._columns, strict=True) if _harms(name)]
        self._harmed: list[int] = np.sum(harms, axis=0).tolist()
        self._rows: list[list[int]] = np.stack(self._columns, axis=1).tolist()

    def row(self, tick: int) -> list[int]:
        """All counts by the end of the epoch's ``tick``-th tick, counted from 0."""
        return self._rows[tick]

    def counters(self, row: list[int]) -> Mapping[str, int]:
        return {name: count for name, count in zip(self._names, row, strict=True) if count}

    def harmed(self, tick: int) -> int:
        """How many outcomes of the candidate have been bad by then."""
        return self._harmed[tick]

    def _count(self, name: tuple[str, str, str], units: Booleans, *, fresh: Booleans, bad: Booleans) -> None:
        """``name``: stream, stratum and arm."""
        stream, stratum, arm = name
        for novelty, new in ((FRESH, fresh), (AGAIN, ~fresh)):
            for outcome, mask in zip(_outcomes(stream), (~bad, bad), strict=True):
                self._names.append(str(Counter(stream, stratum, novelty, arm, outcome)))
                total = np.concatenate([[0], np.cumsum(units & new & mask)])
                self._columns.append(total[self._ends])


def _outcomes(stream: str) -> tuple[str, str]:
    """What a good and a bad one is counted as."""
    return (_QUICK_BIN, _SLOW_BIN) if stream == "slow" else ("good", "bad")


def _harms(name: str) -> bool:
    _, _, _, arm, outcome = name.split("/")
    return arm == CANDIDATE and outcome in ("bad", _SLOW_BIN)


def firsts(keys: Integers, among: Booleans, key_count: int) -> Booleans:
    """Which of the requests ``among`` these are the first of their key."""
    places = np.flatnonzero(among)
    first = np.full(key_count, -1, dtype=np.int64)
    first[keys[places[::-1]]] = places[::-1]  # of several assignments to one place the last holds: the earliest request
    found: Booleans = np.zeros(len(keys), dtype=np.bool_)
    found[first[first >= 0]] = True
    return found
