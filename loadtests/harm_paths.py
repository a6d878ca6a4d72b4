"""The test for harm over a whole stream of outcomes at once: what ``judge`` finds when it looks after every request.

A twin of the product's code on arrays, for simulations of thousands of runs; tests/control/test_evidence_twin.py holds
the two equal. It uses the product's gains and stakes, and does only the bookkeeping otherwise.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from gateway.control.statistics.e_values import (
    LOG_ODDS,
    STAKES,
    Mixture,
    log_normaliser,
    share_gain,
    share_of_bad_gain,
)
from gateway.control.statistics.two_samples import NONE, Cells

__all__ = ["Path", "harm_path", "share_path"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Path:
    """``at``: after which unit (0 the first) a block ended; ``log_e`` from then on. ``mixture`` and ``used`` (the
    candidate's units in blocks) are those of the end, ``left`` the units of either arm that no block has used."""

    at: Integers
    log_e: Floats
    mixture: Mixture
    used: int
    left: Cells = NONE

    def next_epoch(self, share: float) -> Mixture:
        """What the epoch after this one begins with; ``share``: the candidate's in this one."""
        harm, left = self.mixture, self.left
        if left.bad:
            gain = share_of_bad_gain(left.bad, left.candidate_bad, max(share, left.candidate / left.units))
            harm = harm.multiplied(np.minimum(gain, 0.0))
        return harm.started_anew()

    @property
    def highest(self) -> float:
        return float(self.log_e.max()) if len(self.log_e) else -np.inf

    def first(self, wanted: float) -> int | None:
        """After which unit it reached ``wanted``."""
        reached = np.flatnonzero(self.log_e >= wanted)
        return int(self.at[reached[0]]) if len(reached) else None


def harm_path(candidate: Bools, bad: Bools, least: int, mixture: Mixture | None = None, used: int = 0) -> Path:
    """``candidate`` and ``bad`` of each unit, in order."""
    ends = _ends(bad, least)
    sums = [np.concatenate(([0], np.cumsum(x)))[ends + 1] for x in (candidate, candidate & bad, bad)]
    units, of_candidate, candidate_bad, all_bad = (np.diff(x, prepend=0) for x in (ends + 1, *sums))
    keys = zip(of_candidate.tolist(), (units - of_candidate).tolist(), all_bad.tolist(), strict=True)
    normalisers = np.array([log_normaliser(*key) for key in keys]).reshape(-1, len(STAKES))
    gains = candidate_bad[:, None] * LOG_ODDS - normalisers
    before = used + np.concatenate(([0], np.cumsum(of_candidate)))
    rest = slice(int(ends[-1]) + 1 if len(ends) else 0, None)
    arms, wrong = candidate[rest], bad[rest]
    counts = (arms, arms & wrong, ~arms, ~arms & wrong)
    left = Cells(*(int(np.count_nonzero(x)) for x in counts))
    return replace(_bets(ends, gains, before, mixture or Mixture()), left=left)


def share_path(bad: Bools, limit: float) -> Path:
    """The one-sample test, each unit a block."""
    tables = np.array([share_gain(1, 0, limit), share_gain(1, 1, limit)])
    return _bets(np.arange(len(bad)), tables[bad.astype(np.intp)], np.arange(len(bad) + 1), Mixture())


def _ends(bad: Bools, least: int) -> Integers:
    """A block ends where it has units enough and a bad one."""
    places = np.flatnonzero(bad).tolist()
    ends, last, following = [], -1, 0
    while True:
        following = bisect_left(places, last + 1, following)
        if following == len(places):
            break
        last = max(last + least, places[following])
        if last >= len(bad):
            break
        ends.append(last)
    return np.array(ends, dtype=np.int64)


def _bets(ends: Integers, gains: Floats, before: Integers, mixture: Mixture) -> Path:
    """Later starts fall due by the candidate's units used before a block; each then shares in that block's gain."""
    blocks = len(ends)
    total = np.vstack((np.zeros(len(STAKES)), np.cumsum(gains, axis=0)))
    logs = np.array(mixture.logs) + total[1:]
    later = np.full(blocks, mixture.later)
    last = np.array(mixture.logs) + total[-1]
    next_start, kept = mixture.next_start, mixture.later
    while blocks and before[-2] >= next_start:
        start = int(np.searchsorted(before[:-1], next_start))
        kept -= float(np.log(2.0))
        stake = kept + np.log(STAKES) - total[start]
        logs[start:] = np.logaddexp(logs[start:], stake + total[start + 1 :])
        last = np.logaddexp(last, stake + total[-1])
        later[start:] = kept
        next_start *= 2
    every = np.column_stack((logs, later)) if blocks else np.empty((0, len(STAKES) + 1))
    log_e = np.logaddexp.reduce(every, axis=1)
    after = replace(mixture, logs=tuple(last.tolist()), later=kept, next_start=next_start)
    return Path(ends, log_e, after, int(before[-1]))
