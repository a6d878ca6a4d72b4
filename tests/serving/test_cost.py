"""The cost curve: exact where measured, sensible between and beyond."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.cost import CostCurve, best_size, compare

CURVE = CostCurve(((1, 0.010), (2, 0.012), (8, 0.024), (32, 0.064)))


@pytest.mark.parametrize(
    ("rows", "seconds"), [(1, 0.010), (2, 0.012), (5, 0.018), (8, 0.024), (20, 0.044), (32, 0.064), (64, 0.128)]
)
def test_cost_is_exact_at_points_straight_between_and_proportional_beyond(rows: int, seconds: float):
    """What a batch is predicted to cost."""
    assert CURVE.predict(rows) == pytest.approx(seconds)


@given(st.integers(1, 500))
def test_more_rows_never_cost_less(rows: int):
    """A rising curve stays rising between and beyond its points."""
    assert CURVE.predict(rows + 1) >= CURVE.predict(rows)


def test_nothing_measured_costs_nothing_known():
    """An empty curve predicts zero, so that the floor of the time limit decides."""
    assert CostCurve().predict(4) == 0.0
    assert CostCurve().per_row_s() is None
    assert CURVE.per_row_s() == pytest.approx(0.002)


GRID = (1, 2, 4, 8, 16, 32, 64)
NO_LIMIT = float("inf")

linear = st.floats(1e-5, 1e-2).map(lambda row: {size: row * size for size in GRID})
affine = st.tuples(st.floats(1e-5, 1e-2), st.floats(1e-6, 1e-2)).map(
    lambda cost: {size: cost[0] + cost[1] * size for size in GRID}
)
steps = st.tuples(st.floats(1e-4, 1e-2), st.sampled_from([2, 4, 8, 16])).map(
    lambda cost: {size: cost[0] * -(-size // cost[1]) for size in GRID}
)
best_in_the_middle = st.tuples(st.floats(1e-4, 1e-2), st.sampled_from(GRID)).map(
    lambda cost: {size: size * cost[0] * (1 + abs(math.log2(size / cost[1]))) for size in GRID}
)
curves = st.one_of(linear, affine, steps, best_in_the_middle)
noises = st.lists(st.floats(0.98, 1.02), min_size=len(GRID), max_size=len(GRID))


def per_s(costs: dict[int, float]) -> dict[int, float]:
    return {size: size / seconds for size, seconds in costs.items()}


@given(curves, noises)
def test_the_chosen_size_does_nearly_as_many_rows_as_the_best_one(costs: dict[int, float], noise: list[float]):
    """Linear, affine, in steps, best in the middle, each measured within two per cent: at least nine tenths."""
    measured = CostCurve(tuple((size, costs[size] * factor) for size, factor in zip(GRID, noise, strict=True)))
    choice = compare(best_size(measured, 64, within_s=NO_LIMIT), per_s(costs))
    assert choice.share >= 0.91
    assert choice.best_rows_per_s == max(per_s(costs).values())


@given(curves, st.floats(1e-4, 1.0), st.integers(1, 64))
def test_a_batch_leaves_time_for_deadlines_and_keeps_the_row_limit(costs: dict[int, float], within_s: float, most: int):
    """Unless not even the smallest does; and nothing smaller would have been as good."""
    chosen = best_size(CostCurve(tuple(costs.items())), most, within_s=within_s)
    assert chosen <= most
    assert costs[chosen] <= within_s or chosen == 1
    rates = per_s(costs)
    smaller = [size for size in GRID if size < chosen and costs[size] <= within_s]
    assert all(rates[size] < rates[chosen] * 1.06 for size in smaller)


def test_what_no_longer_pays_is_not_waited_for():
    """Rows that cost the same in any company run one by one; a fixed cost is shared until it hardly shows."""
    assert best_size(CostCurve(tuple((size, 0.001 * size) for size in GRID)), 64, within_s=NO_LIMIT) == 1
    assert best_size(CostCurve(tuple((size, 0.001 + 0.0001 * size) for size in GRID)), 64, within_s=NO_LIMIT) == 64
    assert best_size(CostCurve(tuple((size, 0.001 + 0.001 * size) for size in GRID)), 64, within_s=NO_LIMIT) == 16


def test_without_a_curve_the_most_rows_are_taken():
    """Nothing is known against them."""
    assert best_size(CostCurve(), 24, within_s=0.001) == 24
