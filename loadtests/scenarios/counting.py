"""What counting for drift costs a row: copied as its batch ends, counted later; and the reference's profile."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan
from runtimes.base import Array
from runtimes.counting_buffer import Buffer
from runtimes.counting_profile import Profile, Reckoning
from runtimes.counting_rows import Counter, flattened
from runtimes.counting_sketch import Sketch
from runtimes.signature import Signature, TensorSpec

__all__ = ["counting"]

_CLASSES = 3
_BATCH = 8
_CASES = {4: (20_000, 2, 1), 50: (20_000, 5, 2), 784: (2000, 25, 12), 150_000: (200, 60, 30)}
"""By features of a row: rows, and what a row must and should cost at most, in microseconds of the processor."""


def counting(plan: Plan) -> Outcome:
    work = "drift: counting every row (processor time)"
    figures, rows = [], []
    for width, (count, must, aim) in _CASES.items():
        case = _Case(width, count)
        copies = tuple(case.microseconds(case.note) for _ in range(plan.rounds))
        counts = tuple(case.microseconds(case.count) for _ in range(plan.rounds))
        both = tuple(copied + counted for copied, counted in zip(copies, counts, strict=True))
        figures.append(Figure(work, f"{width:,} features, a row", both, "µs", must, aim))
        vector_kb = case.profile.plan.size * 8 / 1000
        told = (min(copies), min(counts), vector_kb, case.profile_s * 1e6 / count)
        rows.append((f"{width:,}", *(f"{number:.3g}" for number in told)))
    head = (
        "features",
        f"copied before the answer, µs a row (batches of {_BATCH})",
        "counted later, µs a row",
        "integers told, kB a second at most",
        "profile at registration, µs a row",
    )
    return Outcome(tuple(figures), (Table("What counting is made of", head, tuple(rows)),))


class _Case:
    def __init__(self, width: int, count: int) -> None:
        random = np.random.default_rng(1)
        self._inputs = {"x": random.standard_normal((count, width), np.float32)}
        self._outputs = {"p": random.dirichlet(np.ones(_CLASSES), count).astype(np.float32)}
        self._rows = count
        tensors = flattened(self._inputs, self._outputs)
        began = time.process_time()
        specs = TensorSpec("x", "FP32", ("batch", width)), TensorSpec("p", "FP32", ("batch", _CLASSES))
        sketch = Sketch(Signature(specs[:1], specs[1:]))
        sketch.add(tensors)
        reckoning = Reckoning(sketch.frozen(), count)
        reckoning.add(tensors)
        self.profile = Profile.from_json(reckoning.finished())
        self.profile_s = time.process_time() - began

    def microseconds(self, work: Callable[[], float]) -> float:
        """Of the processor, for one row: the best of three, since other processes take their share of its caches."""
        return min(work() for _ in range(3)) * 1e6 / self._rows

    def note(self) -> float:
        seconds = 0.0
        for start in range(0, self._rows, 4096):
            buffer = Buffer(self.profile.plan)
            end = min(self._rows, start + 4096)
            batches = [(self._cut(at), min(_BATCH, end - at)) for at in range(start, end, _BATCH)]
            began = time.process_time()
            for (inputs, outputs), count in batches:
                buffer.note(inputs, outputs, count)
            seconds += time.process_time() - began
        return seconds

    def count(self) -> float:
        counter = Counter(self.profile.plan)
        tensors = flattened(self._inputs, self._outputs)
        for place, picked in counter.picks.items():
            tensors[place] = np.ascontiguousarray(tensors[place][:, picked])
        began = time.process_time()
        counter.add_rows(tensors)
        return time.process_time() - began

    def _cut(self, at: int) -> tuple[dict[str, Array], dict[str, Array]]:
        return (
            {name: array[at : at + _BATCH] for name, array in self._inputs.items()},
            {name: array[at : at + _BATCH] for name, array in self._outputs.items()},
        )
