"""Evidence: its promises in small cases by counting every one, and what its state and verdicts hold to."""

from __future__ import annotations

import json
import math
from collections import Counter as Sum
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.evidence import State, begin, judge
from gateway.control.statistics import e_values
from gateway.control.statistics.confidence import DifferenceTest, nearest, share_log_e
from gateway.control.statistics.e_values import ODDS, harm_gain, log_normaliser, share_gain, share_of_bad_gain
from gateway.control.statistics.sample_ratio import log_ratio_e
from gateway.control.statistics.scores import SCALE, Scores, scaled
from gateway.control.tallies import BASELINE, CANDIDATE, Counter, tally
from gateway.control.verdicts import HARMFUL, HEALTHY, NOT_ENOUGH, Block, Judgement, Policy, StreamPolicy
from gateway.intervals import share_sequence
from tests.control.chances import most

RATES = [0.0, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0]
SIZES = [(a, b) for a in range(1, 5) for b in range(1, 3)] + [(a, b) for a in range(1, 3) for b in range(1, 5)]


def drawn(bad: int, units: int, rate: float) -> float:
    return math.comb(units, bad) * rate**bad * (1 - rate) ** (units - bad)


def mean_of_gains(candidate: int, baseline: int, p_a: float, p_b: float) -> np.ndarray:
    """The mean of each bet's factor over all outcomes of a block."""
    found = np.zeros(len(ODDS))
    for x, y in product(range(candidate + 1), range(baseline + 1)):
        chance = drawn(x, candidate, p_a) * drawn(y, baseline, p_b)
        found += chance * np.exp(harm_gain(candidate, x, baseline, y))
    return found


@pytest.mark.parametrize("size", SIZES)
def test_a_bet_on_harm_gains_nothing_in_the_mean_where_there_is_none(size: tuple[int, int]) -> None:
    """Every outcome of a small block, at each rate: the mean is 1 for equal versions, at most 1 for a better one."""
    for p in RATES:
        assert mean_of_gains(*size, p, p) == pytest.approx(np.ones(len(ODDS)), abs=1e-9)
        for better in (rate for rate in RATES if rate <= p):
            assert (mean_of_gains(*size, better, p) <= 1.0 + 1e-9).all()


def test_it_gains_nothing_in_the_mean_whatever_the_outcomes_are_once_the_arms_are_drawn() -> None:
    """Outcomes fixed by anyone, a burst among them; only who gets which place is chance."""
    for units, bad in product(range(2, 9), range(9)):
        for candidate in range(1, units):
            if bad > units:
                continue
            ways = {
                x: math.comb(bad, x) * math.comb(units - bad, candidate - x) for x in range(min(bad, candidate) + 1)
            }
            gains = [
                count * np.exp(harm_gain(candidate, x, units - candidate, bad - x))
                for x, count in ways.items()
                if count
            ]
            assert sum(gains) / math.comb(units, candidate) == pytest.approx(np.ones(len(ODDS)), abs=1e-9)


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_block_that_an_epochs_end_cuts_short_speaks_against_the_bet_or_not_at_all(share: float) -> None:
    """However many bad outcomes it has, and whose they are; so that a step that ends when the candidate looks well
    does not drop bad news for the bet."""
    for bad, of_candidate in ((0, 0), (1, 0), (1, 1), (3, 1)):
        counters = tally("error", CANDIDATE, bad=of_candidate, good=2) | tally(
            "error", BASELINE, bad=bad - of_candidate, good=8
        )
        policy = Policy(streams=(StreamPolicy("error", 0.02),))
        state, before = judge(begin(policy), Block(0, {"split": share}, counters), policy)
        _, after = judge(state, Block(1, {"split": 0.5}, {}), policy)
        assert after.streams[0].log_harm <= before.streams[0].log_harm + 1e-12
        if bad and not of_candidate:
            assert after.streams[0].log_harm < before.streams[0].log_harm


