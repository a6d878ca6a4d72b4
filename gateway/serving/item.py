"""One request's work in a version's queue, and the answer it gets. An item owns its future, and nobody else's."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Hashable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from gateway.errors import TurnoutError
from gateway.messages import Arrays

__all__ = ["Answer", "Item", "Priority"]


class Priority(IntEnum):
    """Who goes first. ``SPARE`` runs only when nothing else waits, and is dropped first: shadows."""

    HIGH = 0
    NORMAL = 1
    LOW = 2
    SPARE = 3


class Answer(NamedTuple):
    """One item's outputs (views into its batch's), seconds until the run that answered began, and its seconds."""

    outputs: Arrays
    queue_s: float
    compute_s: float


@dataclass(slots=True, eq=False)
class Item:
    """``deadline`` and ``enqueued`` are on the monotonic clock. ``attempts`` counts the runs it was part of."""

    inputs: Arrays
    rows: int
    key: Hashable
    deadline: float | None
    enqueued: float
    future: asyncio.Future[Answer]
    priority: Priority = Priority.NORMAL
    client: str = ""
    attempts: int = 0

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
