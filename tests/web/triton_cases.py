"""What both of Triton's HTTP clients are asked to do, as data: tensors to send, and how to send them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tritonclient.http as triton

from gateway.messages import DATATYPES

ROW = np.array([[1, 2, 3, 4]], np.float32)
OPERATOR = {"authorization": "Bearer operator-token"}
COMPRESSIONS = (None, "gzip", "deflate")
NUMERIC = tuple(sorted(set(DATATYPES) - {"BYTES", "BF16"}))


def fp32(array: np.ndarray[Any, Any] = ROW, *, binary: bool = True) -> list[triton.InferInput]:
    tensor = triton.InferInput("x", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor]


def words(*, binary: bool) -> tuple[list[triton.InferInput], np.ndarray[Any, Any]]:
    array = np.array([["a", "ü"], ["", "x" * 300]], dtype=object)
    tensor = triton.InferInput("words", [2, 2], "BYTES")
    tensor.set_data_from_numpy(array, binary_data=binary)
    return [tensor], np.array([[item.encode() for item in row] for row in array], dtype=object)


def every(*, binary: bool) -> tuple[list[triton.InferInput], dict[str, np.ndarray[Any, Any]]]:
    """One tensor of every datatype; BF16 by its bits, since numpy has none."""
    tensors, expected = [], {}
    for datatype, dtype in DATATYPES.items():
        array = np.array([[b"a", b"b"]], object) if datatype == "BYTES" else np.array([[0, 1]], dtype)
        tensor = triton.InferInput(f"in_{datatype}", [1, 2], datatype)
        if datatype == "BF16":
            tensor._raw_data = b"\x00\x00\x80\x3f"
            tensor._parameters["binary_data_size"] = 4
        else:
            tensor.set_data_from_numpy(array, binary_data=binary)
        tensors.append(tensor)
        expected[f"out_{datatype}"] = array
    return tensors, expected


def outputs(*names: str, binary: bool) -> list[triton.InferRequestedOutput]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
