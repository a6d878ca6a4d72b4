"""Late labels: those of both arms count when they are of requests of the same time, however late either come."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.control.label_pairs import MOST_WAITING, LabelPairs
from gateway.control.statistics.scores import Scores, scaled
from gateway.control.tallies import BASELINE, CANDIDATE
from tests.control.chances import most

Floats = NDArray[np.float64]
Late = Callable[[np.random.Generator, int], Floats]
"""How long labels take, so many of them."""

SCOPE = "digits/r1"


class Pairs:
    """One stratum; each label says when its answer was given."""

    def __init__(self, share: float) -> None:
        self.pairs: LabelPairs[tuple[str, float]] = LabelPairs()
        self.share = share
        self.came = 0

    def take(self, arm: str, at_s: float) -> list[tuple[str, float]]:
        self.came += 1
        place = self.came * 2_654_435_761 % 2**32
        return self.pairs.take(
            SCOPE, "split", arm, place=place, at_s=at_s, share=self.share, item=(arm, at_s)
        )  # fmt: skip


def test_labels_of_one_arm_wait_for_the_others_of_the_same_while() -> None:
    """In the proportion of the split, the first that came first; of another rollout nothing is left."""
    pairs = Pairs(share=0.25)
    assert [pairs.take(BASELINE, float(second)) for second in range(10)] == [[]] * 10
    assert pairs.take(CANDIDATE, 0.0) == [(CANDIDATE, 0.0), *((BASELINE, float(second)) for second in range(3))]
    assert pairs.take(CANDIDATE, 1.0) == [(CANDIDATE, 1.0), *((BASELINE, float(second)) for second in range(3, 6))]
    assert repr(pairs.pairs) == "<LabelPairs [4 waiting]>"
    pairs.pairs.keep({"digits/r2"})
    assert pairs.pairs.waiting == 0


def test_whiles_become_narrow_against_the_time_that_labels_have_come_for() -> None:
    """A label never counts against those of an hour before; also of answers from before the clock began."""
    pairs = Pairs(share=0.5)
    for minute in range(-60, 600):
        for arm in (BASELINE, CANDIDATE):
            pairs.take(arm, minute * 60.0)
    pairs.take(BASELINE, 0.0)
    assert pairs.take(CANDIDATE, 36_000.0) == []
    assert pairs.take(BASELINE, 36_000.0) == [(CANDIDATE, 36_000.0), (BASELINE, 36_000.0)]
    assert pairs.pairs.waiting == 1


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_labels_that_take_equally_long_hardly_wait(share: float) -> None:
    """Of the candidate's, which decide how soon evidence is there, one in eight at most."""
    rng = np.random.default_rng(1)
    counted, came = 0, 0
    pairs = Pairs(share)
    given, late = rng.random(4_000) * 7_200, rng.exponential(300, 4_000)
    for one in np.argsort(given + late):
        arm = CANDIDATE if rng.random() < share else BASELINE
        came += arm == CANDIDATE
        counted += sum(name == CANDIDATE for name, _ in pairs.take(arm, float(given[one])))
    assert counted > 7 / 8 * came


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_an_arm_of_few_keys_keeps_its_labels(share: float) -> None:
    """However many there are of the other's: those would wait by the thousand for what chance has left them over, and
    then fewer and fewer keys of both would count. What counts of the other's is enough, and of the same time."""
    rng, size = np.random.default_rng(3), 250_000
    few = CANDIDATE if share < 0.5 else BASELINE
    pairs, came, counted = Pairs(share), 0, {CANDIDATE: 0, BASELINE: 0}
    given = np.sort(rng.random(size)) * 7_200
    for at_s, candidate in zip(given, rng.random(size) < share, strict=True):
        arm = CANDIDATE if candidate else BASELINE
        came += arm == few
        for name, _ in pairs.take(arm, float(at_s)):
            counted[name] += 1
    assert counted[few] > 3 / 4 * came > 150
    assert 16 * counted[few] * 3 / 4 < sum(counted.values()) - counted[few] < 33 * counted[few] * 4 / 3


