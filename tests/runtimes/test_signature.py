"""Signatures as people write them."""

from __future__ import annotations

import pytest

from runtimes.signature import Signature


def _signature(**fields: object) -> Signature:
    row = {"name": "x", "datatype": "FP32", "shape": [-1, -1, 4]}
    return Signature.from_json({"inputs": [row], "outputs": [{**row, "name": "y", "shape": [None, 4]}], **fields})


def test_the_protocols_minus_one_is_a_dynamic_axis() -> None:
    """The first axis of a batched version counts rows; any other axis is free on its own."""
    signature = _signature()
    assert signature.inputs[0].shape == ("batch", "x_1", 4)
    assert signature.outputs[0].shape == ("batch", 4)
    assert Signature.from_json(signature.to_json()) == signature


def test_without_batching_no_axis_is_tied_to_another() -> None:
    """Each gets a name of its own, so that two inputs may differ in it."""
    signature = _signature(batched=False)
    assert signature.inputs[0].shape == ("x_0", "x_1", 4)
    assert signature.outputs[0].shape == ("y_0", 4)


@pytest.mark.parametrize("size", [-2, True, 1.0, "", [1]])
def test_what_is_neither_size_nor_name_is_refused_with_its_place(size: object) -> None:
    """Tensor, axis and value are in the message."""
    row = {"name": "x", "datatype": "FP32", "shape": ["batch", size]}
    with pytest.raises(ValueError, match=r"shape of 'x', axis 1: expected a size or the name"):
        Signature.from_json({"inputs": [row], "outputs": [row]})
