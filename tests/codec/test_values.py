"""Nested values become arrays exactly, or not at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec.faults import MAX_PROBLEMS, Faults
from gateway.codec.limits import CodecLimits
from gateway.codec.values import Wanted, find_faults, read_values
from gateway.errors import TooLarge
from gateway.messages import DATATYPES

LIMITS = CodecLimits(max_depth=8)
FLOATS = ("FP16", "BF16", "FP32", "FP64")
INTEGERS = tuple(name for name in DATATYPES if "INT" in name)


def faults_of(value: Any, datatype: str, shape: tuple[int | str, ...]) -> list[tuple[str, str, str]]:
    faults = Faults()
    find_faults(value, Wanted("inputs.x", datatype, shape), faults, LIMITS)
    return [(problem.field, problem.expected, problem.got) for problem in faults.problems]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("datatype", [*FLOATS, *INTEGERS])
def test_whole_numbers_are_read_into_every_numeric_type_on_both_ways(datatype: str, plain: bool) -> None:
    """The fast way and the careful way give the same array."""
    array = read_values([[1, 2.0, 3], [4, 5, 6]], datatype, 2, plain=plain)

    assert array is not None
    assert array.dtype == DATATYPES[datatype]
    assert array.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("datatype", INTEGERS)
def test_a_bound_of_an_integer_type_is_read_and_one_beyond_is_not(datatype: str, plain: bool) -> None:
    """Nothing wraps round."""
    bounds = np.iinfo(DATATYPES[datatype])
    for value in (bounds.min, bounds.max):
        array = read_values([value], datatype, 1, plain=plain)
        assert array is not None
        assert array.tolist() == [value]
    for value in (bounds.min - 1, bounds.max + 1):
        if -(2**63) <= value < 2**64:  # beyond, the parser gives a float
            assert read_values([value], datatype, 1, plain=plain) is None
            assert faults_of([value], datatype, ("n",))[0][2] == f"{value} (value out of range)"


@pytest.mark.parametrize("plain", [True, False])
def test_integers_past_the_exact_floats_survive_a_float_beside_them(plain: bool) -> None:
    """numpy alone would make one float array of both and round the first."""
    array = read_values([2**53 + 1, 1.0], "INT64", 1, plain=plain)

    assert array is not None
    assert array.tolist() == [2**53 + 1, 1]


@pytest.mark.parametrize("plain", [True, False])
def test_fractions_and_inexact_floats_are_no_integers(plain: bool) -> None:
    """1.5 is not cut to 1, and 1e17 may have been any of eight integers."""
    assert read_values([1.5], "INT32", 1, plain=plain) is None
    assert read_values([1e17], "INT64", 1, plain=plain) is None
    assert faults_of([1.5], "INT32", ("n",)) == [
        ("inputs.x[0]", "an integer from -2147483648 to 2147483647", "1.5 (a fraction)")
    ]
    assert faults_of([1e17], "INT64", ("n",))[0][2] == "1e+17 (a float too large to be exact; send an integer)"


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(("datatype", "value"), [("FP16", 70000), ("FP32", 1e39), ("BF16", 3.4e38), ("FP32", -1e300)])
def test_a_number_that_would_become_infinite_is_refused(datatype: str, value: float, plain: bool) -> None:
    """JSON cannot hold infinity, so none comes out of it."""
    assert read_values([value], datatype, 1, plain=plain) is None
    assert faults_of([value], datatype, ("n",))[0][2].endswith("(value out of range)")


def test_bf16_is_rounded_to_what_the_wire_can_hold() -> None:
    """So that narrowing it again loses nothing."""
    array = read_values([1.0, 1.00390625, 3.1415927], "BF16", 1, plain=True)

    assert array is not None
    assert array.tolist() == [1.0, 1.0, 3.140625]


@pytest.mark.parametrize(
    ("value", "datatype"),
    [
        ([True], "FP32"),
        ([True, 1.5], "FP32"),
        ([None, 1.5], "FP32"),
        (["1.5"], "FP32"),
        (["1", 2], "INT64"),
        ([1, 0], "BOOL"),
        ([1], "BYTES"),
        ([{"b64": "!"}], "BYTES"),
        ([{"b64": "AA==", "more": 1}], "BYTES"),
        ([[1], [1, 2]], "FP32"),
        ([1, [2]], "FP32"),
        ({"a": 1}, "FP32"),
    ],
)
def test_nothing_is_cast_in_silence(value: Any, datatype: str) -> None:
    """Booleans are no numbers, numbers no booleans, strings neither, null nothing, and ragged rows no tensor."""
    rank = 2 if value == [[1], [1, 2]] else 1

    assert read_values(value, datatype, rank, plain=False) is None
    assert faults_of(value, datatype, ("n", "m")[:rank])


def test_strings_become_bytes_and_base64_becomes_what_it_holds() -> None:
    """The two ways that bytes stand in JSON."""
    array = read_values([["ü", {"b64": "//4="}]], "BYTES", 2, plain=False)

    assert array is not None
    assert array.tolist() == [["ü".encode(), b"\xff\xfe"]]


def test_a_long_string_among_many_short_ones_stays_small() -> None:
    """numpy's own string arrays are as wide as their widest: this one would take 100 GB."""
    value = ["a" * 1_000_000, *["b"] * 100_000]

    assert read_values(value, "FP32", 1, plain=False) is None
    array = read_values(value, "BYTES", 1, plain=False)
    assert array is not None
    assert len(array[0]) == 1_000_000


