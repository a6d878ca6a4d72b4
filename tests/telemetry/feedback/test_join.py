"""The join over a whole stream: shuffled, late, doubled and unknown labels, and what the sums come to."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_REPORT
from gateway.telemetry.feedback.part import TruthPart
from tests.telemetry.feedback.stream import BINARY, LATE_AFTER_S, cases, chunks, name, plainly, record, told

ANSWERS = 100_000


def joined(part: TruthPart, labels: list[tuple[str, Any]], size: int = 2000) -> list[str]:
    found = []
    for chunk in chunks(labels, size):
        found += [verdict[0] for verdict in part.ask(ASK_JOIN, {"labels": chunk, "routes": None})["verdicts"]]
    return found


def values(measures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {key: one["value"] for key, one in measures.items() if key != "f1"}


def test_a_hundred_thousand_answers_and_their_labels_come_to_what_they_come_to_offline(tmp_path: Path) -> None:
    """Labels shuffled, 20% late, 1% doubled, 1% of unknown answers, some before their answers: every measure of every
    version and slice equals the one computed the plain way over fractions, to the last digit, and every label counts as
    exactly one outcome."""
    clock = ManualClock()
    part = TruthPart(tmp_path / "labels.db", clock)
    part.told("table", told())
    stream = cases(ANSWERS)
    draw = random.Random(2)
    shuffled = draw.sample(stream, len(stream))
    early, late = shuffled[:1000], shuffled[-ANSWERS // 5 :]
    doubled = draw.sample(stream, ANSWERS // 100)
    unknown = [(name(draw), 1) for _ in range(ANSWERS // 100)]

    assert set(joined(part, [(case.id, case.label) for case in early])) == {"held"}
    for chunk in chunks(stream, 256):
        part.take([record(case) for case in chunk])
    clock.advance(60.0)
    prompt = [(case.id, case.label) for case in shuffled[1000 : -ANSWERS // 5]] + unknown
    draw.shuffle(prompt)
    verdicts = joined(part, prompt)
    assert (verdicts.count("joined"), verdicts.count("held")) == (ANSWERS - len(late) - 1000, len(unknown))
    clock.advance(LATE_AFTER_S)
    verdicts = joined(part, [(case.id, case.label) for case in [*late, *doubled]])
    assert (verdicts.count("late"), verdicts.count("duplicate")) == (len(late), len(doubled))

    report = part.ask(ASK_REPORT, {"route": "digits", "days": 0})
    for number, version in report["versions"].items():
        mine = [case for case in stream if str(case.version.number) == number]
        assert values(version["measures"]) == plainly(mine)
        assert version["arrival"]["share"] == 1.0
        for country, group in version["slices"]["country"]["groups"].items():
            assert values(group["measures"]) == plainly(case for case in mine if case.country == country)
        older = version["slices"]["age"]["groups"][">= 50"]
        assert values(older["measures"]) == plainly(case for case in mine if case.age >= 50.0)
    clock.advance(BINARY.horizon_s)
    for _ in range(ANSWERS // 5000 + 2):  # a tick ends some of it, so that it delays nobody
        part.tick()
    assert part.ask(ASK_REPORT, {"route": "digits", "days": 0})["feedback"] == {
        "joined": ANSWERS - len(late) - len(early),
        "late": len(late),
        "early": len(early),
        "duplicate": len(doubled),
        "unknown": len(unknown),
    }
    part.close()
