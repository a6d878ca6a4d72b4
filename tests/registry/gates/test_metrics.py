"""Figures as sums over rows are those that the libraries compute over whole arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from fairlearn import metrics as fair
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as skl

from gateway.errors import InvalidRegistration
from gateway.messages import Array
from gateway.registry.gates.fairness import GroupCounts
from gateway.registry.gates.intervals import BLOCKS
from gateway.registry.gates.metrics import METRICS, Answers

ROWS = 5000


def rows(seed: int = 1) -> Answers:
    draw = np.random.default_rng(seed)
    truth = (draw.random(ROWS) < 0.3).astype(np.int64)
    score = np.clip(0.25 * truth + 0.75 * draw.random(ROWS), 0, 1)
    return Answers(truth, (score > 0.5).astype(np.int64), 1, score)


def figure(name: str, given: Answers, pieces: int = 7) -> float:
    """In several pieces, as data comes."""
    counted = METRICS[name].count(BLOCKS)
    edges = np.linspace(0, len(given.truth), pieces + 1).astype(int)
    for begin, end in itertools.pairwise(edges):
        cut = slice(begin, end)
        score = None if given.score is None else given.score[cut]
        at = None if given.truth_at is None else given.truth_at[cut]
        part = Answers(given.truth[cut], given.predicted[cut], given.positive, score, at)
        counted.add(np.arange(begin, end) % BLOCKS, part)
    return float(counted.value(counted.sums.sum(axis=0)))


ORACLES: Mapping[str, Callable[[Answers], Any]] = {
    "accuracy": lambda a: skl.accuracy_score(a.truth, a.predicted),
    "error_rate": lambda a: 1 - skl.accuracy_score(a.truth, a.predicted),
    "balanced_accuracy": lambda a: skl.balanced_accuracy_score(a.truth, a.predicted),
    "macro_f1": lambda a: skl.f1_score(a.truth, a.predicted, average="macro"),
    "precision": lambda a: skl.precision_score(a.truth, a.predicted),
    "recall": lambda a: skl.recall_score(a.truth, a.predicted),
    "specificity": lambda a: skl.recall_score(a.truth, a.predicted, pos_label=0),
    "f1": lambda a: skl.f1_score(a.truth, a.predicted),
    "log_loss": lambda a: skl.log_loss(a.truth, a.score),
    "brier": lambda a: skl.brier_score_loss(a.truth, a.score),
    "mae": lambda a: skl.mean_absolute_error(a.truth, a.predicted),
    "mse": lambda a: skl.mean_squared_error(a.truth, a.predicted),
    "rmse": lambda a: skl.root_mean_squared_error(a.truth, a.predicted),
    "r2": lambda a: skl.r2_score(a.truth, a.predicted),
}


@pytest.mark.parametrize("name", ORACLES)
def test_each_figure_is_that_of_scikit_learn(name: str) -> None:
    """Counted in pieces, as sums of blocks."""
    assert figure(name, rows()) == pytest.approx(ORACLES[name](rows()), rel=1e-9)


def test_the_area_under_the_curve_is_that_of_scikit_learn_as_far_as_its_bins_tell() -> None:
    """Equal, where there are fewer different scores than bins; else to three digits."""
    given = rows()
    assert figure("roc_auc", given) == pytest.approx(skl.roc_auc_score(given.truth, given.score), abs=1e-3)
    coarse = Answers(given.truth, given.predicted, 1, np.round(given.score, 2))  # type: ignore[arg-type]
    assert figure("roc_auc", coarse) == pytest.approx(skl.roc_auc_score(coarse.truth, coarse.score), rel=1e-9)


def test_of_several_classes_the_loss_takes_the_probability_of_the_true_one() -> None:
    draw = np.random.default_rng(2)
    score = draw.dirichlet(np.ones(4), 1000)
    truth = draw.integers(0, 4, 1000)
    given = Answers(truth, score.argmax(axis=1), 1, score, truth)
    assert figure("log_loss", given) == pytest.approx(skl.log_loss(truth, score), rel=1e-9)
    assert figure("macro_f1", given) == pytest.approx(
        skl.f1_score(truth, score.argmax(axis=1), average="macro"), rel=1e-9
    )


def test_a_figure_of_numbers_is_not_made_of_text() -> None:
    with pytest.raises(InvalidRegistration, match="is one of numbers"):
        figure("mae", Answers(np.array(["a"]), np.array(["b"]), "a"), pieces=1)


def test_more_classes_than_can_be_kept_apart_are_refused() -> None:
    many = np.arange(100)
    with pytest.raises(InvalidRegistration, match="more than 64 classes"):
        figure("macro_f1", Answers(many, many, 1), pieces=1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_gaps_between_groups_are_those_of_fairlearn(seed: int) -> None:
    """The largest rate less the smallest, of three groups whose rates differ."""
    draw = np.random.default_rng(seed)
    group = draw.choice(["a", "b", "c"], 600)
    truth = (draw.random(600) < 0.4).astype(np.int64)
    said = (draw.random(600) < 0.2 + 0.3 * truth + 0.2 * (group == "a")).astype(np.int64)
    counts = GroupCounts(("group",))
    octets: Array = np.array([one.encode() for one in group], dtype=object)
    for cut in (slice(0, 250), slice(250, 600)):
        counts.add({"group": octets[cut]}, Answers(truth[cut], said[cut], 1))
    for kind, oracle in (
        ("demographic_parity", fair.demographic_parity_difference),
        ("equal_opportunity", fair.equal_opportunity_difference),
        ("equalized_odds", fair.equalized_odds_difference),
    ):
        gap = counts.gap(kind, 1, 0.95)
        assert gap is not None
        assert gap.value == pytest.approx(oracle(truth, said, sensitive_features=group), abs=1e-12)
        assert gap.interval[0] <= gap.value <= gap.interval[1]


def test_a_group_of_few_rows_is_not_judged() -> None:
    """One row of a rare group would make any gap."""
    group: Array = np.array([b"a"] * 50 + [b"b"] * 50 + [b"c"], dtype=object)
    truth, said = np.ones(101, np.int64), np.array([1] * 100 + [0])
    counts = GroupCounts(("group",))
    counts.add({"group": group}, Answers(truth, said, 1))
    judged, all_of_them = counts.gap("demographic_parity", 30, 0.95), counts.gap("demographic_parity", 1, 0.95)
    assert judged is not None
    assert judged.value == 0.0
    assert all_of_them is not None
    assert all_of_them.value == 1.0