def test_a_bet_asked_in_the_midst_of_a_block_gains_nothing_in_the_mean() -> None:
    """Each bad outcome is the candidate's with the chance that the split says."""
    for share in (0.05, 0.3, 0.9):
        won, lost = (np.exp(share_of_bad_gain(1, of_candidate, share)) for of_candidate in (1, 0))
        assert share * won + (1 - share) * lost == pytest.approx(np.ones(len(ODDS)), abs=1e-12)


def test_the_bound_for_great_blocks_is_above_the_exact_value() -> None:
    """Hoeffding's, so that the promise holds where the sum would take too long."""
    for candidate, baseline, bad in ((5, 95, 10), (500, 9_500, 800), (50, 50, 60), (3_000, 3_000, 3_000)):
        exact = log_normaliser(candidate, baseline, bad)
        assert (e_values.upper_bound(candidate, baseline, bad) >= exact - 1e-9).all()
    assert np.isfinite(harm_gain(10**8, 10**6, 10**9, 10**7)).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("difference", [-0.1, 0.0, 0.02, 0.3])
def test_a_bet_on_health_gains_nothing_in_the_mean_where_harm_is_at_the_limit(
    size: tuple[int, int], difference: float
) -> None:
    """Every outcome of a small block, over all rates with that difference or more, for several guesses."""
    candidate, baseline = size
    for guess_a, guess_b in ((0.01, 0.01), (0.3, 0.35), (0.05, 0.5)):
        if guess_a - guess_b >= difference:
            continue
        q = nearest(np.array([guess_a]), np.array([guess_b]), candidate, baseline, np.array([difference]))
        q_a, q_b = float(q[0][0]), float(q[1][0])
        for p_b, more in product(np.linspace(0, 1, 21), (0.0, 0.05, 0.2)):
            p_a = p_b + difference + more
            if not 0 <= p_a <= 1:
                continue
            mean_a = p_a * guess_a / q_a + (1 - p_a) * (1 - guess_a) / (1 - q_a)
            mean_b = p_b * guess_b / q_b + (1 - p_b) * (1 - guess_b) / (1 - q_b)
            assert mean_a**candidate * mean_b**baseline <= 1 + 1e-9


def test_the_one_sample_bets_gain_nothing_in_the_mean_at_the_limit() -> None:
    """Harm: at or below it. Health: at it, looked at after each of 200 answers."""
    for limit, p in product((0.01, 0.1), (0.0, 0.005, 0.01, 0.1)):
        if p <= limit:
            mean = p * np.exp(share_gain(1, 1, limit)) + (1 - p) * np.exp(share_gain(1, 0, limit))
            assert (mean <= 1 + 1e-12).all()
    rng = np.random.default_rng(1)
    runs = np.cumsum(rng.random((2_000, 200)) < 0.1, axis=1)
    highest = [max(share_log_e(n + 1, int(bad), 0.1) for n, bad in enumerate(run)) for run in runs]
    assert np.sum(np.array(highest) >= math.log(20)) <= most(2_000, 0.05)


@given(
    st.floats(1e-9, 0.999), st.floats(1e-9, 0.999), st.integers(1, 10**6), st.integers(1, 10**6), st.floats(-0.9, 0.9)
)
def test_the_nearest_rates_are_those_with_the_least_divergence(
    p_a: float, p_b: float, a: int, b: int, d: float
) -> None:
    """None of 200 others with the same difference is nearer."""
    q_a, q_b = (float(q[0]) for q in nearest(np.array([p_a]), np.array([p_b]), a, b, np.array([d])))
    assert q_a - q_b == pytest.approx(d, abs=1e-12)

    def far(other: float) -> float:
        return a * e_values.divergence(p_a, other + d) + b * e_values.divergence(p_b, other)

    others = np.linspace(max(0.0, -d), min(1.0, 1.0 - d), 202)[1:-1]
    assert far(q_b) <= min(far(float(x)) for x in others) * (1 + 1e-6) + 1e-6


