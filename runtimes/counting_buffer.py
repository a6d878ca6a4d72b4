"""Rows that ran and are still to be counted: kept until there is time, never in the way of an answer.

Noting a batch copies what is counted of it, a microsecond or two. Counting comes later, in slices of about a
millisecond: as soon as enough has gathered, or after a quarter of a second, while nothing waits; and while something
does wait, for one fiftieth of the time. What comes when the buffer is full is seen and not counted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from runtimes.base import Array, Arrays
from runtimes.counting import Plan
from runtimes.counting_rows import Counter, flat_rows

__all__ = ["Buffer", "Counts"]

GATHER_ROWS = 1024
GATHER_S = 0.25
MOST_ROWS = 8192
MOST_BYTES = 16 << 20
SLICE_S = 0.001
BUSY_SHARE = 0.02
_LEAST_SLICE, _MOST_SLICE = 64, 1020
"""Of few columns a slice of a few rows costs nearly as much as one of hundreds, and time allows the most. Of 784 the
least is 1 to 2 ms, which a batch that comes meanwhile waits for; 255 rows were 3 to 10."""

Place = tuple[str, str]
Clock = Callable[[], float]


class Counts(NamedTuple):
    """What one plan gave since the last time. ``seen`` rows ran, ``counted`` of them were counted."""

    digest: str
    seen: int
    counted: int
    vector: Array


class Buffer:
    """One plan's. Noting is for whoever runs batches, the rest for whoever counts: two threads may share it so."""

    def __init__(self, plan: Plan, *, clock: Clock = time.perf_counter) -> None:
        self._counter = Counter(plan)
        self._clock = clock
        self._inputs = frozenset(name for side, name in self._counter.tensors if side == "input")
        self._outputs = frozenset(name for side, name in self._counter.tensors if side == "output")
        # Each batch with its rows, its bytes and when it came.
        self._pending: deque[tuple[dict[Place, Array], int, int, float]] = deque()
        # Each written by one of the two alone: what came, and what of it is out again.
        self._seen, self._noted_rows, self._noted_bytes = 0, 0, 0
        self._told, self._done_rows, self._done_bytes = 0, 0, 0
        self._busy_until = 0.0
        self._slice = _LEAST_SLICE

    def __repr__(self) -> str:
        return f"<Buffer {self.plan.digest[:15]} [{self.waiting} rows wait | {self._counter.rows} counted]>"

    @property
    def plan(self) -> Plan:
        return self._counter.plan

    @property
    def waiting(self) -> int:
        """Rows noted and not counted yet."""
        return self._noted_rows - self._done_rows

    def note(self, inputs: Arrays, outputs: Arrays, rows: int | None) -> None:
        """Copies what is counted of a batch that has run, before its answer is out: inputs lie in memory that the next
        batch is written to, and outputs may be views of them, or of memory that the runtime uses again."""
        count = 1 if rows is None else rows
        self._seen += count
        full = self.waiting + count > MOST_ROWS and self.waiting
        known = self._inputs <= inputs.keys() and self._outputs <= outputs.keys()
        if full or not known or not count or self._noted_bytes - self._done_bytes > MOST_BYTES:
            return
        batched = rows is not None
        tensors = {("input", name): self._copy("input", name, inputs[name], batched) for name in self._inputs}
        for name in self._outputs:
            tensors["output", name] = self._copy("output", name, outputs[name], batched)
        held = sum(array.nbytes for array in tensors.values())
        self._noted_bytes += held
        self._pending.append((tensors, count, held, self._clock()))
        self._noted_rows += count

    def due_in_s(self) -> float | None:
        """Seconds until something is to be counted, 0 for now; None when nothing waits."""
        waiting = self.waiting
        if not waiting:
            return None
        return 0.0 if waiting >= GATHER_ROWS else max(0.0, self._pending[0][3] + GATHER_S - self._clock())

    def count(self) -> None:
        """Counts a slice of what waits."""
        began = self._clock()
        batch, rows = self._next()
        if not rows:
            return
        self._counter.add_rows(batch)
        seconds = self._clock() - began
        self._done_rows += rows
        if seconds > 0 and rows >= _LEAST_SLICE:
            self._slice = int(min(_MOST_SLICE, max(_LEAST_SLICE, rows * SLICE_S / seconds)))
        self._busy_until = began + seconds / BUSY_SHARE

    def count_beside_work(self) -> bool:
        """Counts a slice although work waits, if it is due and little of the time has gone into that. True if so."""
        if self.waiting < GATHER_ROWS or self._clock() < self._busy_until:
            return False
        self.count()
        return True

    def take(self) -> Counts | None:
        """What was counted since the last time; None when nothing was even seen."""
        seen = self._seen
        since = seen - self._told
        if not since and not self._counter.rows:
            return None
        counted, vector = self._counter.take()
        # Rows that wait are told of as seen with the record that counts them, if that can be known.
        waiting = min(self.waiting, max(0, since - counted))
        self._told = seen - waiting
        return Counts(self.plan.digest, max(counted, since - waiting), counted, vector)

    def _next(self) -> tuple[Mapping[Place, Array], int]:
        """Waiting batches of like width, joined up to a slice; a larger one is cut."""
        taken: list[dict[Place, Array]] = []
        rows = 0
        widths: list[int] | None = None
        while self._pending and rows < self._slice:
            tensors, count, held, came = self._pending[0]
            own = [array.shape[1] if array.ndim == 2 else -1 for array in tensors.values()]
            if widths is not None and own != widths:
                break
            widths = own
            self._pending.popleft()
            room = self._slice - rows
            if count > room:
                rest = {place: array[room:] for place, array in tensors.items()}
                self._pending.appendleft((rest, count - room, held, came))
                tensors = {place: array[:room] for place, array in tensors.items()}
                count = room
            else:
                self._done_bytes += held
            taken.append(tensors)
            rows += count
        if len(taken) == 1:
            return taken[0], rows
        return {
            place: np.concatenate([tensors[place] for tensors in taken]) for place in taken[0]
        } if taken else {}, rows

    def _copy(self, side: str, name: str, array: Array, batched: bool) -> Array:
        rows = flat_rows(array, batched)
        indices = self._counter.picks.get((side, name))
        if indices is not None and indices[-1] < rows.shape[1]:
            return np.take(rows, indices, axis=1)
        return rows.copy()
