"""What each of two versions would make of each request of a stream.

Drawn once a run, so that every rule is tried on the very same requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gateway.control.simulation.arrivals import BURST_RATE, UNKNOWN, Arrivals, Booleans, Floats, Integers

__all__ = ["Outcomes", "World", "drawn"]


@dataclass(frozen=True, slots=True)
class World:
    """Shares of requests, each from 0 to 1. ``tied``: a key fails always or never, as a user with an odd account does.
    ``disagreement``: of compared answers, how many differ."""

    baseline_error: float
    candidate_error: float
    baseline_slow: float = 0.01
    candidate_slow: float = 0.01
    disagreement: float = 0.0
    tied: bool = False

    @property
    def equal(self) -> bool:
        """Nothing that the rollout looks at tells the two versions apart."""
        same_errors = self.baseline_error == self.candidate_error
        return same_errors and self.baseline_slow == self.candidate_slow and not self.disagreement


class Outcomes(NamedTuple):
    """One truth value for each request and version, whichever of the two is then asked; ``differs`` of the pair."""

    baseline_failed: Booleans
    candidate_failed: Booleans
    baseline_slow: Booleans
    candidate_slow: Booleans
    differs: Booleans


def drawn(arrivals: Arrivals, world: World, draw: np.random.Generator) -> Outcomes:
    """Where the baseline's outcomes are recorded, they stand: an equal candidate does exactly as well, a worse one
    fails where the baseline failed and on some of the rest, a better one on some of the same."""
    requests = len(arrivals.times_s)
    chance = draw.random(arrivals.key_count)[arrivals.keys] if world.tied else draw.random(requests)
    burst = arrivals.in_burst()
    failed = _pair(chance, world.baseline_error, world.candidate_error, arrivals.failed, draw)
    hit = burst & (draw.random(requests) < BURST_RATE)
    slow = _pair(draw.random(requests), world.baseline_slow, world.candidate_slow, arrivals.slow, draw)
    differs = draw.random(requests) < world.disagreement
    return Outcomes(failed[0] | hit, failed[1] | hit, slow[0], slow[1], differs)


def _pair(
    chance: Floats, baseline: float, candidate: float, recorded: Integers | None, draw: np.random.Generator
) -> tuple[Booleans, Booleans]:
    if recorded is None:
        return chance < baseline, chance < candidate
    known = np.where(recorded == UNKNOWN, draw.random(len(recorded)) < baseline, recorded == 1)
    if candidate >= baseline:
        more = (candidate - baseline) / (1.0 - baseline) if baseline < 1.0 else 0.0
        return known, known | (chance < more)
    return known, known & (chance < candidate / baseline)
