"""Whether two answers say the same: labels where there are any, numbers within a tolerance where there are none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gateway.messages import Array
from gateway.shadowing.comparison import Comparison, compare

NAN, INF = float("nan"), float("inf")


def floats(*values: float, dtype: Any = np.float32) -> Array:
    return np.array(values, dtype)


def texts(*values: str | bytes) -> Array:
    return np.array(values, object)


@pytest.mark.parametrize(
    ("answer", "shadow", "expected"),
    [
        ({"y": floats(1, 2)}, {"y": floats(1, 2)}, (False, 0.0)),
        ({"y": floats(1, 2)}, {"y": floats(1, 2.5)}, (True, 0.5)),
        ({"y": floats(1000)}, {"y": floats(1000.05)}, (False, 0.05)),
        ({"y": floats(0.00001)}, {"y": floats(-0.00001)}, (False, 0.00002)),
        ({"y": floats(1, NAN)}, {"y": floats(1, NAN)}, (False, 0.0)),
        ({"y": floats(1, NAN)}, {"y": floats(1, 2)}, (True, INF)),
        ({"y": floats(INF, -INF)}, {"y": floats(INF, -INF)}, (False, 0.0)),
        ({"y": floats(INF)}, {"y": floats(-INF)}, (True, INF)),
        ({"y": floats(INF)}, {"y": floats(5)}, (True, INF)),
        ({"y": floats(1, 2)}, {"y": floats(1)}, (True, 0.0)),
        ({"y": floats()}, {"y": floats()}, (False, 0.0)),
        ({"y": floats(1)}, {"y": floats(1, dtype=np.float64)}, (False, 0.0)),
        ({"y": floats(65504, dtype=np.float16)}, {"y": floats(-65504, dtype=np.float16)}, (True, 131008.0)),
        ({"l": np.array([7])}, {"l": np.array([7], np.int8)}, (False, 0.0)),
        ({"l": np.array([7])}, {"l": np.array([1])}, (True, 0.0)),
        ({"l": np.array([7])}, {"l": floats(7)}, (False, 0.0)),
        ({"l": np.array([2**63], np.uint64)}, {"l": np.array([2**63 + 1], np.uint64)}, (True, 0.0)),
        ({"l": np.array([True])}, {"l": np.array([False])}, (True, 0.0)),
        ({"l": texts("cat", "dog")}, {"l": texts(b"cat", b"dog")}, (False, 0.0)),
        ({"l": texts("cat", "dog")}, {"l": texts("cat", "cow")}, (True, 0.0)),
        ({"l": texts("7")}, {"l": np.array([7])}, (True, 0.0)),
        ({"l": texts("7")}, {"l": floats(7)}, (True, 0.0)),
        ({"y": floats(1), "old": floats(5)}, {"new": floats(6), "y": floats(1)}, (False, 0.0)),
    ],
)
def test_the_table(answer: Mapping[str, Array], shadow: Mapping[str, Array], expected: tuple[bool, float]) -> None:
    """One line for each way to agree or differ, with the largest difference between two numbers."""
    found = compare(answer, shadow, 1e-4)
    assert (found.differs, found.difference) == (expected[0], pytest.approx(expected[1], rel=0.5))
    assert not found.reason


def test_where_there_are_labels_they_decide_and_the_numbers_are_only_measured() -> None:
    """A version trained anew has other probabilities for all inputs, and the same label for nearly all."""
    old = {"probabilities": floats(0.9, 0.1), "label": np.array([0])}
    new = {"probabilities": floats(0.7, 0.3), "label": np.array([0])}
    assert compare(old, new) == Comparison(differs=False, difference=pytest.approx(0.2))
    assert compare(old, {**new, "label": np.array([1])}).differs
    assert compare(old, {**new, "probabilities": floats(NAN, NAN)}).differs, "no numbers at all are no answer"


def test_a_tolerance_that_somebody_named_holds_beside_labels_too() -> None:
    """Who says how far numbers may be apart means the numbers: the same label with another score then differs."""
    old = {"probabilities": floats(0.9, 0.1), "label": np.array([0])}
    new = {"probabilities": floats(0.7, 0.3), "label": np.array([0])}
    assert compare(old, new, 0.01).differs
    assert not compare(old, new, 0.3).differs
    assert compare(old, {**old, "label": np.array([1])}, 0.3).differs
    assert [compare({"y": floats(1)}, {"y": floats(other)}).differs for other in (1.0001, 1.01)] == [False, True]


def test_one_row_of_many_is_enough_to_differ() -> None:
    """A request of several rows agrees when all of them do."""
    rows = np.zeros((64, 3), np.float32)
    other = rows.copy()
    other[41, 2] = 1
    assert compare({"y": rows}, {"y": other}, 1e-4) == Comparison(differs=True, difference=1.0)


def test_answers_with_nothing_in_common_differ_and_say_why() -> None:
    """Two signatures that share no output cannot be compared: that is for a person to see, once."""
    found = compare({"y": floats(1)}, {"z": floats(1)}, 1e-4)
    assert found == Comparison(differs=True, reason="it answers with z, the other version with y")


def test_answers_of_types_that_cannot_be_compared_differ_and_say_why() -> None:
    """Whatever a model answers, its copy comes to an end."""
    found = compare({"y": np.zeros(2, "V2")}, {"y": floats(1, 2)})
    assert found.differs
    assert "cannot be compared" in found.reason


@given(
    arrays.arrays(np.float64, st.integers(0, 20)),
    st.floats(0, 1e3),
)
def test_an_answer_agrees_with_itself_whatever_it_holds(values: Array, tolerance: float) -> None:
    """NaN, infinities and the largest numbers too; and comparing changes neither."""
    before = values.tobytes()
    assert compare({"y": values}, {"y": values.copy()}, tolerance) == Comparison(differs=False)
    assert values.tobytes() == before


@given(st.data())
def test_it_makes_no_difference_which_of_the_two_was_returned(data: st.DataObject) -> None:
    """The known good is copied to the candidate, and the candidate to the known good: both count the same."""
    shape = data.draw(st.integers(1, 8))
    one, other = (data.draw(arrays.arrays(np.float32, shape)) for _ in range(2))
    assert compare({"y": one}, {"y": other}, 1e-2) == compare({"y": other}, {"y": one}, 1e-2)