def test_faults_name_their_places_in_order_and_stop_at_a_bound() -> None:
    """A body that is wrong everywhere gives a short answer."""
    rows = [["x"] * 100] * 100

    faults = faults_of(rows, "FP32", ("batch", 100))

    assert [field for field, _, _ in faults] == [f"inputs.x[0][{index}]" for index in range(MAX_PROBLEMS)]


def test_a_ragged_row_is_named_with_its_index() -> None:
    """Not only that the shape is wrong, but where."""
    assert faults_of([[1, 2], [3, 4], [5]], "FP32", ("batch", "width")) == [("inputs.x[2]", "2 values", "1")]
    assert faults_of([[1, 2], 3], "FP32", ("batch", 2)) == [("inputs.x[1]", "a list of values", "3")]


def test_deep_nesting_is_refused_without_recursion() -> None:
    """A thousand levels cost nothing and raise no RecursionError."""
    value: Any = 1
    for _ in range(1000):
        value = [value]

    assert read_values(value, "FP32", 2, plain=True) is None
    assert read_values(value, "FP32", 2, plain=False) is None
    with pytest.raises(TooLarge, match="nested deeper"):
        faults_of(value, "FP32", ("a", "b"))


leaf = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(),
)
nested = st.recursive(leaf, lambda inner: st.lists(inner, max_size=4), max_leaves=30)


@settings(derandomize=True, max_examples=400, deadline=None)
@given(nested, st.sampled_from(sorted(DATATYPES)), st.integers(0, 3))
def test_values_are_read_or_their_faults_are_found(value: Any, datatype: str, rank: int) -> None:
    """Never neither, never both: a refusal always names a place."""
    array = read_values(value, datatype, rank, plain=False)
    faults = faults_of(value, datatype, tuple(f"axis{axis}" for axis in range(rank)))

    assert (array is None) == bool(faults)
    if array is not None:
        assert array.ndim == rank
        assert array.dtype == DATATYPES[datatype]


numbers = st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))


@settings(derandomize=True, max_examples=400, deadline=None)
@given(
    st.recursive(numbers, lambda inner: st.lists(inner, max_size=4), max_leaves=30),
    st.sampled_from([*FLOATS, *INTEGERS]),
    st.integers(0, 3),
)
def test_the_fast_way_reads_what_the_careful_way_reads(value: Any, datatype: str, rank: int) -> None:
    """They may not differ in what they take, nor in what comes out."""
    fast = read_values(value, datatype, rank, plain=True)
    careful = read_values(value, datatype, rank, plain=False)

    assert (fast is None) == (careful is None)
    if fast is not None and careful is not None and fast.size:
        assert fast.tolist() == careful.tolist()
