"""What users of other systems complain of and cannot happen here: what a candidate is judged by. The numbers are those
of the list of complaints that the tests of pains share."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping

import numpy as np

from gateway.control.evidence import State, begin, judge
from gateway.control.tallies import BASELINE, CANDIDATE, Counter, tally
from gateway.control.verdicts import HARMFUL, HEALTHY, NOT_ENOUGH, Block, Judgement, Policy, StreamPolicy

ERRORS = Policy(streams=(StreamPolicy("error", 0.02),))
WEIGHT = 0.05


def counters(candidate: int, candidate_bad: int, baseline: int, baseline_bad: int) -> dict[str, int]:
    return tally("error", CANDIDATE, good=candidate - candidate_bad, bad=candidate_bad) | tally(
        "error", BASELINE, good=baseline - baseline_bad, bad=baseline_bad
    )


def looks(size: int, candidate_rate: float, baseline_rate: float, *, every: int, seed: int) -> Iterator[dict[str, int]]:
    """The counters after each so many requests."""
    rng = np.random.default_rng(seed)
    arms = rng.random(size) < WEIGHT
    bad = rng.random(size) < np.where(arms, candidate_rate, baseline_rate)
    sums = [np.cumsum(x) for x in (arms, arms & bad, ~arms, ~arms & bad)]
    for end in range(every - 1, size, every):
        yield counters(*(int(x[end]) for x in sums))


def judged(
    every: Iterator[Mapping[str, int]], policy: Policy = ERRORS, *, share: float = WEIGHT
) -> tuple[State, Judgement]:
    """Up to the first verdict."""
    state, judgement = judge(begin(policy), Block(0, {"split": share}, {}), policy)
    for counted in every:
        state, judgement = judge(state, Block(0, {"split": share}, counted, 60.0), policy)
        if judgement.verdict != NOT_ENOUGH:
            break
    return state, judgement


def test_pain_1_no_traffic_is_no_verdict() -> None:
    """However often it is looked at, nothing happened: neither harm nor health, and it says so."""
    state, judgement = judged(iter([{}] * 1_000))
    assert judgement.verdict == NOT_ENOUGH
    assert judgement.reason == "error: the candidate has no outcome yet"
    assert state == judge(begin(ERRORS), Block(0, {"split": WEIGHT}, {}), ERRORS)[0]


def test_pain_2_a_stream_without_data_never_lets_a_rollout_go_on() -> None:
    """Errors are healthy, a required stream has no data: not enough. Where it is not required it stops nothing."""
    for required, expected in ((True, NOT_ENOUGH), (False, HEALTHY)):
        policy = Policy(streams=(StreamPolicy("error", 0.02), StreamPolicy("label", 0.05, required=required)))
        healthy = (counters(50 * n, 0, 950 * n, n) for n in range(1, 20))
        state, judgement = begin(policy), None
        for counted in healthy:
            state, judgement = judge(state, Block(0, {"split": WEIGHT}, counted), policy)
        assert judgement is not None
        assert judgement.verdict == expected


def test_pain_3_a_few_errors_at_low_volume_abort_nothing() -> None:
    """A version whose errors are as frequent as the baseline's (3%), looked at after each request of a thin stream:
    of 60 such candidates hardly any is rolled back; a rule of 95% success aborts half of them."""
    found = [judged(looks(2_000, 0.03, 0.03, every=50, seed=seed))[1].verdict for seed in range(1000, 1060)]
    assert found.count(HARMFUL) <= 3
    first_fails = judged(iter([counters(1, 1, 19, 0)]))[1]
    assert first_fails.verdict == NOT_ENOUGH


def test_pain_12_a_new_rollout_inherits_no_score() -> None:
    """A state begins with nothing, whatever an earlier candidate did; an epoch of the same rollout keeps its score."""
    state, bad = judged(looks(4_000, 0.3, 0.01, every=20, seed=1))
    assert bad.verdict == HARMFUL
    again = judge(state, Block(1, {"split": WEIGHT}, {}), ERRORS)[1]
    assert again.verdict == HARMFUL
    fresh = judge(begin(ERRORS), Block(1, {"split": WEIGHT}, {}), ERRORS)[1]
    assert fresh.verdict == NOT_ENOUGH
    assert fresh.streams[0].log_harm < 0.0


def test_pain_19_versions_are_compared_by_a_test_of_significance() -> None:
    """And one that may be looked at after every request: errors from 5% to 10% are found, the error budget is kept."""
    _, judgement = judged(looks(60_000, 0.10, 0.05, every=20, seed=3))
    assert judgement.verdict == HARMFUL
    stream = judgement.streams[0]
    assert stream.log_harm >= math.log(1 / ERRORS.alpha)
    assert stream.candidate.units < 1_000


def test_pain_20_rare_errors_spikes_and_a_baseline_without_any_error_are_no_trouble() -> None:
    """Zero errors on both arms: healthy. One in a thousand against two percent: found. A spike on both arms: nothing.
    Slow answers by their tail: a candidate whose every fiftieth is slow is found although its median is the same."""
    assert judged(looks(40_000, 0.0, 0.0, every=50, seed=1))[1].verdict == HEALTHY
    assert judged(looks(60_000, 0.05, 0.0, every=20, seed=2))[1].verdict == HARMFUL
    quiet, spike = counters(100, 0, 1_900, 1), counters(120, 10, 2_280, 191)
    assert judged(iter([quiet, spike]))[1].streams[0].verdict != HARMFUL
    assert _tail(0.2) == HARMFUL
    assert _tail(0.005) != HARMFUL


def _tail(slow_share: float) -> str:
    """Of a candidate with so many slow answers beside a baseline with 0.5%; the limit is the baseline's percentile."""
    policy = Policy(streams=(StreamPolicy("slow", 0.05),))
    rng = np.random.default_rng(7)
    state, judgement, counted = begin(policy), None, dict[str, int]()
    for _ in range(60):
        for arm, size, share in ((CANDIDATE, 10, slow_share), (BASELINE, 190, 0.005)):
            slow = int(rng.binomial(size, share))
            for place, count in (("70", size - slow), ("95", slow)):
                name = str(Counter("slow", "rows-8", "fresh", arm, place))
                counted[name] = counted.get(name, 0) + count
        state, judgement = judge(state, Block(0, {"split": WEIGHT}, dict(counted)), policy)
        if judgement.verdict == HARMFUL:
            break
    return judgement.verdict if judgement else ""


