"""What others would have done with the same requests: a fixed rule, and an ordinary test that is repeated.

Both climb the plan's steps in ``LOOKS`` looks, the same number at each step, and promote after the last. They count
requests, not users, as the tools that they stand for do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gateway.control.simulation.arrivals import KEY_SPACE, Booleans
from gateway.control.simulation.runs import PROMOTED, ROLLED_BACK, UNFINISHED, Run, Stage
from gateway.control.simulation.world import Outcomes

__all__ = ["LOOKS", "RIVALS", "Rule", "compete"]

LOOKS = 30
MIN_SUCCESS = 0.95
MAX_FAILED_LOOKS = 4
Z_LIMIT = 1.959963984540054
"""Two-sided, 5%."""


class Look(NamedTuple):
    """Failures and requests of each arm, since the look before."""

    candidate_failed: int
    candidate: int
    baseline_failed: int
    baseline: int


Rule = Callable[[Sequence[Look]], bool]
"""Whether the looks so far mean: go back."""


def fixed_rule(looks: Sequence[Look]) -> bool:
    """Success of 95% or more at each look; nothing to look at has failed, too. Four failures end it."""
    good = [look.candidate and 1 - look.candidate_failed / look.candidate >= MIN_SUCCESS for look in looks]
    return len(good) - sum(map(bool, good)) >= MAX_FAILED_LOOKS


def z_test(looks: Sequence[Look]) -> bool:
    """The pooled test of two shares over all looks so far, at 5%, as if each look were the only one."""
    bad, total, base_bad, base_total = (sum(column) for column in zip(*looks, strict=True))
    if not total or not base_total:
        return False
    pooled = (bad + base_bad) / (total + base_total)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / total + 1 / base_total))
    return spread > 0 and (bad / total - base_bad / base_total) / spread > Z_LIMIT


RIVALS: Mapping[str, Rule] = {"fixed-rule": fixed_rule, "z-test": z_test}


def compete(rule: Rule, stage: Stage, percents: Sequence[float], look_s: float) -> Run:
    """One rollout by ``rule``: a look every ``look_s`` seconds."""
    times = stage.arrivals.times_s
    ends = np.arange(1, LOOKS + 1) * look_s
    borders = [0, *np.searchsorted(times, ends, side="left").tolist()]
    asked: Booleans = np.zeros(len(times), dtype=np.bool_)
    weights: list[tuple[float, float]] = []
    looks: list[Look] = []
    for number, end_s in enumerate(ends.tolist()):
        span = slice(borders[number], borders[number + 1])
        percent = percents[number * len(percents) // LOOKS]
        asked[span] = stage.places[span] >= KEY_SPACE * (1 - percent / 100)
        if not weights or weights[-1][1] != percent:
            weights.append((number * look_s, percent))
        looks.append(_look(asked[span], stage.outcomes, span))
        if end_s > stage.arrivals.length_s:
            return stage.ended(asked, UNFINISHED, stage.arrivals.length_s, weights=weights)
        if rule(looks):
            return stage.ended(asked, ROLLED_BACK, end_s, cause="error", weights=weights)
    return stage.ended(asked, PROMOTED, float(ends[-1]), weights=weights)


def _look(asked: Booleans, outcomes: Outcomes, span: slice) -> Look:
    candidate, baseline = outcomes.candidate_failed[span], outcomes.baseline_failed[span]
    return Look(
        candidate_failed=int(np.count_nonzero(candidate & asked)),
        candidate=int(np.count_nonzero(asked)),
        baseline_failed=int(np.count_nonzero(baseline & ~asked)),
        baseline=int(np.count_nonzero(~asked)),
    )
