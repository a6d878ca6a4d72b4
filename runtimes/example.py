"""Inputs made up from a signature, to warm a version and to ask whether it still answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtimes.signature import DATATYPES, Signature, TensorSpec

__all__ = ["synthetic_inputs"]

DYNAMIC_AXIS_SIZE = 16
"""For named axes other than the rows: small, yet wide enough for the windows that models slide over an axis."""


def synthetic_inputs(signature: Signature, rows: int) -> dict[str, np.ndarray[Any, Any]]:
    """One value for each input, with ``rows`` rows where the signature is batched.

    Integers are 0 (a valid index into any table), floats 0.5, booleans False, bytes empty;
    axes of one name get one size.
    """
    return {spec.name: _filled(spec, rows if signature.batched else None) for spec in signature.inputs}


def _filled(spec: TensorSpec, rows: int | None) -> np.ndarray[Any, Any]:
    shape = [DYNAMIC_AXIS_SIZE if isinstance(size, str) else size for size in spec.shape]
    if rows is not None and shape:
        shape[0] = rows
    if spec.datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    dtype = DATATYPES[spec.datatype]
    return np.full(shape, 0.5 if dtype.kind == "f" else 0, dtype=dtype)
