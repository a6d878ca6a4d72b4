"""The engines under one queue, one lane each: what is under way on it, and whether it takes a batch now.

A batch launched while another runs has stopped gathering, so it is launched only when waiting longer would add
nothing: when it is full, or when the one before it is about to end, and the time of a hand-over would be lost
between the two. The end is foreseen by the cost curve, for batches long enough that foreseeing it pays.
"""

from __future__ import annotations

import asyncio
from collections import deque

from gateway.clock import Timer
from gateway.errors import TurnoutError
from gateway.serving.batch_teller import BatchTeller, Launched
from gateway.serving.devices import Turn
from gateway.serving.engine import Engine
from gateway.serving.isolation import BatchRunner
from gateway.serving.item import BATCHES, Item
from gateway.serving.supervision import Supervisor

__all__ = ["HAND_OVER_S", "WORTH_FORESEEING_S", "Batch", "Lane"]

HAND_OVER_S = 0.0005
WORTH_FORESEEING_S = 0.002


class Batch:
    """Items handed to an engine together. ``launched`` is what is told of it."""

    __slots__ = ("began", "engine", "items", "launched", "rows")

    def __init__(self, items: list[Item], rows: int, began: float, engine: Engine, *, release: str, limit: int) -> None:
        self.items = items
        self.rows = rows
        self.began = began
        self.engine = engine
        self.launched = Launched(next(BATCHES), rows, len(items), release, limit)


class Lane:
    """One engine's batches: under way, in the order of their launch, or failed and waiting to be run again.

    A failed batch is run again by itself, once nothing else is under way here, and nothing is launched meanwhile:
    what is at fault is found by what happens to it alone.
    """

    __slots__ = (
        "ending",
        "ends_at",
        "failed",
        "freed_at",
        "recovery",
        "runner",
        "runs",
        "settling",
        "supervisor",
        "teller",
        "turn",
    )

    def __init__(self, supervisor: Supervisor, runner: BatchRunner, teller: BatchTeller, turn: Turn | None) -> None:
        self.supervisor = supervisor
        self.teller = teller
        self.runner = runner
        self.turn = turn
        self.runs: deque[Batch] = deque()
        self.failed: deque[tuple[list[Item], TurnoutError]] = deque()
        self.settling: list[Item] = []
        self.recovery: asyncio.Task[None] | None = None
        self.ends_at = 0.0  # foreseen, of all that is under way
        self.freed_at = 0.0  # of the last batch
        self.ending: Timer | None = None

    def __repr__(self) -> str:
        state = "recovering" if self.recovery is not None or self.failed else "ready" if self.engine else "waiting"
        return f"<Lane {self.supervisor.standing} [{state} | {len(self.runs)} under way]>"

    @property
    def engine(self) -> Engine | None:
        """The engine that may be given a batch, as far as failures go."""
        if self.failed or self.recovery is not None:
            return None
        return self.supervisor.live

    @property
    def idle(self) -> bool:
        return not self.runs and not self.failed and self.recovery is None

    def items(self) -> list[Item]:
        """All that run here or are to be run again."""
        under_way = [item for batch in self.runs for item in batch.items]
        failed = [item for items, _ in self.failed for item in items]
        return [*under_way, *failed, *self.settling]

    def quiet(self) -> None:
        """The end of what is under way is not awaited any more."""
        if self.ending is not None:
            self.ending.cancel()
            self.ending = None

    def give_up(self) -> None:
        """Forgets all that is under way."""
        self.quiet()
        self.runs.clear()
        self.failed.clear()
        self.settling = []
        if self.turn is not None:
            self.turn.leave()
