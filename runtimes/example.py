"""Inputs made from a signature: zeros and empty strings, for warming and probing where no example was given."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtimes.base import Array
from runtimes.signature import DATATYPES, Signature, TensorSpec

__all__ = ["synthetic_inputs"]


def synthetic_inputs(signature: Signature, rows: int = 1) -> dict[str, Array]:
    """One array an input. Of a batched signature the first axis is ``rows``; every other dynamic axis is 1."""
    return {spec.name: _zeros(spec, rows if signature.batched else None) for spec in signature.inputs}


def _zeros(spec: TensorSpec, rows: int | None) -> Array:
    shape = [axis if isinstance(axis, int) else 1 for axis in spec.shape]
    if rows is not None and shape:
        shape[0] = rows
    nothing: Any = b"" if spec.datatype == "BYTES" else 0
    return np.full(shape, nothing, DATATYPES[spec.datatype])
