"""What the evidence of rollouts costs and finds: false rollbacks of equal versions, and how soon a worse one is seen.

Both are simulations on fixed seeds with the product's own e-values, a verdict after every request. ``plan.rounds`` and
``plan.seconds`` have no say; a quick run makes fewer runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.control.evidence import FRESH_PART
from gateway.control.statistics.e_values import expected_gain
from gateway.control.statistics.two_samples import least_block
from loadtests.evidence_streams import SCENARIOS, WEIGHT, WEIGHTS, Make, Stream, detection
from loadtests.harm_paths import Path, harm_path, share_path
from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan

__all__ = ["CASES", "detecting", "false_rollbacks", "first_detection", "highest_in_run"]

STREAMS = 4
RATES = (0.001, 0.01, 0.05)
ALPHAS = (0.05, 0.01)
REQUESTS, RUNS, DETECTION_RUNS = 20_000, 2_000, 1_000
QUICK_RUNS = 100
MAX_DISAGREEMENT, SHADOW_SHARE = 0.02, 0.1
CASES = ((0.01, 0.2, 12), (0.05, 0.1, 226), (0.01, 0.02, 1196))
"""Errors of baseline and candidate, and the bound: units of the candidate for a test that knew both."""
ALPHA = 0.05 / STREAMS

LOOKS, FAILED_LOOKS, MIN_SUCCESS, UNITS_A_LOOK = 30, 4, 0.95, 20


def highest_in_run(stream: Stream) -> float:
    """Of one two-sample stream, over all epochs and both kinds of key: the highest log e-value, less its own budget,
    that any look had."""
    path: Path | None = None
    found = -math.inf
    epochs = int(stream.epoch[-1]) + 1
    for number in range(epochs):
        weight = WEIGHTS[number] if epochs > 1 else WEIGHT
        least = least_block(weight)
        fresh = stream.fresh & (stream.epoch == number)
        mixture, used = (None, 0) if path is None else (path.next_epoch(WEIGHTS[number - 1]), path.used)
        path = harm_path(stream.candidate[fresh], stream.bad[fresh], least, mixture, used)
        found = max(found, path.highest + math.log(FRESH_PART))
        if number:
            every = stream.first & (stream.epoch == number)
            part = (1.0 - FRESH_PART) / ((number + 1) * number)
            alone = harm_path(stream.candidate[every], stream.bad[every], least)
            found = max(found, alone.highest + math.log(part))
    return found


def _highest_of_all(rng: np.random.Generator, make: Make, rate: float) -> float:
    """Errors, slow answers and labels of one rollout, and pairs that differ just as often as they may."""
    two = [highest_in_run(make(rng, REQUESTS, rate)) for _ in range(STREAMS - 1)]
    pairs = rng.random(int(REQUESTS * SHADOW_SHARE)) < MAX_DISAGREEMENT
    return max(*two, share_path(pairs, MAX_DISAGREEMENT).highest + math.log(FRESH_PART))


def _every_request(rng: np.random.Generator, make: Make, rate: float) -> float:
    """What it would be if each request counted, in each of the three streams."""
    found = -math.inf
    for _ in range(STREAMS - 1):
        stream = make(rng, REQUESTS, rate)
        found = max(found, harm_path(stream.candidate, stream.bad, least_block(WEIGHT)).highest)
    return found


def false_rollbacks(plan: Plan) -> Outcome:
    runs = QUICK_RUNS if plan.rounds == 1 else RUNS
    figures, rows = [], []
    for name, make in SCENARIOS.items():
        for rate in RATES:
            row = len(rows)
            found = highest_of_runs(make, rate, runs, row)
            naive = [_every_request(np.random.default_rng((2, row, run)), make, rate) for run in range(runs // 4)]
            every = np.array(naive)
            shares = [share_of(found, alpha) for alpha in ALPHAS]
            rows.append((name, f"{rate:.1%}", *(f"{x:.2%}" for x in shares), f"{share_of(every, ALPHAS[0]):.1%}"))
            work = f"equal versions, {runs:,} runs: {name}, {rate:.1%} errors"
            for alpha, share in zip(ALPHAS, shares, strict=True):
                figures.append(Figure(work, f"false rollbacks at alpha {alpha:.0%}", (100 * share,), "%", 100 * alpha))
    counted = f"every request counted, alpha 5%, {runs // 4:,} runs"
    head = ("stream", "errors", *(f"alpha {alpha:.0%}" for alpha in ALPHAS), counted)
    title = f"False rollbacks: {runs:,} runs of four streams, a verdict after each of {REQUESTS:,} requests"
    ran = f"false rollbacks simulated in {runs:,} runs of {REQUESTS:,} requests for each stream and rate of errors"
    return Outcome(tuple(figures), (Table(title, head, tuple(rows)),), ran)


def highest_of_runs(make: Make, rate: float, runs: int, row: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Each row of the table has seeds of its own, so that one unlucky seed is not unlucky in all."""
    return np.array([_highest_of_all(np.random.default_rng((1, row, run)), make, rate) for run in range(runs)])


