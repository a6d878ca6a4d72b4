"""What may share a batch, and how a batch is cut and joined. Pure: values in, values out."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from gateway.messages import DATATYPES, Array, Arrays, Signature

__all__ = ["cut", "halve", "halve_rows", "join", "row_bytes", "rows_of", "shape_key"]

T = TypeVar("T")


def shape_key(signature: Signature) -> Callable[[Arrays], Hashable]:
    """Tells of inputs that fit the signature what they have in common: those with equal keys can be joined along
    the first axis. Where the signature fixes all other axes, that is anything, and costs nothing to say."""
    if not signature.batched:
        return _anything
    names = tuple(spec.name for spec in signature.inputs if not all(isinstance(size, int) for size in spec.shape[1:]))
    if not names:
        return _anything
    if len(names) == 1:
        (name,) = names
        return lambda inputs: inputs[name].shape[1:]
    return lambda inputs: tuple([inputs[name].shape[1:] for name in names])


def row_bytes(signature: Signature) -> int:
    """What a row of the inputs takes at least: axes that are not fixed count once, and a string as its pointer."""
    if not signature.batched:
        return 0
    sizes = ([size for size in spec.shape[1:] if isinstance(size, int)] for spec in signature.inputs)
    items = (DATATYPES[spec.datatype].itemsize for spec in signature.inputs)
    return sum(math.prod(size) * item for size, item in zip(sizes, items, strict=True))


def _anything(_: Arrays) -> Hashable:
    return None


def rows_of(inputs: Arrays, start: int, stop: int) -> dict[str, Array]:
    """Some rows, as views."""
    return {name: array[start:stop] for name, array in inputs.items()}


def halve(items: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Two halves in order, the first never smaller; for one item the second is empty."""
    middle = (len(items) + 1) // 2
    return tuple(items[:middle]), tuple(items[middle:])


def halve_rows(inputs: Arrays, rows: int) -> tuple[tuple[Arrays, int], tuple[Arrays, int]]:
    """One item's rows in two halves, as views, each with its number of rows."""
    middle = (rows + 1) // 2
    return (rows_of(inputs, 0, middle), middle), (rows_of(inputs, middle, rows), rows - middle)


def join(outputs: Sequence[Arrays]) -> Arrays:
    """The outputs of consecutive rows as one. Raises ValueError when other axes differ."""
    if len(outputs) == 1:
        return outputs[0]
    return {name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}


def cut(outputs: Arrays, counts: Sequence[int]) -> Iterator[dict[str, Array]]:
    """Each item's rows of a batch's outputs, as views. Raises ValueError when the rows do not add up."""
    total = sum(counts)
    for name, array in outputs.items():
        if not array.ndim or array.shape[0] != total:
            raise ValueError(f"output {name!r} has shape {array.shape} for a batch of {total} rows")
    start = 0
    for rows in counts:
        stop = start + rows
        yield {name: array[start:stop] for name, array in outputs.items()}
        start = stop
