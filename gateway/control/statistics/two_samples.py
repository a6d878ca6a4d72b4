"""The two-sample test of one yes/no stream: blocks of both arms' outcomes, strata apart, bets carried on over all.

The counters are cumulative, so what no block has used yet is simply the difference to what was used (``taken``). Two
kinds of block are cut from them: for harm, units enough and a bad outcome; for health, units enough alone, since its
proof allows outcomes no say in where a block ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from gateway.control.statistics.confidence import DifferenceTest, expected_health_gain
from gateway.control.statistics.e_values import Mixture, expected_gain, harm_gain, share_of_bad_gain
from gateway.control.statistics.findings import Finding
from gateway.control.tallies import BASELINE, BINS_PER_OCTAVE, CANDIDATE

__all__ = ["LEAST_BLOCK", "NONE", "Cells", "TwoSamples", "least_block"]

LEAST_BLOCK, LARGEST_LEAST = 20, 200
"""A block of n tells 1 - 1/n of what its units could; and it should have a unit of the smaller arm in it."""

CALIBRATION_UNITS = 200
"""Of the baseline, per stratum, before its 99th percentile, twice over, says what is slow."""
SLOW_SHARE = 0.01

Outcomes = Mapping[str, int]
"""Of one stratum: ``arm/outcome`` to its count."""


def least_block(share: float) -> int:
    smaller = min(share, 1.0 - share)
    return LEAST_BLOCK if smaller <= 0.0 else min(max(LEAST_BLOCK, ceil(1.0 / smaller - 1e-9)), LARGEST_LEAST)


class Cells(NamedTuple):
    candidate: int = 0
    candidate_bad: int = 0
    baseline: int = 0
    baseline_bad: int = 0

    @property
    def units(self) -> int:
        return self.candidate + self.baseline

    @property
    def bad(self) -> int:
        return self.candidate_bad + self.baseline_bad

    def plus(self, other: Cells) -> Cells:
        return Cells(*(one + two for one, two in zip(self, other, strict=True)))


NONE = Cells()


@dataclass(frozen=True, slots=True)
class TwoSamples:
    """``used``: in bets on harm. ``pending``: what no block of the other test has used yet."""

    test: DifferenceTest
    harm: Mixture = field(default_factory=Mixture)
    used: Cells = NONE
    harm_taken: Mapping[str, Outcomes] = field(default_factory=dict)
    health_taken: Mapping[str, Outcomes] = field(default_factory=dict)
    pending: Cells = NONE

    @classmethod
    def begin(cls, max_harm: float) -> TwoSamples:
        return cls(DifferenceTest.begin(max_harm))

    def new_epoch(
        self, totals: Mapping[str, Outcomes], shares: Mapping[str, float], *, binned: bool, slow_bin: int | None
    ) -> TwoSamples:
        """Counters begin anew. ``totals``: the last of the old ones; ``shares``: the candidate's, then.

        A step ends because the candidate looks well, so to drop the block that is open then would be to drop bad news
        for the bet: epochs ended ten times at the worst moment doubled the false alarms. What the block has said so far
        against the bet therefore counts, unit by unit; what it has said for it does not, and no unit is used twice.
        """
        harm = self.harm
        for stratum in sorted(totals):
            block = _block(totals[stratum], self.harm_taken.get(stratum, {}), binned, slow_bin)
            if block is not None and block.bad:
                share = max(shares.get(stratum, 0.0), block.candidate / block.units)
                harm = harm.multiplied(np.minimum(share_of_bad_gain(block.bad, block.candidate_bad, share), 0.0))
        return replace(self, harm=harm.started_anew(), harm_taken={}, health_taken={}, pending=NONE)

    def advanced(self, totals: Mapping[str, Outcomes], least: int, *, binned: bool, slow_bin: int | None) -> TwoSamples:
        """``slow_bin``: for a stream of bins, the last bin that is not slow; None: the baseline's own percentile."""
        track = replace(self, pending=NONE)
        for stratum in sorted(totals):
            track = _bet_on_harm(track, stratum, totals[stratum], least, _Kind(binned, slow_bin))
            track = _bet_on_health(track, stratum, totals[stratum], least, _Kind(binned, slow_bin))
        return track

    def finding(self, max_harm: float, level: float) -> Finding:
        test = self.test
        seen = Cells(test.candidate, test.candidate_bad, test.baseline, test.baseline_bad).plus(self.pending)
        low, high = test.interval(level)
        difference, harm_pace, health_pace = None, 0.0, 0.0
        if seen.candidate and seen.baseline:
            rates = seen.candidate_bad / seen.candidate, seen.baseline_bad / seen.baseline
            difference = rates[0] - rates[1]
            share = seen.candidate / seen.units
            if difference > 0.0:
                harm_pace = expected_gain(*rates, share)
            smoothed = (seen.baseline_bad + 0.5) / (seen.baseline + 1.0)
            candidate = (seen.candidate_bad + smoothed) / (seen.candidate + 1.0)
            health_pace = expected_health_gain(candidate, smoothed, share, max_harm)
        return Finding(*seen, self.harm.log_e, test.log_health(max_harm), difference, low, high, harm_pace, health_pace)

    def to_json(self) -> dict[str, Any]:
        return {
            "test": self.test.to_json(),
            "harm": self.harm.to_json(),
            "used": list(self.used),
            "harm_taken": {stratum: dict(taken) for stratum, taken in self.harm_taken.items()},
            "health_taken": {stratum: dict(taken) for stratum, taken in self.health_taken.items()},
            "pending": list(self.pending),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> TwoSamples:
        return cls(
            DifferenceTest.from_json(body["test"]),
            Mixture.from_json(body["harm"]),
            Cells(*body["used"]),
            body["harm_taken"],
            body["health_taken"],
            Cells(*body["pending"]),
        )


class _Kind(NamedTuple):
    binned: bool
    slow_bin: int | None


def _bet_on_harm(track: TwoSamples, stratum: str, total: Outcomes, least: int, kind: _Kind) -> TwoSamples:
    block = _block(total, track.harm_taken.get(stratum, {}), *kind)
    taken = {**track.harm_taken, stratum: dict(total)}
    if block is None:
        return replace(track, harm_taken=taken)
    if block.units < least or not block.bad:
        return track
    harm = track.harm.at(track.used.candidate).multiplied(harm_gain(*block))
    return replace(track, harm=harm, used=track.used.plus(block), harm_taken=taken)


def _bet_on_health(track: TwoSamples, stratum: str, total: Outcomes, least: int, kind: _Kind) -> TwoSamples:
    block = _block(total, track.health_taken.get(stratum, {}), *kind)
    taken = {**track.health_taken, stratum: dict(total)}
    if block is None:
        return replace(track, health_taken=taken)
    if block.units < least:
        return replace(track, pending=track.pending.plus(block))
    return replace(track, test=track.test.taken(*block), health_taken=taken)


def _block(total: Outcomes, taken: Outcomes, binned: bool, slow_bin: int | None) -> Cells | None:
    """What is new in a stratum; None: to be passed over, since counts were lost, or nothing says yet what is slow."""
    new = {name: count - taken.get(name, 0) for name, count in total.items()}
    if any(count < 0 for count in new.values()) or any(name not in total for name in taken):
        return None
    if not binned:
        return _cells(new)
    edge = slow_bin if slow_bin is not None else _percentile_bin(taken)
    if edge is None:
        baseline = sum(count for name, count in new.items() if name.startswith(f"{BASELINE}/"))
        return None if baseline >= CALIBRATION_UNITS else NONE
    return _cells(_split_at(new, edge))


def _cells(outcomes: Outcomes) -> Cells:
    bad = [outcomes.get(f"{arm}/bad", 0) for arm in (CANDIDATE, BASELINE)]
    good = [outcomes.get(f"{arm}/good", 0) for arm in (CANDIDATE, BASELINE)]
    return Cells(good[0] + bad[0], bad[0], good[1] + bad[1], bad[1])


def _split_at(outcomes: Outcomes, edge: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, count in outcomes.items():
        arm, _, place = name.partition("/")
        outcome = f"{arm}/{'bad' if int(place) > edge else 'good'}"
        found[outcome] = found.get(outcome, 0) + count
    return found


def _percentile_bin(taken: Outcomes) -> int | None:
    """The bin twice as slow as the first beyond which lies one percent of the baseline at most.

    Twice, since no two processes are alike: one that has little traffic finds its caches cold. On a live gateway 12 of
    114 batches of a good candidate (20% of the traffic, 1 ms a batch) were above the known good's 99th percentile,
    where 5 of 626 of its own were, and it was rolled back for that."""
    bins = sorted(
        ((int(name.partition("/")[2]), count) for name, count in taken.items() if name.startswith(f"{BASELINE}/")),
        reverse=True,
    )
    if not bins:
        return None
    allowed, beyond = SLOW_SHARE * sum(count for _, count in bins), 0
    for place, count in bins:
        beyond += count
        if beyond > allowed:
            return place + BINS_PER_OCTAVE
    return None
