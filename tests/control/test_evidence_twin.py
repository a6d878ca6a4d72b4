"""The benchmarks' twin of the test for harm is the product's own: same blocks, same bets, same numbers."""

from __future__ import annotations

import json
import math
from collections import Counter as Sum

import numpy as np
import pytest

from gateway.control.evidence import FRESH_PART, State, begin, judge
from gateway.control.statistics.e_values import Mixture
from gateway.control.statistics.two_samples import least_block
from gateway.control.tallies import AGAIN, BASELINE, CANDIDATE, FRESH, Counter
from gateway.control.verdicts import Block, Policy, StreamPolicy
from loadtests.evidence_streams import SCENARIOS, WEIGHTS, Stream
from loadtests.harm_paths import harm_path, share_path
from loadtests.scenarios.evidence import highest_in_run, highest_of_runs, share_of
from tests.control.chances import most

ERRORS = Policy(streams=(StreamPolicy("error", 0.02),))


def looked_at_every_request(stream: Stream, shares: tuple[float, ...]) -> float:
    """The highest that ``judge`` ever said."""
    state, counters, epoch, highest = begin(ERRORS), Sum[str](), 0, -math.inf
    for candidate, bad, fresh, first, at in zip(
        stream.candidate, stream.bad, stream.fresh, stream.first, stream.epoch, strict=True
    ):
        if at != epoch:
            counters, epoch = Sum(), int(at)
        if first:
            arm, novelty = CANDIDATE if candidate else BASELINE, FRESH if fresh else AGAIN
            counters[str(Counter("error", "split", novelty, arm, "bad" if bad else "good"))] += 1
        state, judgement = judge(state, Block(epoch, {"split": shares[epoch]}, dict(counters)), ERRORS)
        highest = max(highest, judgement.streams[0].log_harm)
    assert State.from_json(json.loads(json.dumps(state.to_json()))) == state
    return highest


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_the_twin_finds_what_the_product_finds_at_every_request(name: str) -> None:
    """Random streams, with keys that return and weights that change; the state goes through JSON unharmed."""
    stream = SCENARIOS[name](np.random.default_rng(11), 1500, 0.05)
    shares = WEIGHTS if int(stream.epoch[-1]) else WEIGHTS[:1]
    never_less = math.log(FRESH_PART) + Mixture().log_e
    assert looked_at_every_request(stream, shares) == pytest.approx(max(highest_in_run(stream), never_less), abs=1e-9)


def test_the_twin_starts_later_bets_when_the_product_does() -> None:
    """The candidate has half the keys, so its units double several times."""
    rng = np.random.default_rng(5)
    candidate, bad = rng.random(3000) < 0.5, rng.random(3000) < 0.1
    path = harm_path(candidate, bad, least_block(0.5))
    state, counters, found = begin(ERRORS), Sum[str](), []
    for arm, is_bad in zip(candidate, bad, strict=True):
        counters[
            str(Counter("error", "split", FRESH, CANDIDATE if arm else BASELINE, "bad" if is_bad else "good"))
        ] += 1
        state, judgement = judge(state, Block(0, {"split": 0.5}, dict(counters)), ERRORS)
        found.append(judgement.streams[0].log_harm - math.log(FRESH_PART))
    assert np.array(found)[path.at] == pytest.approx(path.log_e, abs=1e-9)


def test_the_twin_of_the_one_sample_test_is_the_product_too() -> None:
    """Pairs, of which 5% differ, against a limit of 2%."""
    bad = np.random.default_rng(2).random(800) < 0.05
    policy = Policy(streams=(StreamPolicy("disagreement", 0.02),))
    state, counters, found = begin(policy), Sum[str](), []
    for differs in bad:
        counters[str(Counter("disagreement", "all", FRESH, CANDIDATE, "bad" if differs else "good"))] += 1
        state, judgement = judge(state, Block(0, {}, dict(counters)), policy)
        found.append(judgement.streams[0].log_harm - math.log(FRESH_PART))
    assert np.array(found) == pytest.approx(share_path(bad, 0.02).log_e, abs=1e-9)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_two_equal_versions_are_rolled_back_no_more_often_than_alpha(name: str) -> None:
    """120 runs, four streams together, a verdict after each of 20,000 requests. The full table is printed by
    ``make bench``."""
    runs = 120
    highest = highest_of_runs(SCENARIOS[name], 0.01, runs, 0)
    for alpha in (0.05, 0.01):
        assert runs * share_of(highest, alpha) <= most(runs, alpha)
