"""Measures and their intervals: sums that merge exactly, promises that hold at every look, estimates before labels."""

from __future__ import annotations

import random
from fractions import Fraction
from math import isclose

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.intervals import mean_sequence, share_sequence, wilson
from gateway.routing.truth import Slice, Truth
from gateway.telemetry.feedback.estimate import estimates
from gateway.telemetry.feedback.exact import ZERO, Exact
from gateway.telemetry.feedback.measures import calibration, measures
from gateway.telemetry.feedback.reading import bets, outcome_of
from gateway.telemetry.feedback.report import gaps
from gateway.telemetry.feedback.sums import Group, Row, Terms

BINARY = Truth("classification", "label", score="p", positive="1")
SEVERAL = Truth("classification", "label", score="p")

rows = st.lists(
    st.tuples(st.sampled_from("0123"), st.sampled_from("0123"), st.floats(0, 1, width=32), st.floats(0, 1e6)),
    max_size=40,
)


def group_of(found: list[tuple[str, str, float, float]], truth: Truth = SEVERAL) -> Group:
    group = Group()
    for answer, label, score, delay_s in found:
        row = Row(answer, score)
        outcome = outcome_of(row, label, truth, delay_s)
        group.answered(row, Exact.of(score), bets=bets(row, truth))
        group.joined(outcome, Terms.of(outcome))
    return group


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e100, max_value=1e100), max_size=30))
def test_sums_of_floats_are_those_of_fractions(values: list[float]) -> None:
    """First, second and fourth powers, over all that a label may be."""
    for power in (1, 2, 4):
        total = ZERO
        for value in values:
            total = total.add(Exact.of(value).power(power))
        assert total.fraction == sum((Fraction(value) ** power for value in values), Fraction(0))
        assert Exact.from_json(total.to_json()) == total


@settings(max_examples=40, deadline=None)
@given(rows, rows)
def test_two_groups_add_up_to_the_group_of_all_their_rows(
    one: list[tuple[str, str, float, float]], other: list[tuple[str, str, float, float]]
) -> None:
    """In any order, and through JSON, to the last digit of every measure."""
    both, merged = group_of([*one, *other]), Group.from_json(group_of(other).to_json())
    merged.add(group_of(one))
    assert measures(merged) == measures(both)
    assert (merged.rows, merged.delays, merged.waited_ms) == (both.rows, both.delays, both.waited_ms)
    assert calibration(merged) == calibration(both)


def test_wilsons_interval_is_the_published_one() -> None:
    """Newcombe, *Two-sided confidence intervals for the single proportion* (1998), table I, method 3."""
    for hits, units, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = wilson(hits, units)
        assert isclose(found[0], low, abs_tol=5e-5)
        assert isclose(found[1], high, abs_tol=5e-5)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
def test_a_shares_interval_holds_at_every_look(p: float) -> None:
    """Of 200 streams of 500 rows, looked at again and again, at most 5% are ever outside (and three deviations)."""
    draw, missed = random.Random(7), 0
    for _ in range(200):
        hits, outside = 0, False
        for units in range(1, 501):
            hits += draw.random() < p
            if units % 20 == 0 or units < 12:
                low, high = share_sequence(hits, units)
                outside = outside or not low <= p <= high
        missed += outside
    assert missed <= 10 + 3 * (200 * 0.05 * 0.95) ** 0.5


def test_a_means_interval_holds_at_every_look() -> None:
    """Of 300 streams of skewed errors, looked at from the 50th row to the 1,000th."""
    draw, missed = random.Random(11), 0
    for _ in range(300):
        total = squares = 0.0
        outside = False
        for units in range(1, 1001):
            value = draw.expovariate(1.0)
            total, squares = total + value, squares + value * value
            if units >= 50 and units % 25 == 0:
                mean = total / units
                low, high = mean_sequence(units, mean, squares / units - mean * mean)
                outside = outside or not low <= 1.0 <= high
        missed += outside
    assert missed <= 15 + 3 * (300 * 0.05 * 0.95) ** 0.5


def test_before_labels_scores_that_are_calibrated_tell_what_is_right() -> None:
    """The expected accuracy, precision, recall and F1 of 20,000 answers are those that their labels show, nearly; and
    of scores that promise too much, once some labels have come, too."""
    draw = random.Random(3)
    group, overconfident = Group(), Group()
    hits = both = answered = events = 0
    for number in range(20_000):
        p = draw.random()
        event, answer = draw.random() < p, "1" if p >= 0.5 else "0"
        row, sharp = Row(answer, p), Row(answer, 0.98 if p >= 0.5 else 0.02)
        group.answered(row, Exact.of(p), bets=answer == "1")
        overconfident.answered(sharp, Exact.of(sharp.score or 0.0), bets=answer == "1")
        hits += event == (answer == "1")
        both += event and answer == "1"
        answered += answer == "1"
        events += event
        if number % 10 == 0:
            outcome = outcome_of(sharp, str(int(event)), BINARY, 1.0)
            overconfident.joined(outcome, Terms.of(outcome))
    found = estimates(group, positive="1")
    assert found["estimate"] is True
    assert found["calibrated_by"] == 0
    accuracy = found["measures"]["accuracy"]
    assert accuracy["low"] <= hits / 20_000 <= accuracy["high"]
    assert isclose(found["measures"]["precision"]["value"], both / answered, abs_tol=0.01)
    assert isclose(found["measures"]["recall"]["value"], both / events, abs_tol=0.01)
    assert isclose(found["measures"]["f1"]["value"], 2 * both / (answered + events), abs_tol=0.01)
    corrected = estimates(overconfident, positive="1")["measures"]["accuracy"]
    assert corrected["low"] <= hits / 20_000 <= corrected["high"] < 0.9


def test_a_gap_between_groups_is_told_with_what_is_sure_of_it() -> None:
    """Two groups of one rate: the interval begins at nothing. One that is served worse by 30 points: it does not."""
    truth = Truth("classification", "label", positive="1", slices=(Slice("country", "country"),))
    draw = random.Random(9)

    def served(wrong: float) -> Group:
        found = [("1", "0" if draw.random() < wrong else "1", 0.5, 1.0) for _ in range(1000)]
        return group_of(found, truth)

    alike = gaps({"at": served(0.1), "de": served(0.1), "ch": group_of([])}, truth)["accuracy"]
    assert alike["low"] == 0.0
    assert alike["high"] < 0.15
    apart = gaps({"at": served(0.1), "de": served(0.4)}, truth)["accuracy"]
    assert apart["low"] > 0.15
    assert (apart["highest"], apart["lowest"]) == ("at", "de")


def test_measures_of_one_kind_of_answer_are_complete() -> None:
    """With a positive class, and without one; no labels, no measures."""
    found = [("1", "1", 0.9, 1.0), ("0", "1", 0.2, 1.0), ("1", "0", 0.8, 2.0), ("0", "0", 0.1, 3.0)]
    binary = measures(group_of(found, BINARY), positive="1")
    assert {name: one.value for name, one in binary.items()} | {"brier": 0.0} == pytest.approx(
        {
            "accuracy": 0.5, "precision": 0.5, "recall": 0.5, "f1": 0.5, "positive_rate": 0.5,
            "brier": 0.0, "ece": 0.45, "auc": 0.75,
        }
    )  # fmt: skip
    assert measures(group_of(found)).keys() == {"accuracy", "f1_macro", "brier", "ece", "auc"}
    assert measures(Group(rows=3)) == {}
    for one in binary.values():
        assert one.low <= one.value <= one.high
