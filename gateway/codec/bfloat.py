"""BF16, which numpy does not have: sixteen bits at the wire, float32 in between."""

from __future__ import annotations

import numpy as np

from gateway.messages import Array

__all__ = ["narrow", "widen"]

_QUIET_NAN = np.uint16(0x7FC0)


def widen(bits: Array) -> Array:
    """uint16 patterns to float32, exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrow(values: Array) -> Array:
    """float32 to uint16 patterns, rounded to nearest, ties to even. NaN stays NaN; past the range is infinite."""
    bits = np.asarray(values, dtype=np.float32, order="C").view(np.uint32)
    tie = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + (np.uint32(0x7FFF) + tie)) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(values), _QUIET_NAN, rounded)
