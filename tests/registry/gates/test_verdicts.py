"""What counts of rows mean for a gate: worse fails, equal passes with enough rows, and too few rows say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidRegistration
from gateway.messages import Array, Signature, TensorSpec
from gateway.registry.gates import verdicts
from gateway.registry.gates.fairness import GroupCounts
from gateway.registry.gates.golden import golden
from gateway.registry.gates.intervals import BLOCKS, bootstrap
from gateway.registry.gates.kinds import ChampionGate, FairnessGate, GoldenGate, MetricGate
from gateway.registry.gates.metrics import METRICS, Answers, Counted
from gateway.registry.gates.report import Finding

DRAW = np.random.default_rng(11)


def counted(metric: str, given: Answers, blocks: Array | None = None) -> Counted:
    made = METRICS[metric].count(BLOCKS)
    made.add(np.arange(len(given.truth)) % BLOCKS if blocks is None else blocks, given)
    return made


def beside(metric: str, own: Answers, other: Answers, blocks: Array | None = None, **more: Any) -> Finding:
    gained = int(np.count_nonzero(own.right & ~other.right))
    lost = int(np.count_nonzero(~own.right & other.right))
    gate = ChampionGate(name="g", data="h", metric=metric, **more)
    pairs = (gained, lost, len(own.truth))
    sides = counted(metric, own, blocks), counted(metric, other, blocks)
    return verdicts.champion(gate, *sides, pairs, clustered=blocks is not None)


def answers(rows: int, wrong: float, seed: int = 1) -> Answers:
    """Of two classes; so many wrong, with scores to match."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 2, rows)
    said = np.where(draw.random(rows) < wrong, 1 - truth, truth)
    return Answers(truth, said, 1, 0.1 + 0.8 * said)


@pytest.mark.parametrize("metric", METRICS)
def test_worse_fails_and_equal_passes_whichever_way_the_metric_goes(metric: str) -> None:
    """And the other way round, what is better is seen to be."""
    good, bad = answers(4000, 0.02), answers(4000, 0.2)
    assert not beside(metric, bad, good).passes
    assert beside(metric, good, good).passes
    assert beside(metric, good, bad, must="better").passes
    assert not beside(metric, good, good, must="better").passes
    assert not beside(metric, bad, good, must="better").passes


@pytest.mark.parametrize("metric", METRICS)
def test_of_too_few_rows_nothing_is_concluded(metric: str) -> None:
    """Five rows that both answer alike show no difference, and no equality."""
    found = beside(metric, answers(5, 0.0), answers(5, 0.0))
    assert not found.passes
    assert "too few to be sure" in found.said
    assert found.numbers["too_few_rows"]


@pytest.mark.parametrize("metric", ["recall", "precision", "roc_auc", "f1"])
def test_a_figure_of_a_rare_class_rests_on_the_rows_of_that_class(metric: str) -> None:
    """Ten thousand rows of which five are positive tell as much of recall as five."""
    truth = np.zeros(10_000, dtype=np.int64)
    truth[:5] = 1
    given = Answers(truth, truth.copy(), 1, truth * 0.9)
    found = beside(metric, given, given)
    assert not found.passes
    assert "it rests on 5 rows" in found.said
    sure = MetricGate(name="g", data="h", metric=metric, at_least=0.5, sure=True)
    assert not verdicts.metric(sure, counted(metric, given), 10_000).passes


