"""Which waiting items form the next batch, and how a batch is cut in two. Pure: values in, values out.

A batch holds items of one shape key, that of the oldest item waiting; items keep their order, and
an item too large for the rows left ends the batch rather than being overtaken, so nothing starves.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from gateway.messages import Array, Arrays

__all__ = ["Plan", "Waiting", "cut", "halve", "halve_rows", "join", "plan", "shape_key"]

T = TypeVar("T")


class Waiting(Protocol):
    """What planning reads of an item. ``left``: nobody waits for its answer any more."""

    @property
    def key(self) -> Hashable: ...

    @property
    def rows(self) -> int: ...

    @property
    def deadline(self) -> float | None: ...

    @property
    def left(self) -> bool: ...


W = TypeVar("W", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Plan(Generic[W]):
    """The next batch, and what leaves the queue without running; all else stays as it was."""

    batch: tuple[W, ...] = ()
    expired: tuple[W, ...] = ()
    left: tuple[W, ...] = ()


def shape_key(inputs: Arrays, *, batched: bool) -> Hashable:
    """Items with equal keys can be joined along the first axis: equal types, equal other axes, by name."""
    if not batched:
        return None
    return tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items()))


def plan(queue: Iterable[W], now: float, *, max_rows: int, alone: bool = False) -> Plan[W]:
    """The oldest live item and those behind it that fit with it, up to ``max_rows``.

    An item larger than ``max_rows`` runs by itself. ``alone``: one item a batch. The walk ends as
    soon as the batch is full, so items behind it are looked at by a later plan.
    """
    batch: list[W] = []
    expired: list[W] = []
    left: list[W] = []
    room = max_rows
    for item in queue:
        if item.left:
            left.append(item)
        elif item.deadline is not None and item.deadline <= now:
            expired.append(item)
        elif batch and item.key != batch[0].key:
            continue
        elif batch and item.rows > room:
            break
        else:
            batch.append(item)
            room -= item.rows
            if room <= 0 or alone:
                break
    return Plan(tuple(batch), tuple(expired), tuple(left))


def halve(items: Sequence[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Two halves in order, the first never smaller; for one item the second is empty."""
    middle = (len(items) + 1) // 2
    return tuple(items[:middle]), tuple(items[middle:])


def halve_rows(inputs: Arrays, rows: int) -> tuple[tuple[Arrays, int], tuple[Arrays, int]]:
    """One item's rows in two halves, as views, each with its number of rows."""
    middle = (rows + 1) // 2
    first = {name: array[:middle] for name, array in inputs.items()}
    second = {name: array[middle:] for name, array in inputs.items()}
    return (first, middle), (second, rows - middle)


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
