"""What a model takes and gives: tensor names, datatypes and shapes, as the Open Inference Protocol names them.

Arrays travel as plain numpy arrays. Two datatypes have no numpy type of their own:
BYTES travels as an object array of ``bytes``; BF16 travels widened to float32 (exactly)
and is narrowed again at the wire and inside the runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DATATYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": np.dtype(np.float32),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(object),
}

_DATATYPE_OF: Mapping[np.dtype[Any], str] = {dtype: name for name, dtype in DATATYPES.items() if name != "BF16"}


def datatype_of(array: np.ndarray[Any, Any]) -> str:
    """The protocol's name for an array's type; strings of any width are BYTES. ``ValueError`` for others."""
    if array.dtype.kind in "SU":
        return "BYTES"
    try:
        return _DATATYPE_OF[array.dtype]
    except KeyError:
        raise ValueError(f"no protocol datatype for numpy {array.dtype}") from None


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor. ``shape`` holds sizes or names of dynamic axes (``("batch", 784)``): equal names, equal sizes."""

    name: str
    datatype: str
    shape: tuple[int | str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any], *, batched: bool = False) -> TensorSpec:
        """Raises ``ValueError`` naming the field when the body is not a tensor description.

        ``-1``, which is how the protocol's metadata writes a dynamic axis, and ``null`` become a name:
        ``batch`` for the rows of a batched version, else one of the axis alone.
        """
        name, datatype, shape = body.get("name"), body.get("datatype"), body.get("shape")
        if not isinstance(name, str) or not name:
            raise ValueError(f"tensor name: expected a non-empty string, got {name!r}")
        if datatype not in DATATYPES:
            raise ValueError(f"datatype of {name!r}: expected one of {', '.join(DATATYPES)}, got {datatype!r}")
        if not isinstance(shape, list | tuple):
            raise ValueError(f"shape of {name!r}: expected a list, got {shape!r}")
        named = list(shape)
        for axis, size in enumerate(shape):
            if size is None or (type(size) is int and size == -1):
                named[axis] = "batch" if batched and axis == 0 else f"{name}_{axis}"
                continue
            fits = (isinstance(size, str) and size) or (type(size) is int and size >= 0)
            if not fits:
                raise ValueError(
                    f"shape of {name!r}, axis {axis}: expected a size or the name of a dynamic axis, got {size!r}"
                )
        return cls(name, str(datatype), tuple(named))


@dataclass(frozen=True, slots=True)
class Signature:
    """Inputs and outputs of a version, in order.

    ``batched``: the first axis of every tensor counts rows, so requests may share a batch
    by concatenation along it. Otherwise every request runs alone.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool = True

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [spec.to_json() for spec in self.inputs],
            "outputs": [spec.to_json() for spec in self.outputs],
            "batched": self.batched,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Signature:
        """Raises ``ValueError`` naming what is wrong."""
        batched = bool(body.get("batched", True))
        sides: list[tuple[TensorSpec, ...]] = []
        for side in ("inputs", "outputs"):
            rows = body.get(side)
            if not isinstance(rows, list | tuple) or not rows:
                raise ValueError(f"signature {side}: expected a non-empty list of tensors, got {rows!r}")
            specs = tuple(TensorSpec.from_json(row, batched=batched) for row in rows)
            if len({spec.name for spec in specs}) != len(specs):
                raise ValueError(f"signature {side}: two tensors share a name")
            sides.append(specs)
        return cls(sides[0], sides[1], batched)