@pytest.mark.parametrize("labelled", [0.5, 0.1])
def test_where_few_answers_of_one_arm_get_labels_those_count_however_many_the_others_are(labelled: float) -> None:
    """The others wait in vain: it is they that go, and no key of both arms. What counts is of the same time."""
    rng, size = np.random.default_rng(4), 150_000
    pairs, came = Pairs(share=0.5), 0
    counted: dict[str, list[float]] = {CANDIDATE: [], BASELINE: []}
    given = rng.random(size) * 7_200
    late = rng.exponential(300, size)
    for one in np.argsort(given + late):
        arm = CANDIDATE if rng.random() < 0.5 else BASELINE
        if arm == CANDIDATE or rng.random() < labelled:
            came += arm == BASELINE
            for name, at_s in pairs.take(arm, float(given[one])):
                counted[name].append(at_s)
            assert pairs.pairs.waiting <= MOST_WAITING
    assert len(counted[CANDIDATE]) == pytest.approx(len(counted[BASELINE]), rel=0.01)
    assert len(counted[BASELINE]) > 0.9 * came
    assert np.mean(counted[CANDIDATE]) == pytest.approx(np.mean(counted[BASELINE]), rel=0.02)


def test_where_too_many_wait_only_some_keys_count_of_both_arms_alike() -> None:
    """The candidate's come when sixty thousand of the known good have: few are kept, and they still are of one time."""
    pairs, size = Pairs(share=0.5), 60_000
    for second in range(size):
        pairs.take(BASELINE, float(second))
        assert pairs.pairs.waiting <= MOST_WAITING
    found = [counted for second in range(size) for counted in pairs.take(CANDIDATE, float(second))]
    of = {arm: [at_s for name, at_s in found if name == arm] for arm in (CANDIDATE, BASELINE)}
    assert len(of[CANDIDATE]) == pytest.approx(size / 8, rel=0.1)
    assert len(of[BASELINE]) == pytest.approx(len(of[CANDIDATE]), rel=0.1)
    assert np.mean(of[BASELINE]) == pytest.approx(np.mean(of[CANDIDATE]), rel=0.05)


def alike(mean_s: float) -> Late:
    return lambda _, size: np.full(size, mean_s)


def apart(mean_s: float) -> Late:
    return lambda rng, size: rng.exponential(mean_s, size)


LATE = {
    "each": (alike(300), alike(60)),
    "in the mean": (apart(300), apart(60)),
    "the known good's": (apart(60), apart(600)),
}


@pytest.mark.parametrize("late", LATE.values(), ids=list(LATE))
def test_an_equal_candidate_whose_labels_come_at_other_times_is_not_harmful(late: tuple[Late, Late]) -> None:
    """While scores move by 0.3 in an hour. Counted as they came, most would be found harmful."""
    trend = 0.3 if late[0](np.random.default_rng(1), 1000).mean() < 100 else -0.3
    paired, as_they_came = (
        [_found_harmful(np.random.default_rng([1, run]), late, -trend, together=together) for run in range(12)]
        for together in (True, False)
    )
    assert sum(paired) <= most(12, 0.05)
    assert sum(as_they_came) > 6


@pytest.mark.parametrize("late", [*LATE.values(), (apart(300), apart(300))], ids=[*LATE, "alike"])
def test_a_worse_candidate_is_found_all_the_same(late: tuple[Late, Late]) -> None:
    """By 0.1 of the range, though the scores rise meanwhile."""
    assert all(_found_harmful(np.random.default_rng([2, run]), late, 0.1, together=True, worse=0.1) for run in range(4))


def _found_harmful(
    rng: np.random.Generator, late: tuple[Late, Late], trend: float, *, together: bool, worse: float = 0.0
) -> bool:
    """Within an hour of a label every second or so, half of them the candidate's, looked at each minute."""
    size = 4_000
    given = np.sort(rng.random(size)) * 3_600
    candidate = rng.random(size) < 0.5
    came = given + np.where(candidate, late[0](rng, size), late[1](rng, size))
    scores = np.clip(rng.normal(0.5 + trend * given / 3_600 - worse * candidate, 0.1), 0.0, 1.0)
    pairs, track = LabelPairs[int](), Scores()
    totals = {f"{arm}/{part}": 0 for arm in (CANDIDATE, BASELINE) for part in ("units", "sum", "squares")}
    order = np.argsort(came, kind="stable")
    for looked, label in enumerate(order[came[order] < 3_600].tolist()):
        arm, place = CANDIDATE if candidate[label] else BASELINE, label * 2_654_435_761 % 2**32
        counted = [label]
        if together:
            counted = pairs.take(
                SCOPE, "split", arm, place=place, at_s=float(given[label]), share=0.5, item=label
            )  # fmt: skip
        for one in counted:
            score = scaled(float(scores[one]), 0.0, 1.0)
            for part, amount in (("units", 1), ("sum", score), ("squares", score * score)):
                totals[f"{CANDIDATE if candidate[one] else BASELINE}/{part}"] += amount
        if looked % 60 == 0:
            track = track.advanced({"split": dict(totals)}, 20)
            if track.finding(0.1, 0.05, 0.0, 1.0).log_harm >= math.log(20):
                return True
    return False