def share_of(highest: np.ndarray[tuple[int], np.dtype[np.float64]], alpha: float) -> float:
    """Of the runs that were rolled back, each stream having a fourth of alpha."""
    return float((highest >= math.log(STREAMS / alpha)).mean())


def first_detection(stream: Stream, alpha: float) -> int | None:
    """Units of the candidate up to the verdict."""
    path = harm_path(stream.candidate, stream.bad, least_block(WEIGHT))
    at = path.first(math.log(1.0 / alpha) - math.log(FRESH_PART))
    return None if at is None else int(stream.candidate[: at + 1].sum())


@dataclass(frozen=True, slots=True)
class _Look:
    candidate: int
    candidate_bad: int
    baseline: int
    baseline_bad: int


def _looks(stream: Stream) -> list[_Look]:
    """After every 20 units of the candidate, all so far."""
    sums = [
        np.cumsum(x)
        for x in (stream.candidate, stream.candidate & stream.bad, ~stream.candidate, ~stream.candidate & stream.bad)
    ]
    ends = np.searchsorted(sums[0], np.arange(UNITS_A_LOOK, sums[0][-1] + 1, UNITS_A_LOOK))
    return [_Look(*(int(x[end]) for x in sums)) for end in ends]


def _fixed_rule(looks: Sequence[_Look]) -> int | None:
    """Success of 95% or more at each of 30 looks; the fourth look that fails is a rollback."""
    failed, before = 0, 0
    for look in looks[:LOOKS]:
        failed += (look.candidate_bad - before) / UNITS_A_LOOK > 1.0 - MIN_SUCCESS
        before = look.candidate_bad
        if failed >= FAILED_LOOKS:
            return look.candidate
    return None


def _z_test(looks: Sequence[_Look], limit: float = 2.2414) -> int | None:
    """The pooled one-sided test at 1.25%, at each look as if it were the only one."""
    for look in looks:
        share = (look.candidate_bad + look.baseline_bad) / (look.candidate + look.baseline)
        spread = math.sqrt(share * (1 - share) * (1 / look.candidate + 1 / look.baseline))
        gap = look.candidate_bad / look.candidate - look.baseline_bad / look.baseline
        if spread and gap / spread >= limit:
            return look.candidate
    return None


RIVALS = {"fixed rule": _fixed_rule, "repeated z-test": _z_test}


def detecting(plan: Plan) -> Outcome:
    runs = QUICK_RUNS if plan.rounds == 1 else DETECTION_RUNS
    figures, rows = [], []
    for baseline, candidate, bound in CASES:
        found = _detections(baseline, candidate, runs, bound)
        median = _median(found["evidence"])
        exact = math.log(1.0 / ALPHA) / expected_gain(candidate, baseline, WEIGHT)
        work = f"errors {baseline:.0%} to {candidate:.0%} at a 5% weight, {runs:,} runs"
        figures.append(Figure(work, "median units over the bound", (median / bound,), "", 1.6, 1.3))
        rows.append(_detection_row(f"{baseline:.0%} → {candidate:.0%}", exact, found))
    rows.extend(
        _detection_row(f"{rate:.1%} → {rate:.1%}", None, _detections(rate, rate, runs // 4, 1196)) for rate in RATES
    )
    head = ("errors", "bound", "evidence", *RIVALS)
    title = f"Units of the candidate until a rollback, median of {runs:,} runs ({runs // 4:,} of equal versions)"
    ran = f"detection simulated in {runs:,} runs, each until the candidate had eight times the bound's units or more"
    return Outcome(tuple(figures), (Table(title, head, tuple(rows)),), ran)


def _detections(baseline: float, candidate: float, runs: int, bound: int) -> Mapping[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ("evidence", *RIVALS)}
    size = max(REQUESTS, int(8 * bound / WEIGHT))
    for run in range(runs):
        stream = detection(np.random.default_rng((3, bound, run)), size, baseline, candidate)
        looks = _looks(stream)
        units = {"evidence": first_detection(stream, ALPHA), **{name: rule(looks) for name, rule in RIVALS.items()}}
        for name, at in units.items():
            found[name].append(math.inf if at is None else at)
    return found


def _detection_row(errors: str, bound: float | None, found: Mapping[str, Sequence[float]]) -> tuple[str, ...]:
    cells = []
    for units in found.values():
        rolled_back = sum(math.isfinite(x) for x in units) / len(units)
        median = _median(units)
        found_at = f"{median:,.0f}" if math.isfinite(median) else "most never"
        cells.append(f"{found_at} ({rolled_back:.1%} rolled back)" if bound else f"{rolled_back:.1%} rolled back")
    return (errors, "" if bound is None else f"{bound:,.0f}", *cells)


def _median(units: Sequence[float]) -> float:
    middle = sorted(units)[len(units) // 2]
    return middle if math.isfinite(middle) else math.nan
