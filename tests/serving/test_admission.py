"""The door: a batch limit that follows the curve and the time that requests have, and refusals that cost nothing."""

from __future__ import annotations

import pytest

from gateway.errors import DeadlineUnreachable
from gateway.messages import VersionRef
from gateway.serving.admission import TRIAL_BATCHES, Admission
from gateway.serving.cost import CostCurve

DIGITS = VersionRef("digits", 3)
STEEP = CostCurve(((1, 0.010), (2, 0.011), (4, 0.012), (8, 0.024), (16, 0.048)))


def test_the_limit_is_where_more_rows_bring_no_more_rows_a_second() -> None:
    """Four rows at 12 ms, eight at 24: the second four gain nothing."""
    assert Admission(DIGITS, STEEP, max_rows=16, alone=False).limit == 4
    assert Admission(DIGITS, STEEP, max_rows=2, alone=False).limit == 2
    assert Admission(DIGITS, STEEP, max_rows=16, alone=True).limit == 1


def test_the_limit_leaves_room_for_the_time_that_requests_have() -> None:
    """Those that allow 50 ms on average get batches of at most 22 ms."""
    curve = CostCurve(((1, 0.010), (2, 0.015), (4, 0.020), (8, 0.030)))
    admission = Admission(DIGITS, curve, max_rows=8, alone=False)
    assert admission.limit == 8
    for _ in range(20):
        admission.require_reachable(0, 1, left_s=0.05, busy_s=0.0, lanes=1)
        admission.ran(1, 0.010)
    assert admission.limit == 4


def test_one_impatient_client_does_not_make_everybodys_batches_small() -> None:
    """The average counts."""
    curve = CostCurve(((1, 0.010), (2, 0.015), (4, 0.020), (8, 0.030)))
    admission = Admission(DIGITS, curve, max_rows=8, alone=False)
    for _ in range(400):
        for _ in range(9):
            admission.require_reachable(0, 1, left_s=0.5, busy_s=0.0, lanes=1)
        with pytest.raises(DeadlineUnreachable):
            admission.require_reachable(0, 1, left_s=0.001, busy_s=0.0, lanes=1)
        admission.ran(8, 0.030)
    assert admission.limit == 8


def test_a_size_that_was_slow_once_is_tried_again() -> None:
    """One batch in sixty-four is of twice the rows, when they wait; what it finds counts."""
    admission = Admission(DIGITS, STEEP, max_rows=16, alone=False)
    tried = 0
    for _ in range(40 * TRIAL_BATCHES):
        rows = admission.batch_rows(100)
        tried += rows == 8
        admission.ran(rows, 0.012)
    assert tried >= 10
    assert admission.limit >= 8
    assert admission.batch_rows(3) == admission.limit, "nothing larger is tried when too little waits"


def test_several_engines_share_the_wait() -> None:
    """Two take half as long, but no less than one batch."""
    admission = Admission(DIGITS, CostCurve(((1, 0.1),)), max_rows=1, alone=False)
    assert admission.wait_s(8, 1) == pytest.approx(0.8)
    assert admission.wait_s(8, 2) == pytest.approx(0.4)
    assert admission.wait_s(1, 4) == pytest.approx(0.1)
