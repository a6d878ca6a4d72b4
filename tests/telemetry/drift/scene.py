"""Profiles, counts and looks for tests of drift: made by the code that makes them in earnest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.judging import Finding, Policy, State, judge
from gateway.telemetry.drift.sizes import AgainstReference
from gateway.telemetry.drift.starts import START_S, Starts
from runtimes.counting import Plan
from runtimes.counting_profile import Profile, Reckoning
from runtimes.counting_rows import Counter, flattened
from runtimes.counting_sketch import Sketch
from runtimes.signature import Signature, TensorSpec

Rows = np.ndarray[Any, Any]


def body_of(inputs: Mapping[str, Rows], outputs: Mapping[str, Rows] | None = None) -> dict[str, Any]:
    """A profile's JSON. Tensors are rows of numbers, or of byte strings."""
    given, answered = dict(inputs), dict(outputs or {})
    sketch = Sketch(Signature(tuple(map(_spec, given.items())), tuple(map(_spec, answered.items()))))
    tensors = flattened(given, answered)
    sketch.add(tensors)
    reckoning = Reckoning(sketch.frozen(), sketch.rows)
    reckoning.add(tensors)
    return reckoning.finished()


def _spec(named: tuple[str, Rows]) -> TensorSpec:
    name, rows = named
    datatype = {"O": "BYTES", "S": "BYTES", "i": "INT64"}.get(rows.dtype.kind, "FP64")
    return TensorSpec(name, datatype, (-1, *rows.shape[1:]))


def reference_of(inputs: Mapping[str, Rows], outputs: Mapping[str, Rows] | None = None) -> Reference:
    profile = Profile.from_json(body_of(inputs, outputs))
    return Reference.of(profile.plan, profile.reference, tuple(counts for _, counts in profile.segments))


def counted(plan: Plan, inputs: Mapping[str, Rows], outputs: Mapping[str, Rows] | None = None) -> np.ndarray:
    counter = Counter(plan)
    rows = len(next(iter(inputs.values())))
    if not counter.add(dict(inputs), dict(outputs or {}), rows):
        raise ValueError("the tensors do not fit the plan")
    return counter.take()[1]


@dataclass
class Watched:
    """One version that is looked at every ten minutes."""

    reference: Reference
    policy: Policy
    state: State = field(init=False)
    total: np.ndarray = field(init=False)
    at: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.total = np.zeros(self.reference.plan.size, np.int64)
        self.state = State(Starts.begin(self.total, self.at))

    def look(self, counts: np.ndarray) -> Finding:
        self.total = self.total + counts
        self.at += START_S
        self.state, finding = judge(self.state, AgainstReference(self.reference), self.total, self.at, self.policy)
        self.findings.append(finding)
        return finding

    def until_raised(self, streams: Sequence[np.ndarray]) -> tuple[int, tuple[str, ...]] | None:
        """After how many looks, and for what, the first alarm came."""
        for number, counts in enumerate(streams, 1):
            if raised := self.look(counts).raised:
                return number, raised
        return None
