"""The head of an array in a numpy file: what can be read of it a stretch of rows at a time, and what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib import format as npy

__all__ = ["Head", "read_head"]


@dataclass(frozen=True, slots=True)
class Head:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        """Of one step along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize


def read_head(file: Any) -> Head:
    """Leaves ``file``, binary and open, at the first row. ValueError for what is no ``.npy``, holds Python objects, or
    has no rows that lie one after another."""
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects (pickle); save numbers, or fixed-width strings (dtype S or U)")
    if fortran and len(shape) > 1:
        raise ValueError("its array is stored by columns; save numpy.ascontiguousarray of it")
    return Head(tuple(shape), dtype)
