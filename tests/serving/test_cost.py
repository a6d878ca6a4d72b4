"""The cost curve: exact where measured, sensible between and beyond."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.serving.cost import CostCurve

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