def test_a_split_that_is_sound_is_seldom_called_broken_and_a_broken_one_soon() -> None:
    """500 runs of 2,000 keys at 5%, looked at after every key; then 8% where 5% should be."""
    rng = np.random.default_rng(1)
    sound = np.cumsum(rng.random((500, 2_000)) < 0.05, axis=1)
    highest = [max(log_ratio_e(int(a), n + 1 - int(a), 0.05) for n, a in enumerate(run)) for run in sound]
    assert np.sum(np.array(highest) >= math.log(100)) <= most(500, 0.01)
    assert log_ratio_e(80 * 4, 920 * 4, 0.05) > math.log(1000)


def test_score_means_are_held_at_every_look() -> None:
    """Equal scores of both arms: in 100 runs of 40 looks, harm is found no more often than 5% allows; a difference
    is found, and one of as much as may be is not called healthy more often than that."""
    rng = np.random.default_rng(1)
    found = [_scores_run(rng, 0.0) for _ in range(100)]
    assert sum(harm for harm, _ in found) <= most(100, 0.05)
    assert np.mean([health for _, health in found]) == 1.0
    assert np.mean([harm for harm, _ in (_scores_run(rng, 0.3) for _ in range(20))]) == 1.0
    assert sum(health for _, health in (_scores_run(rng, 0.1) for _ in range(100))) <= most(100, 0.05)


def test_scores_of_other_hours_and_callers_are_no_harm() -> None:
    """Scores are worse by night and for a rule's callers, of whom the candidate has more; weights grow as the night
    comes. Means of all that each arm has had would differ by a tenth."""
    rng = np.random.default_rng(2)
    found = [_scores_run(rng, 0.0, night=0.3, shares=(0.05, 0.25, 0.5, 0.95)) for _ in range(100)]
    assert sum(harm for harm, _ in found) <= most(100, 0.05)
    assert np.mean([health for _, health in found]) > 0.9


