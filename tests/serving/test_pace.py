"""What a queue takes: predicted by the warm curve, corrected by what batches really took."""

from __future__ import annotations

import pytest

from gateway.serving.cost import CostCurve
from gateway.serving.pace import Pace

CURVE = CostCurve(((1, 0.010), (8, 0.024)))


def test_a_queue_takes_its_full_batches_and_the_rest() -> None:
    """Nineteen rows at eight a batch: two full ones and one of three."""
    pace = Pace(CURVE)
    assert pace.queue_s(19, 8) == pytest.approx(2 * 0.024 + pace.batch_s(3))
    assert pace.queue_s(0, 8) == 0.0


def test_batches_that_take_twice_as_long_double_the_prediction() -> None:
    """At every size, since what slows one size down slows all; at once for its own size."""
    pace = Pace(CURVE)
    for _ in range(20):
        pace.ran(8, 0.048)
    assert pace.batch_s(1) == pytest.approx(0.020, rel=0.25)
    assert pace.batch_s(8) == pytest.approx(0.048, rel=0.02)
    for _ in range(300):
        pace.ran(8, 0.048)
    assert pace.batch_s(1) == pytest.approx(0.020, rel=0.02)
    assert pace.batch_s(8) == pytest.approx(0.048, rel=0.01)


def test_one_stall_does_not_shut_the_door_for_long() -> None:
    """An hour for one batch counts as fifty times its cost, and is forgotten within a few dozen batches."""
    pace = Pace(CURVE)
    pace.ran(8, 3600.0)
    assert pace.batch_s(8) <= 0.024 * 11
    for _ in range(40):
        pace.ran(8, 0.024)
    assert pace.batch_s(8) == pytest.approx(0.024, rel=0.01)


def test_without_a_curve_the_rows_of_late_stand_in() -> None:
    """And before the first batch nothing is known, so nothing is predicted."""
    pace = Pace(CostCurve())
    assert not pace.known
    assert pace.queue_s(100, 8) == 0.0
    pace.ran(4, 0.04)
    assert pace.known
    assert pace.queue_s(16, 8) == pytest.approx(0.16)


def test_the_safe_time_grows_with_how_much_batches_vary() -> None:
    """A steady engine needs a twentieth more; one whose batches swing by 5 ms some 15 ms on top."""
    steady, swinging = Pace(CURVE), Pace(CURVE)
    for number in range(200):
        steady.ran(8, 0.024)
        swinging.ran(8, 0.019 if number % 2 else 0.029)
    assert steady.safe_s(0.1) == pytest.approx(0.105)
    assert swinging.safe_s(0.1) == pytest.approx(0.105 + 0.015, abs=0.003)


def test_a_size_that_is_dear_by_itself_is_learned_beside_the_others() -> None:
    """Batches of one as measured, batches of eight three times as dear: each ends near its own cost."""
    pace = Pace(CURVE)
    for _ in range(400):
        pace.ran(1, 0.010)
        pace.ran(8, 0.072)
    assert pace.batch_s(1) == pytest.approx(0.010, rel=0.35)
    assert pace.batch_s(8) == pytest.approx(0.072, rel=0.25)
    assert pace.best_size(8, within_s=1.0) == 8
    assert pace.best_size(8, within_s=0.03) == 1


def test_a_curve_that_measured_nothing_leaves_the_pace_to_the_rows() -> None:
    """A clock too coarse for the warm-up, or one that stood still."""
    pace = Pace(CostCurve(((1, 0.0), (8, 0.0))))
    for _ in range(3):
        pace.ran(4, 0.1)
    assert pace.batch_s(4) == pytest.approx(0.1, rel=0.5)
