"""One request's work in a version's queue, and the answer it gets. An item owns its future, and nobody else's."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, Protocol

from gateway.errors import TurnoutError
from gateway.messages import Arrays
from gateway.serving.engine import BatchResult

__all__ = ["BATCHES", "Answer", "Divided", "Item", "Priority", "answer_all"]


class Priority(IntEnum):
    """Who goes first. ``SPARE`` runs only when nothing else waits, and is dropped first: shadows."""

    HIGH = 0
    NORMAL = 1
    LOW = 2
    SPARE = 3


class Answer(NamedTuple):
    """One item's outputs (views into its batch's), seconds until the run that answered was handed over, and seconds
    that it computed.

    ``batch`` is the serial number of the batch that answered it, and ``batch_rows`` the rows that were computed
    together in that time. Both are 0 when nothing was computed for it: the answer was kept, or another's.
    """

    outputs: Arrays
    queue_s: float
    compute_s: float
    batch: int = 0
    batch_rows: int = 0


_new = tuple.__new__

BATCHES = itertools.count((os.getpid() << 31) + 1)
"""Serial numbers of batches, over all versions here. From a place of the process's own, so that those of several web
workers do not meet: the process id takes 22 bits, and what other programs read exactly as a number 53."""


class Divided(Protocol):
    """A request that runs in parts (``gateway.serving.parts``)."""

    def cut(self, item: Item, rows: int) -> tuple[Item, Item]: ...


@dataclass(slots=True, eq=False)
class Item:
    """``deadline`` and ``enqueued`` are on the monotonic clock. ``attempts`` counts the runs it was part of before the
    present one; ``parts`` is set on a request too large for one batch, and on each part of it."""

    inputs: Arrays
    rows: int
    key: Hashable
    deadline: float | None
    enqueued: float
    future: asyncio.Future[Answer]
    priority: Priority = Priority.NORMAL
    client: str = ""
    attempts: int = 0
    parts: Divided | None = None

    @property
    def left(self) -> bool:
        """Answered, failed, expired, or its client went away: there is nothing more to do for it."""
        return self.future.done()

    def answer(self, answer: Answer) -> None:
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, failure: TurnoutError) -> None:
        """Fails this item with an exception made for it alone."""
        if not self.future.done():
            self.future.set_exception(failure)

    def fail_with_batch(self, cause: TurnoutError) -> None:
        """Fails this item by what its batch met: a fresh copy that names ``cause``, since a shared exception
        would collect the tracebacks of all who await it."""
        if self.future.done():
            return
        failure = copy.copy(cause)
        failure.__cause__ = cause
        self.future.set_exception(failure)


def answer_all(items: Sequence[Item], rows: int, result: BatchResult, began: float, batch: int) -> list[float]:
    """Gives each item of a good batch, by its serial number ``batch``, its rows of the outputs, as views; the waits of
    those not told before.

    Raises ValueError, and answers nobody, when the outputs do not have the batch's rows. This runs for every request,
    so it makes nothing that it need not.
    """
    outputs, compute_s, ran_rows = result
    batch_rows = ran_rows or rows
    waits: list[float] = []
    if len(items) == 1:
        (item,) = items
        wait = began - item.enqueued
        if not item.attempts:
            waits.append(wait)
        if not item.future.done():
            item.future.set_result(_new(Answer, (outputs, wait, compute_s, batch, batch_rows)))
        return waits
    arrays = tuple(outputs.items())
    for name, array in arrays:
        if not array.ndim or array.shape[0] != rows:
            raise ValueError(f"output {name!r} has shape {array.shape} for a batch of {rows} rows")
    start = 0
    for item in items:
        stop = start + item.rows
        wait = began - item.enqueued
        if not item.attempts:
            waits.append(wait)
        future = item.future
        if not future.done():
            own = {name: array[start:stop] for name, array in arrays}
            future.set_result(_new(Answer, (own, wait, compute_s, batch, batch_rows)))
        start = stop
    return waits
