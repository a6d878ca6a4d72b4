"""Cutting and joining batches: pure, so checked on everything hypothesis can think of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Array, Signature, TensorSpec
from gateway.serving.batch import cut, halve, halve_rows, join, shape_key


@given(st.lists(st.integers(), max_size=40))
def test_halves_put_together_are_the_whole(items: list[int]):
    """Halving keeps order, loses nothing, and makes both parts smaller from two items on."""
    first, second = halve(items)
    assert [*first, *second] == items
    assert len(first) - len(second) in (0, 1)


@given(st.integers(2, 33), st.integers(1, 4))
def test_rows_halved_and_joined_are_the_same_rows(rows: int, width: int):
    """An item cut by rows for want of memory comes back whole."""
    inputs = {"x": np.arange(rows * width).reshape(rows, width), "y": np.arange(rows)}
    (first, count), (second, others) = halve_rows(inputs, rows)
    assert (len(first["x"]), len(second["x"])) == (count, others)
    joined = join([first, second])
    assert all(np.array_equal(joined[name], inputs[name]) for name in inputs)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=10))
def test_every_item_gets_its_own_rows_as_views(counts: list[int]):
    """Cutting copies nothing and mixes nothing up."""
    whole = np.arange(sum(counts) * 2).reshape(-1, 2)
    parts = [part["y"] for part in cut({"y": whole}, counts)]
    assert [len(part) for part in parts] == counts
    assert all(part.base is not None for part in parts)
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("output", [np.zeros((3, 2)), np.float32(1).reshape(())])
def test_outputs_that_do_not_have_the_batchs_rows_are_refused(output: Array):
    """Rows handed to the wrong caller would be worse than an error."""
    with pytest.raises(ValueError, match="batch of 4 rows"):
        list(cut({"y": output}, [2, 2]))


def signed(*shapes: tuple[int | str, ...], batched: bool = True) -> Signature:
    """A signature of inputs a, b … of these shapes."""
    inputs = tuple(TensorSpec(name, "FP32", shape) for name, shape in zip("abc", shapes, strict=False))
    return Signature(inputs, (TensorSpec("y", "FP32", ("batch",)),), batched=batched)


def test_shapes_that_cannot_be_joined_have_different_keys():
    """All axes but the first, of every input by name; the order of names does not matter."""
    small, wide = np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)
    key_of = shape_key(signed(("batch", "width"), ("batch", "height")))
    key = key_of({"a": small, "b": wide})
    assert key == key_of({"b": wide, "a": np.zeros((5, 2), np.float32)})
    assert key != key_of({"a": wide, "b": wide})
    one = shape_key(signed(("batch", "width"), ("batch", 3)))
    assert one({"a": small, "b": wide}) != one({"a": wide, "b": wide})


def test_a_signature_that_fixes_every_axis_leaves_nothing_to_compare():
    """Nor does one that is not batched, whose requests are never joined."""
    for signature in (signed(("batch", 2), ("batch", 3)), signed(("rows", "width"), batched=False)):
        assert shape_key(signature)({"a": np.zeros((1, 2))}) is shape_key(signature)({"a": np.zeros((4, 2))})
