"""A made-up stream of answers and labels, the same for a seed; and what it amounts to, computed the plain way."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from gateway.events.records import Content, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.routing.truth import Slice, Truth

OLD, NEW = VersionRef("digits", 1), VersionRef("digits", 2)
LATE_AFTER_S = 3600.0
FUTURE_MS = 1_900_000_000_000
"""Of decisions that no clock here takes for old."""
BINARY = Truth(
    task="classification",
    output="label",
    score="p",
    positive="1",
    slices=(Slice("country", "country"), Slice("age", "age", of_input=True, edges=(30.0, 50.0))),
    late_after_s=LATE_AFTER_S,
    horizon_s=7 * 86400.0,
)
NUMBERS = Truth(task="regression", output="y", wrong_above=1.0, late_after_s=LATE_AFTER_S)


class Case(NamedTuple):
    """One answer of one row, and its truth."""

    id: str
    version: VersionRef
    place: int
    answer: float
    score: float
    country: str
    age: float
    label: float


def cases(count: int, seed: int = 1, at_ms: int = 1_700_000_000_000) -> list[Case]:
    draw = random.Random(seed)
    found = []
    for number in range(count):
        version = NEW if draw.random() < 0.3 else OLD
        score = float(np.float32(draw.random()))
        label = int(draw.random() < score * (0.9 if version == NEW else 1.0))
        age, country = draw.uniform(18.0, 80.0), draw.choice(["at", "de", "ch"])
        found.append(Case(name(draw, at_ms), version, number << 8, int(score >= 0.5), score, country, age, label))
    return found


def name(draw: random.Random, at_ms: int = 1_700_000_000_000) -> str:
    bits = at_ms << 80 | 0x7 << 76 | draw.getrandbits(12) << 64 | 0b10 << 62 | draw.getrandbits(62)
    return str(uuid.UUID(int=bits))


def record(case: Case, truth: Truth = BINARY, **changes: Any) -> RequestRecord:
    outputs = {
        "label": np.array([int(case.answer > 0.5)], np.int64),
        "p": np.array([case.score], np.float32),
        "y": np.array([case.answer], np.float64),
    }
    inputs = {"age": np.array([[case.age]], np.float64)}
    settled: dict[str, Any] = {
        "route": "digits",
        "request_id": "r",
        "decision_id": case.id,
        "decision": Decision("digits", case.version, "split", case.place, 1, 4),
        "answered_by": case.version,
        "code": 200,
        "chosen_failure": None,
        "error": None,
        "rows": 1,
        "started_wall": 0.0,
        "duration_s": 0.01,
        "batch": 1,
        "content": Content(inputs, {name: outputs[name] for name in truth.outputs}, context={"country": case.country}),
    }
    return RequestRecord(**{**settled, **changes})


def told(truth: Truth = BINARY, *, route: str = "digits") -> dict[str, Any]:
    return {"revision": 1, "routes": {route: {"truth": truth.to_json()}}}


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


UNIT = 1 << 60
"""Scores of 32 bits are whole multiples of one over it, as long as they are above a 2^-36th."""


def plainly(labelled: Iterable[Case]) -> dict[str, float]:
    """The usual definitions, in whole numbers."""
    rows = list(labelled)
    scores = [int(case.score * UNIT) for case in rows]
    labels = [int(case.label) for case in rows]
    right = sum(case.answer == case.label for case in rows)
    both = sum(case.answer == case.label == 1 for case in rows)
    answered, support = sum(case.answer == 1 for case in rows), sum(labels)
    squares = sum((score - label * UNIT) ** 2 for score, label in zip(scores, labels, strict=True))
    return {
        "accuracy": float(Fraction(right, len(rows))),
        "precision": float(Fraction(both, answered)),
        "recall": float(Fraction(both, support)),
        "positive_rate": float(Fraction(answered, len(rows))),
        "brier": float(Fraction(squares, UNIT * UNIT * len(rows))),
        "ece": _calibration_error(scores, labels),
        "auc": _area(rows),
    }


def _calibration_error(scores: Sequence[int], labels: Sequence[int]) -> float:
    """By bin, the mean score less the share of events, in the bin's share of the rows."""
    bins: dict[int, list[int]] = {}
    for score, label in zip(scores, labels, strict=True):
        found = bins.setdefault(20 * score // UNIT, [0, 0, 0])
        found[:] = found[0] + 1, found[1] + score, found[2] + label
    parts = (
        Fraction(n, len(scores)) * abs(Fraction(total, n * UNIT) - Fraction(k, n)) for n, total, k in bins.values()
    )
    return float(sum(parts))


def _area(rows: Sequence[Case]) -> float:
    """Of scores as they are told apart: in 256 steps."""
    steps = {side: [int(case.score * 256) for case in rows if case.label == side] for side in (0, 1)}
    none = np.bincount(steps[0], minlength=256)
    below = np.concatenate([[0], np.cumsum(none)[:-1]])
    twice = int((2 * below + none)[steps[1]].sum())
    return twice / (2 * len(steps[0]) * len(steps[1]))
