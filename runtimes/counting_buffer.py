"""Rows that ran and are still to be counted: kept until there is time, never in the way of an answer.

Noting a batch copies what is counted of it, a microsecond or two. Counting comes later, in slices of about a
millisecond: as soon as enough has gathered, or after a quarter of a second, while nothing waits; and while something
does wait, or somebody else wants the processor, for a small share of the time.

Where that is too little for all rows, batches are *sampled*: each is noted or not by a draw of its own, whose chance
was set before it came, once a second, from how many rows came and were counted in those before. So within a second
every batch has the same chance, whatever is in it, however large it is and whatever came before it, and counts of the
sample have the shares of the whole. What is not noted is seen, and costs a draw. The buffer's bounds are for what no
chance foresaw: what finds it full is seen and not counted.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from runtimes.base import Array, Arrays
from runtimes.counting import BUSY_SHARE, Plan
from runtimes.counting_rows import Counter, flat_rows

__all__ = ["SLICE_S", "Buffer", "Counts"]

GATHER_ROWS = 1024
GATHER_S = 0.25
MOST_ROWS = 8192
MOST_BYTES = 16 << 20
SLICE_S = 0.001
_KEPT_ROWS, _KEPT_BYTES = 2 * GATHER_ROWS, MOST_BYTES // 2
"""What should wait where not all is counted: enough for slices, far from full."""

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

    def __init__(
        self,
        plan: Plan,
        *,
        share: float = BUSY_SHARE,
        clock: Clock = time.perf_counter,
        worked: Clock = time.thread_time,
    ) -> None:
        """``share``: of the time, so much goes into counting while the processor is wanted elsewhere. ``worked``:
        processor time of the thread that counts, which loses the processor in the midst when those are short."""
        self._counter = Counter(plan)
        self._share = share
        self._clock = clock
        self._worked = worked
        picks = self._counter.picks
        self._wanted = [(place, place[0] == "input", place[1], picks.get(place)) for place in self._counter.tensors]
        # Each batch with its rows, its bytes and when it came.
        self._pending: deque[tuple[dict[Place, Array], int, int, float]] = deque()
        # Each written by one of the two alone: what came, and what of it is out again.
        self._seen, self._noted_rows, self._noted_bytes = 0, 0, 0
        self._told, self._done_rows, self._done_bytes = 0, 0, 0
        self._busy_until = 0.0
        self._slice = _LEAST_SLICE
        # The same draws in every process, which share no rows.
        self._draw = random.Random(1).random  # noqa: S311 - nobody gains by guessing which rows are counted
        self._chance, self._expected = 1.0, 0.0
        self._seen_before = 0
        self._kept = _KEPT_ROWS
        self._gathered = GATHER_ROWS

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
        if self._chance < 1.0 and self._draw() >= self._chance:
            return
        full = self.waiting + count > MOST_ROWS and self.waiting
        if full or not count or self._noted_bytes - self._done_bytes > MOST_BYTES:
            return
        tensors: dict[Place, Array] = {}
        held = 0
        for place, given, name, indices in self._wanted:
            array = (inputs if given else outputs).get(name)
            if array is None:
                return
            kept = tensors[place] = _copied(flat_rows(array, rows is not None), indices)
            held += kept.nbytes
        self._noted_bytes += held
        self._pending.append((tensors, count, held, self._clock()))
        self._noted_rows += count

    def due_in_s(self, *, short: bool = False) -> float | None:
        """Seconds until something is to be counted, 0 for now; None when nothing waits. ``short``: somebody else wants
        the processor, so counting keeps to its share although nothing waits here."""
        waiting = self.waiting
        if not waiting:
            return None
        due = 0.0 if waiting >= self._gathered else self._pending[0][3] + GATHER_S
        if short and self._busy_until > due:
            due = self._busy_until
        return max(0.0, due - self._clock()) if due else 0.0

    def count(self) -> None:
        """Counts a slice of what waits."""
        began, worked = self._clock(), self._worked()
        batch, rows = self._next()
        if not rows:
            return
        self._counter.add_rows(batch)
        seconds = self._worked() - worked
        self._done_rows += rows
        if seconds > 0 and rows >= _LEAST_SLICE:
            self._slice = int(min(_MOST_SLICE, max(_LEAST_SLICE, rows * SLICE_S / seconds)))
        self._busy_until = began + seconds / self._share

    def count_beside_work(self) -> bool:
        """Counts a slice although work waits, if it is due and little of the time has gone into that. True if so."""
        if self.waiting < self._gathered or self._clock() < self._busy_until:
            return False
        self.count()
        return True

    def take(self) -> Counts | None:
        """What was counted since the last time, once a second; None when nothing was even seen."""
        seen = self._seen
        since = seen - self._told
        if not since and not self._counter.rows:
            self._chance, self._expected = 1.0, 0.0
            return None
        counted, vector = self._counter.take()
        self._sample(seen - self._seen_before, counted)
        self._seen_before = seen
        # Rows that wait are told of as seen with the record that counts them, if that can be known.
        waiting = min(self.waiting, max(0, since - counted))
        self._told = seen - waiting
        return Counts(self.plan.digest, max(counted, since - waiting), counted, vector)

    def _sample(self, came: int, counted: int) -> None:
        """Sets the chance of each batch to come: if as much comes and is counted as did in the last second, so much
        waits after the next one as should. Where there is time for all, that makes it 1 again. More than there was time
        for is expected again, by half as much each second: bursts with pauses between them would each find room for
        how they begin."""
        if self._noted_rows:
            self._kept = max(2, min(_KEPT_ROWS, _KEPT_BYTES * self._noted_rows // max(1, self._noted_bytes)))
            self._gathered = min(GATHER_ROWS, self._kept // 2)
        wanted = counted + self._kept - self.waiting
        self._expected = max(came if wanted < came else 0.0, self._expected / 2)
        self._chance = 1.0 if wanted >= self._expected else max(0, wanted) / max(1.0, self._expected)

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


def _copied(rows: Array, indices: Array | None) -> Array:
    if indices is not None and indices[-1] < rows.shape[1]:
        return np.take(rows, indices, axis=1)
    return rows.copy()
