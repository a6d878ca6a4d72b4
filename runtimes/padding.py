"""Batches of any size on work that is prepared for a few: padded up to the next, and the answers cut."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from runtimes.base import Array
from runtimes.signature import Signature

__all__ = ["cut", "next_size", "padded", "sizes_alone_vary"]


def sizes_alone_vary(signature: Signature) -> bool:
    """Whether batches differ in their rows and nothing else, so that work can be prepared for a few sizes."""
    return signature.batched and all(isinstance(axis, int) for spec in signature.inputs for axis in spec.shape[1:])


def next_size(rows: int, sizes: Iterable[int]) -> int | None:
    """The smallest size that holds the rows; None when none does."""
    return min((size for size in sizes if size >= rows), default=None)


def padded(array: Array, rows: int) -> Array:
    """The array with zeros up to ``rows``: never with what was in the batch before."""
    if len(array) == rows:
        return array
    whole = np.zeros((rows, *array.shape[1:]), array.dtype)
    whole[: len(array)] = array
    return whole


def cut(array: Array, rows: int) -> Array:
    """A copy of the first rows: what it is cut from is written again by the next batch."""
    return array[:rows].copy()
