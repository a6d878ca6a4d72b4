"""A profile of live rows, made in the child that runs them: only sums leave it, never a row.

The first rows freeze the bins, as many after them are counted as the reference: bins and counts come from different
rows, as live counts later do.
"""

from __future__ import annotations

import json
from collections import deque

import numpy as np

from runtimes.base import Array, Arrays
from runtimes.counting_profile import Reckoning
from runtimes.counting_rows import flattened
from runtimes.counting_sketch import Sketch
from runtimes.signature import Signature

__all__ = ["Capture"]

_AT_ONCE = 256
_MOST_ROWS = 4096
_MOST_BYTES = 32 << 20


class Capture:
    """``note`` batches until ``done``; ``work`` when nothing waits. What comes while it is full is passed by."""

    def __init__(self, signature: Signature, rows: int, seed: int) -> None:
        self._wanted = rows
        self._sketch = Sketch(signature, seed=seed)
        self._reckoning: Reckoning | None = None
        self._pending: deque[dict[tuple[str, str], Array]] = deque()
        self._waiting, self._held = 0, 0
        self.profile: bytes | None = None
        self.problem = ""

    def __repr__(self) -> str:
        return f"<Capture [{self.rows} of {2 * self._wanted} rows]>"

    @property
    def rows(self) -> int:
        return self._sketch.rows + (0 if self._reckoning is None else self._reckoning.rows)

    @property
    def done(self) -> bool:
        """There is a profile, or a problem."""
        return self.profile is not None or bool(self.problem)

    @property
    def due(self) -> bool:
        left = 2 * self._wanted - self.rows
        return not self.done and self._waiting >= min(_AT_ONCE, left)

    def note(self, inputs: Arrays, outputs: Arrays, rows: int | None) -> None:
        """Copies a batch that has run; before its answer is out, as its memory is used again."""
        count = 1 if rows is None else rows
        if self.done or not count or self._waiting >= _MOST_ROWS or self._held >= _MOST_BYTES:
            return
        tensors = {place: array.copy() for place, array in flattened(inputs, outputs, batched=rows is not None).items()}
        self._pending.append(tensors)
        self._waiting += count
        self._held += sum(array.nbytes for array in tensors.values())

    def work(self) -> None:
        """Takes in what waits."""
        try:
            self._take(self._gathered())
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            self.problem = str(error) or type(error).__name__
        if self.done:
            self._pending.clear()

    def _gathered(self) -> dict[tuple[str, str], Array]:
        first = self._pending[0]
        widths = [array.shape[1] for array in first.values()]
        taken: list[dict[tuple[str, str], Array]] = []
        while self._pending and [array.shape[1] for array in self._pending[0].values()] == widths:
            taken.append(self._pending.popleft())
        rows = {place: np.concatenate([tensors[place] for tensors in taken]) for place in first}
        self._waiting -= len(next(iter(rows.values())))
        self._held -= sum(array.nbytes for array in rows.values())
        return rows

    def _take(self, rows: dict[tuple[str, str], Array]) -> None:
        if self._reckoning is None:
            room = self._wanted - self._sketch.rows
            self._sketch.add({place: array[:room] for place, array in rows.items()})
            if self._sketch.rows < self._wanted:
                return
            self._reckoning = Reckoning(self._sketch.frozen(), self._wanted)
            rows = {place: array[room:] for place, array in rows.items()}
        room = self._wanted - self._reckoning.rows
        self._reckoning.add({place: array[:room] for place, array in rows.items()})
        if self._reckoning.rows >= self._wanted:
            self.profile = json.dumps(self._reckoning.finished()).encode()
