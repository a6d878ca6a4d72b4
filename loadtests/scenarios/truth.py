"""What the truth costs the recorder's process: an answer that is kept, a label that joins it, a report."""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.clock import SystemClock
from gateway.events.records import Content, RequestRecord
from gateway.messages import Decision, VersionRef
from gateway.routing.truth import Slice, Truth
from gateway.telemetry.feedback.asks import ASK_JOIN
from gateway.telemetry.feedback.part import TruthPart
from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan

__all__ = ["truth"]

_ANSWERS = 20_000
_BURST, _LABELS = 256, 500
_CASES = {
    "a class": Truth("classification", "label"),
    "a class and its score": Truth("classification", "label", score="p", positive="1"),
    "a class, its score, two slices": Truth(
        "classification", "label", score="p", positive="1", slices=(Slice("one", "one"), Slice("two", "two"))
    ),
}


def truth(plan: Plan) -> Outcome:
    work = "truth: 20,000 answers and their labels (processor time)"
    figures, rows = [], []
    for name, how in _CASES.items():
        runs = [_run(how) for _ in range(plan.rounds)]
        kept, joined, report = (tuple(run[place] for run in runs) for place in range(3))
        figures.append(Figure(work, f"{name}: kept, an answer", kept, "µs", 120.0, 60.0))
        figures.append(Figure(work, f"{name}: joined, a label", joined, "µs", 160.0, 80.0))
        rows.append((name, f"{min(kept):.3g}", f"{min(joined):.3g}", f"{min(report):.3g}"))
    head = ("of an answer", "kept, µs", "joined, µs", "report, ms")
    return Outcome(tuple(figures), (Table("What the truth costs", head, tuple(rows)),))


def _run(how: Truth) -> tuple[float, float, float]:
    draw = random.Random(1)
    records = [_record(draw) for _ in range(_ANSWERS)]
    labels = [[record.decision_id, draw.randrange(2)] for record in records]
    draw.shuffle(labels)
    with tempfile.TemporaryDirectory() as folder:
        part = TruthPart(Path(folder) / "labels.db", SystemClock())
        part.told("table", {"routes": {"digits": {"truth": how.to_json()}}})
        kept = _seconds(records, _BURST, part.take)
        joined = _seconds(labels, _LABELS, lambda some: part.ask(ASK_JOIN, {"labels": some, "routes": None}))
        report = _seconds([None], 1, lambda _: part.report("digits", 0))
        part.close()
    return kept * 1e6 / _ANSWERS, joined * 1e6 / _ANSWERS, report * 1e3


def _record(draw: random.Random) -> RequestRecord:
    score, version = draw.random(), VersionRef("digits", draw.randrange(1, 3))
    outputs = {"label": np.array([int(score > 0.5)]), "p": np.array([score], np.float32)}
    context = {"one": draw.choice("abc"), "two": draw.choice("defgh")}
    name = str(uuid.UUID(int=int(time.time() * 1000) << 80 | 7 << 76 | 2 << 62 | draw.getrandbits(62)))
    decision = Decision("digits", version, "split", draw.getrandbits(32), 1, 1)
    return RequestRecord(
        "digits", "r", name, decision, version, 200, None, None, 1, 0.0, 0.01,
        batch=1, content=Content({}, outputs, context=context),
    )  # fmt: skip


def _seconds(items: Sequence[Any], size: int, work: Callable[[Sequence[Any]], object]) -> float:
    began = time.process_time()
    for start in range(0, len(items), size):
        work(items[start : start + size])
    return time.process_time() - began
