"""bfloat16 as 16-bit words and as float32, both ways, for vendors that numpy cannot talk to in it."""

from __future__ import annotations

import numpy as np

from runtimes.base import Array

__all__ = ["narrow", "widen"]


def narrow(array: Array) -> Array:
    """float32 to words, rounded to nearest even; NaN stays NaN."""
    words = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = (words + np.uint32(0x7FFF) + ((words >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    quiet = (words >> np.uint32(16)) | np.uint32(0x40)
    return np.where(np.isnan(array), quiet, rounded).astype(np.uint16)


def widen(words: Array) -> Array:
    """Words to float32, exactly."""
    return (words.astype(np.uint32) << np.uint32(16)).view(np.float32)