def test_rows_of_one_customer_are_one_observation() -> None:
    """A thousand rows of each of forty: an interval over rows would be thirty times too narrow."""
    keys = np.repeat(np.arange(40), 1000)
    lost = keys < 3
    truth = np.ones(len(keys), dtype=np.int64)
    champion, own = Answers(truth, truth, 1), Answers(truth, np.where(lost, 0, truth), 1)
    by_rows = beside("accuracy", own, champion, margin=0.1)
    by_keys = beside("accuracy", own, champion, keys, margin=0.1)
    assert by_rows.passes
    assert not by_keys.passes
    assert by_keys.numbers["method"] == "paired bootstrap"
    assert "mcnemar_p" not in by_keys.numbers
    few = beside("accuracy", champion, champion, keys % 7)
    assert "it rests on 7 keys" in few.said
    gate = MetricGate(name="g", data="h", metric="accuracy", at_least=0.9, sure=True)
    assert verdicts.metric(gate, counted("accuracy", own, keys), len(keys)).passes
    assert not verdicts.metric(gate, counted("accuracy", own, keys), len(keys), clustered=True).passes


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "brier"])
@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(metric: str, broken: float) -> None:
    """Sorted last, NaN would be the highest score: right for every positive row."""
    given = answers(100, 0.0)
    score = np.where(given.truth == 1, broken, 0.1)
    with pytest.raises(InvalidRegistration, match=r"NaN, infinite|needs probabilities"):
        counted(metric, Answers(given.truth, given.predicted, 1, score))


def test_scores_that_are_no_probabilities_have_no_loss() -> None:
    """Clipped, they would have the best there is."""
    truth = np.array([0, 1, 2, 1])
    for score, said in (
        (np.full((4, 3), 1.0), "do not add up to 1"),
        (np.full((4, 2), 0.5), "none of the output's 2"),
        (np.where(np.eye(3)[truth] == 1, 7.0, -3.0), "from 0 to 1"),
    ):
        with pytest.raises(InvalidRegistration, match=said):
            counted("log_loss", Answers(truth, truth, 1, score, truth))


@pytest.mark.parametrize("metric", ["mae", "mse", "rmse", "r2"])
def test_predictions_that_are_no_numbers_fail(metric: str) -> None:
    truth = DRAW.normal(size=200)
    broken = truth.copy()
    broken[3] = np.nan
    own, other = Answers(truth, broken, 1), Answers(truth, truth + 0.1, 1)
    assert not beside(metric, own, other).passes
    gate = MetricGate(name="g", data="h", metric=metric, at_most=1e9, at_least=-1e9)
    assert not verdicts.metric(gate, counted(metric, own), 200).passes


@pytest.mark.parametrize("metric", ["roc_auc", "r2", "recall"])
def test_a_figure_that_constant_data_does_not_have_fails(metric: str) -> None:
    """One class only, or a truth that never changes."""
    truth = np.zeros(200, dtype=np.int64)
    given = Answers(truth, truth, 1, np.full(200, 0.5))
    gate = MetricGate(name="g", data="h", metric=metric, at_least=0.0)
    assert not verdicts.metric(gate, counted(metric, given), 200).passes
    assert not beside(metric, given, given).passes


def test_draws_without_a_figure_are_not_left_out_in_silence() -> None:
    """One positive row of many: in a third of the draws there is none, and no recall."""
    sums = np.zeros((100, 2))
    sums[0] = 1
    assert np.isnan(bootstrap(sums, lambda total: np.asarray(total[..., 1] / np.where(
        total[..., 0] > 0, total[..., 0], np.nan)), 0.95)).all()  # fmt: skip


def test_a_positive_answer_that_nothing_is_called_is_not_fair_to_all() -> None:
    """A gap of nothing between groups of whom none was chosen is a declaration that is wrong."""
    truth = DRAW.integers(0, 2, 400)
    groups = {"sex": np.where(DRAW.random(400) < 0.5, b"f", b"m").astype(object)}
    counts = GroupCounts(("sex",))
    counts.add(groups, Answers(truth, truth, 7))
    found = verdicts.fairness(FairnessGate(name="f", data="h", group=("sex",), demographic_parity=0.1), counts)
    assert not found.passes
    assert "no row has the positive answer" in found.said


def test_golden_requests_that_are_none_show_nothing() -> None:
    """A file without a case passes no version; nobody is asked."""
    spec = TensorSpec("x", "FP32", ("batch", 4))
    asked: Any = None
    found = golden(GoldenGate(name="g"), b'{"cases": []}', Signature((spec,), (spec,)), asked)
    assert not found.passes
    assert "has no case" in found.said