def _scores_run(
    rng: np.random.Generator,
    less: float,
    *,
    night: float = 0.0,
    shares: tuple[float, ...] = (0.1,),
) -> tuple[bool, bool]:
    """Whether harm was found at 5%, and health, within 40 looks at all."""
    track, harm, health = Scores(), False, False
    for step, share in enumerate(shares):
        totals, track = {"split": Sum[str](), "rule:beta": Sum[str]()}, track.new_epoch()
        for look in range(step * 40 // len(shares), (step + 1) * 40 // len(shares)):
            for stratum, its, worse in (("split", share, 0.0), ("rule:beta", 0.5, night / 2)):
                for arm, size, harmed in ((CANDIDATE, round(100 * its), less), (BASELINE, 100 - round(100 * its), 0.0)):
                    mean = 0.7 - worse - night * look / 40
                    totals[stratum].update(_scored(rng, arm, size, mean - harmed))
            track = track.advanced({name: dict(counted) for name, counted in totals.items()}, 20)
            finding = track.finding(0.1, 0.05, 0.0, 1.0)
            harm, health = harm or finding.log_harm >= math.log(20), health or finding.log_health >= math.log(20)
    return harm, health


def _scored(rng: np.random.Generator, arm: str, size: int, mean: float) -> dict[str, int]:
    scores = [scaled(value, 0.0, 1.0) for value in rng.beta(4 * mean, 4 * (1 - mean), size).tolist()]
    squares = sum(score * score for score in scores)
    return {f"{arm}/units": size, f"{arm}/sum": sum(scores), f"{arm}/squares": squares}


def test_an_error_is_a_score_whose_best_is_its_least() -> None:
    """In its own unit: means, difference and interval are of errors, and more of them is harm."""
    counted = {
        **{f"{CANDIDATE}/{part}": count for part, count in (("units", 500), ("sum", 500 * 4_000))},
        **{f"{BASELINE}/{part}": count for part, count in (("units", 500), ("sum", 500 * 8_000))},
        f"{CANDIDATE}/squares": 500 * 4_000**2,
        f"{BASELINE}/squares": 500 * 8_000**2,
    }
    finding = Scores().advanced({"split": counted}, 20).finding(1.0, 0.05, 10.0, 0.0)
    assert finding.means == pytest.approx((6.0, 2.0))
    assert finding.difference == pytest.approx(4.0)
    assert 0.0 < finding.low < 4.0 < finding.high < 10.0
    assert finding.log_harm > math.log(20) > finding.log_health


def test_a_score_counts_within_the_range_of_the_policy() -> None:
    """Cut at both ends, so that one wild value moves a mean by a bounded amount."""
    assert [scaled(x, -1.0, 1.0) for x in (-5.0, -1.0, 0.0, 1.0, math.inf)] == [0, 0, SCALE // 2, SCALE, SCALE]
    assert [scaled(x, 10.0, 0.0) for x in (50.0, 10.0, 2.5, -1.0)] == [0, 0, SCALE * 3 // 4, SCALE]


# States and verdicts

ALL = Policy(
    streams=(
        StreamPolicy("error", 0.02),
        StreamPolicy("slow", 0.05, required=False),
        StreamPolicy("disagreement", 0.1, required=False),
        StreamPolicy("label", 0.05, required=False),
        StreamPolicy("score", 0.1, required=False),
    )
)
counts = st.integers(0, 3_000)


@st.composite
def additions(draw: st.DrawFn) -> dict[str, int]:
    """What one look adds to the counters, of all kinds."""
    found = {}
    for stream, stratum in (("error", "split"), ("label", "split"), ("error", "rule:beta")):
        for arm, novelty in product((CANDIDATE, BASELINE), ("fresh", "again")):
            good, bad = draw(counts), draw(counts)
            found |= tally(stream, arm, good=good, bad=bad, stratum=stratum, novelty=novelty)
    for arm, place in product((CANDIDATE, BASELINE), (60, 80, 90)):
        found[str(Counter("slow", "rows-4", "fresh", arm, str(place)))] = draw(counts)
    found |= tally("disagreement", CANDIDATE, good=draw(counts), bad=draw(counts), stratum="all")
    for arm, stratum in product((CANDIDATE, BASELINE), ("split", "split@3")):
        units, score = draw(counts), draw(st.integers(0, SCALE))
        parts = (("units", units), ("sum", units * score), ("squares", units * score * score))
        found |= {str(Counter("score", stratum, "fresh", arm, part)): count for part, count in parts}
    return found


def looked(looks: list[dict[str, int]], epochs: list[int], *, through_json: bool = False) -> tuple[State, Judgement]:
    state, total, last = begin(ALL), Sum[str](), 0
    judgement = judge(state, Block(0, {}, {}), ALL)[1]
    for added, epoch in zip(looks, epochs, strict=True):
        if epoch != last:
            total, last = Sum(), epoch
        total.update(added)
        block = Block(epoch, {"split": 0.1, "rule:beta": 0.5}, dict(total), 60.0)
        state, judgement = judge(state, block, ALL)
        if through_json:
            state = State.from_json(json.loads(json.dumps(state.to_json())))
    return state, judgement


@settings(max_examples=40, deadline=None)
@given(st.lists(additions(), min_size=1, max_size=4), st.data())
def test_a_state_is_the_same_after_a_journey_as_text(looks: list[dict[str, int]], data: st.DataObject) -> None:
    """Bit for bit, so that the next leader goes on exactly where this one was; and a verdict can be shown."""
    epochs = sorted(data.draw(st.lists(st.integers(0, 2), min_size=len(looks), max_size=len(looks))))
    direct, travelled = looked(looks, epochs), looked(looks, epochs, through_json=True)
    assert direct == travelled
    assert json.loads(json.dumps(direct[1].to_json()))["verdict"] in (HARMFUL, HEALTHY, NOT_ENOUGH)
    assert Policy.from_json(json.loads(json.dumps(ALL.to_json()))) == ALL


@settings(max_examples=30, deadline=None)
@given(st.lists(additions(), min_size=1, max_size=3))
def test_the_same_counters_twice_are_no_new_evidence(looks: list[dict[str, int]]) -> None:
    """A second look at what is known changes nothing, so that a leader may look as often as it likes."""
    state, judgement = looked(looks, [0] * len(looks))
    total = sum((Sum(added) for added in looks), Sum())
    block = Block(0, {"split": 0.1, "rule:beta": 0.5}, dict(total), 60.0)
    assert judge(state, block, ALL) == (state, judgement)


@settings(max_examples=30, deadline=None)
@given(additions(), st.integers(1, 5), st.randoms())
def test_counters_of_replicas_add_up_to_those_of_one(counted: dict[str, int], replicas: int, random: object) -> None:
    """However the outcomes fell on replicas, and in whatever order these are summed, the judgement is the same."""
    parts = [Sum[str]() for _ in range(replicas)]
    for place, (name, count) in enumerate(counted.items()):
        share = count // replicas
        for part in parts:
            part[name] += share
        parts[place % replicas][name] += count - share * replicas
    merged = Sum[str]()
    for part in reversed(parts):
        merged.update(part)
    assert looked([dict(merged)], [0]) == looked([counted], [0])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(1, 400), st.integers(0, 300), st.integers(100, 4_000))
def test_one_more_bad_outcome_of_the_candidate_never_speaks_for_it(bad: int, good: int, b: int, g: int) -> None:
    """Of the same block: harm is more likely, health less."""

    def of(worse: int) -> tuple[float, float]:
        block = tally("error", CANDIDATE, bad=bad + worse, good=good - worse) | tally("error", BASELINE, bad=b, good=g)
        known = tally("error", CANDIDATE, good=20) | tally("error", BASELINE, good=5_000)
        total = dict(Sum(known) + Sum(block))
        policy = Policy(streams=(StreamPolicy("error", 0.02),))
        state, _ = judge(begin(policy), Block(0, {"split": 0.05}, known), policy)
        stream = judge(state, Block(0, {"split": 0.05}, total), policy)[1].streams[0]
        return stream.log_harm, stream.log_health

    (harm, health), (more_harm, less_health) = of(0), of(1)
    assert more_harm >= harm - 1e-9
    assert less_health <= health + 1e-9


def test_a_billion_units_and_no_error_at_all_are_no_trouble() -> None:
    """Nothing overflows, and the candidate is healthy."""
    state = begin(ALL)
    for part in range(1, 11):
        counters = tally("error", CANDIDATE, good=10**8 * part) | tally("error", BASELINE, good=9 * 10**8 * part)
        state, judgement = judge(state, Block(0, {"split": 0.1}, counters), ALL)
    assert judgement.verdict == HEALTHY
    assert all(math.isfinite(x) for x in (judgement.streams[0].log_harm, judgement.streams[0].log_health))
    json.dumps(state.to_json(), allow_nan=False)


def test_counters_that_go_back_freeze_the_epoch_and_the_next_one_stands_by_itself() -> None:
    """An emptied store loses counts and claims: what comes then may have counted before."""
    policy = Policy(streams=(StreamPolicy("error", 0.02),))
    full = tally("error", CANDIDATE, good=100, bad=1) | tally("error", BASELINE, good=1_000, bad=10)
    state, before = judge(begin(policy), Block(1, {"split": 0.1}, full), policy)
    state, after = judge(state, Block(1, {"split": 0.1}, {}), policy)
    worse = tally("error", CANDIDATE, good=100, bad=90) | tally("error", BASELINE, good=1_000, bad=10)
    state, later = judge(state, Block(1, {"split": 0.1}, worse), policy)
    assert state.frozen
    assert before.streams[0].log_harm == after.streams[0].log_harm == later.streams[0].log_harm
    state, anew = judge(state, Block(2, {"split": 0.1}, worse), policy)
    assert not state.frozen
    assert anew.verdict == HARMFUL


def test_an_epoch_that_has_ended_is_refused() -> None:
    """A block of the past cannot be weighed after one of the present."""
    state, _ = judge(begin(ALL), Block(3, {}, {}), ALL)
    with pytest.raises(ValueError, match="that epoch has ended"):
        judge(state, Block(2, {}, {}), ALL)


def test_the_pace_tells_how_much_is_still_needed_and_how_long_it_takes() -> None:
    """At a tenth of the traffic the same number takes ten times as long."""
    policy = Policy(streams=(StreamPolicy("error", 0.02),))
    state, total = begin(policy), {}
    for part in range(1, 4):
        total = tally("error", CANDIDATE, good=20 * part) | tally("error", BASELINE, good=380 * part - 4, bad=4)
        state, judgement = judge(state, Block(0, {"split": 0.05}, total, 60.0), policy)
    slower = judge(state, Block(0, {"split": 0.05}, total, 600.0), policy)[1]
    assert judgement.verdict == NOT_ENOUGH
    assert judgement.needed is not None
    assert 10 < judgement.needed < 1_000
    assert judgement.expected_s is not None
    assert slower.expected_s == pytest.approx(10 * judgement.expected_s)


@pytest.mark.parametrize("stream", ["label", "score"])
def test_how_long_labels_take_is_told_by_their_own_pace(stream: str) -> None:
    """They come far more slowly than the requests do that they are about."""
    policy = Policy(streams=(StreamPolicy("error", 0.02), StreamPolicy(stream, 0.05)))
    sums = {"units": 20, "sum": 15 * SCALE, "squares": 14 * SCALE**2} if stream == "score" else {"good": 19, "bad": 1}
    arms = product((CANDIDATE, BASELINE), sums.items())
    told = {str(Counter(stream, "split", "fresh", arm, part)): amount for arm, (part, amount) in arms}
    requests = tally("error", CANDIDATE, good=2_000) | tally("error", BASELINE, good=2_000)
    judgement = judge(begin(policy), Block(0, {"split": 0.5}, told | requests, 60.0), policy)[1]
    (judged,) = [one for one in judgement.streams if one.stream == stream]
    assert judged.needed
    assert judged.expected_s == pytest.approx(judged.needed * 60.0 / 20)


def test_intervals_hold_the_truth_at_every_look() -> None:
    """60 runs of 80 looks: both sides together miss no more often than 10% allows; and a share's interval."""
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(60):
        test = DifferenceTest.begin(0.02)
        for _ in range(80):
            test = test.taken(20, int(rng.binomial(20, 0.12)), 180, int(rng.binomial(180, 0.1)))
            low, high = test.interval(0.05)
            if not low <= 0.02 <= high:
                missed += 1
                break
    assert missed <= most(60, 0.1)
    low, high = share_sequence(20, 1_000, 0.05, centre=0.1)
    assert 0.005 < low < 0.02 < high < 0.05
    assert share_sequence(0, 0, 0.05, centre=0.1) == (0.0, 1.0)


def test_a_candidate_whose_harm_is_at_the_limit_is_seldom_called_healthy() -> None:
    """80 runs of 100 looks for each way: no more often than ``beta`` allows, also when bursts hit both arms; and one
    that does no harm is called so."""
    for bursts in (False, True):
        wrong = [_called_healthy(np.random.default_rng((1, run)), harm=0.02, bursts=bursts) for run in range(80)]
        assert sum(wrong) <= most(80, 0.05)
    assert all(_called_healthy(np.random.default_rng((2, run)), harm=0.0, bursts=False) for run in range(10))


def _called_healthy(rng: np.random.Generator, *, harm: float, bursts: bool) -> bool:
    """Ever, at a look each 40 requests, half of them the candidate's."""
    policy, counters = Policy(streams=(StreamPolicy("error", 0.02),), beta=0.05), Sum[str]()
    state = begin(policy)
    for look in range(100):
        base = 0.3 if bursts and look % 25 == 10 else 0.01
        units = int(rng.binomial(40, 0.5))
        bad, other = int(rng.binomial(units, base + harm)), int(rng.binomial(40 - units, base))
        counters.update(tally("error", CANDIDATE, bad=bad, good=units - bad))
        counters.update(tally("error", BASELINE, bad=other, good=40 - units - other))
        state, judgement = judge(state, Block(0, {"split": 0.5}, dict(counters)), policy)
        if judgement.streams[0].log_health >= judgement.streams[0].health_threshold:
            return True
    return False