def test_pain_21_the_judge_says_why() -> None:
    """Counts, statistic, what was asked for, an interval, and a sentence; all of it as JSON."""
    _, judgement = judged(looks(4_000, 0.3, 0.01, every=20, seed=1))
    shown = json.loads(json.dumps(judgement.to_json(), allow_nan=False))
    stream = shown["streams"][0]
    assert stream["candidate"]["bad"] > 0
    assert stream["log_harm"] >= stream["harm_threshold"] == math.log(20)
    assert stream["low"] < stream["difference"] <= stream["high"]
    assert "of the candidate's" in shown["reason"]
    assert "to 1 with 20 to 1 asked for" in shown["reason"]


def test_pain_39_a_broken_split_blocks_promotion_whatever_the_metrics_say() -> None:
    """The candidate has 10% of the keys where the split says 5%: its errors look well, and nothing is healthy."""
    well = (counters(100 * n, 0, 900 * n, n) for n in range(1, 20))
    state = begin(ERRORS)
    for counted in well:
        state, judgement = judge(state, Block(0, {"split": WEIGHT}, counted), ERRORS)
    assert judgement.streams[0].verdict == HEALTHY
    assert judgement.ratio.broken
    assert judgement.verdict == NOT_ENOUGH
    assert judgement.reason.startswith("the split gives the candidate 5.00% of the keys, and 10.00%")
    sound = judge(begin(ERRORS), Block(0, {"split": 0.1}, counted), ERRORS)[1]
    assert not sound.ratio.broken
