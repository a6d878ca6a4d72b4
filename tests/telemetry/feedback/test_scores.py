"""What labels make a number of, for the judge of a rollout: errors, chances, grades; and what is shown of grades."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.events.records import Content
from gateway.routing.truth import Slice, Truth
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_OUTCOMES, ASK_SCORES
from gateway.telemetry.feedback.part import TruthPart
from tests.telemetry.feedback.stream import NEW, OLD, cases, record, told

GRADES = Truth("grade", "", slices=(Slice("country", "country"),))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def part(tmp_path: Path, clock: ManualClock) -> Iterator[TruthPart]:
    made = TruthPart(tmp_path / "labels.db", clock)
    yield made
    made.close()


def join(part: TruthPart, *labels: tuple[str, Any]) -> list[str]:
    return [verdict[0] for verdict in part.ask(ASK_JOIN, {"labels": labels, "routes": None})["verdicts"]]


def owed(part: TruthPart) -> list[tuple[Any, Any]]:
    """Whether it was wrong, and its score, of each."""
    return [tuple(one[-3:-1]) for one in part.ask(ASK_OUTCOMES, {"delivered": 0})["outcomes"]]


def test_an_answer_of_several_rows_is_one_score(part: TruthPart) -> None:
    """The mean over its labelled rows: a key is one unit of evidence, however much it asks at once."""
    part.told("table", told(Truth("regression", "y")))
    (case,) = cases(1)
    outputs = {"y": np.array([1.0, 2.0, 3.0, 4.0])}
    part.take([record(case, Truth("regression", "y"), rows=4, content=Content({}, outputs))])
    assert join(part, (case.id, [2.0, None, 0.0, 4.5])) == ["joined"]
    assert owed(part) == [(None, ["error", 1.5])]


def test_an_answer_without_scores_is_right_or_wrong_and_no_number(part: TruthPart) -> None:
    """Of a classification that says no chances; with a slice that tells nothing of them either."""
    plain = Truth("classification", "label")
    part.told("table", told(plain))
    (case,) = cases(1)
    part.take([record(case, plain)])
    assert join(part, (case.id, case.answer)) == ["joined"]
    assert owed(part) == [(False, None)]


def test_grades_are_what_labels_say_and_need_no_output(part: TruthPart, clock: ManualClock) -> None:
    """Their mean with its interval, by version and group; late, twice, of nobody and unfit as any label."""
    part.told("table", told(GRADES))
    stream = [case._replace(version=(OLD, NEW)[number % 2]) for number, case in enumerate(cases(60))]
    part.take([record(case, GRADES) for case in stream])
    grades = {case.id: (4.5 if case.version == OLD else 2.0) + (number % 3) / 2 for number, case in enumerate(stream)}
    assert set(join(part, *grades.items())) == {"joined"}
    (first, grade), *_ = grades.items()
    assert join(part, (first, grade), (first, grade - 1), ("nobody", 3)) == ["duplicate", "conflict", "held"]
    part.take([record(cases(1, seed=9)[0], GRADES)])
    assert join(part, (cases(1, seed=9)[0].id, "good")) == ["rejected"]
    assert owed(part) == [(None, ["grade", value]) for value in grades.values()]
    old, new = (part.report("digits", 0)["versions"][number] for number in ("1", "2"))
    values = [value for case, value in zip(stream, grades.values(), strict=True) if case.version == OLD]
    shown = old["measures"]["grade"]
    assert shown["value"] == sum(values) / len(values)
    assert new["measures"]["grade"]["high"] < shown["low"] < shown["value"] < shown["high"]
    assert old["slices"]["country"]["groups"].keys() == {"at", "de", "ch"}
    assert "estimate" not in old
    scores = part.ask(ASK_SCORES, {"seen": -1})["scores"]
    assert {one["version"]: one["scores"]["grade"] for one in scores}[1] == shown["value"]


def test_what_the_release_before_owed_is_told_and_its_file_goes_on(tmp_path: Path, clock: ManualClock) -> None:
    """Labels that it had not told of yet have no score and no time; and it reads and writes the file that is left."""
    path = tmp_path / "labels.db"
    TruthPart(path, clock).close()
    connection = sqlite3.connect(path)
    connection.execute("ALTER TABLE outcomes DROP COLUMN score")
    connection.execute("ALTER TABLE outcomes DROP COLUMN given")
    before = '["digits", "digits", 1, 7, 4, "split", true]'
    connection.execute("INSERT INTO outcomes (body) VALUES (?)", (before,))
    connection.commit()
    part = TruthPart(path, clock)
    (told_of,) = part.ask(ASK_OUTCOMES, {"delivered": 0})["outcomes"]
    assert told_of[1:] == ["digits", "digits", 1, 7, 4, "split", True, None, None]
    part.close()
    connection.execute("INSERT INTO outcomes (body) VALUES (?)", (before,))
    assert len(connection.execute("SELECT number, body FROM outcomes").fetchall()) == 2
    connection.close()
