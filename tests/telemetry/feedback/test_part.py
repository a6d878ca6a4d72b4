"""The truth's part: a recorder that is killed, a disk that is full, a clock that jumps, labels that do not fit."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.clock import ManualClock, SystemClock
from gateway.errors import Conflict, NotFound, StorageFull, StoreUnavailable
from gateway.events.records import Content
from gateway.routing.truth import Slice, Truth
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_OUTCOMES, ASK_SCORES
from gateway.telemetry.feedback.nouns import Bounds
from gateway.telemetry.feedback.opening import TRY_EVERY_S, TruthAtPath
from gateway.telemetry.feedback.part import TruthPart
from gateway.telemetry.feedback.reading import rows_of
from tests.telemetry.feedback.stream import (
    BINARY,
    FUTURE_MS,
    LATE_AFTER_S,
    NEW,
    NUMBERS,
    OLD,
    Case,
    cases,
    chunks,
    name,
    plainly,
    record,
    told,
)

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def part(tmp_path: Path, clock: ManualClock) -> Iterator[TruthPart]:
    made = TruthPart(tmp_path / "labels.db", clock)
    made.told("table", told())
    yield made
    made.close()


def join(part: TruthPart, *labels: tuple[str, Any], routes: Sequence[str] | None = None) -> list[str]:
    return [verdict[0] for verdict in part.ask(ASK_JOIN, {"labels": labels, "routes": routes})["verdicts"]]


def report(part: TruthPart, days: int = 0) -> Any:
    return part.report("digits", days)


def counted(part: TruthPart) -> dict[str, int]:
    found: dict[str, int] = report(part)["feedback"]
    return found


def values(measures: Any) -> dict[str, float]:
    return {key: one["value"] for key, one in measures.items() if key != "f1"}


def killed_in_the_middle(path: Path, count: int, orders: Sequence[str], after: int) -> None:
    """Sends all orders, and kills the process as soon as so many are done."""
    command = [sys.executable, "-m", "tests.telemetry.feedback.victim", str(path), str(count)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as victim:
        assert victim.stdin is not None
        assert victim.stdout is not None
        victim.stdin.write("".join(f"{order}\n" for order in orders))
        victim.stdin.flush()
        for _ in range(after):
            assert victim.stdout.readline() == "done\n"
        victim.kill()


def test_a_recorder_that_is_killed_in_the_middle_counts_each_label_once(tmp_path: Path) -> None:
    """``kill -9`` three times among answers and labels, all of them sent again each time: the sums are those of each
    label counted once, and what was acknowledged before the last kill was not lost."""
    count, path = 3000, tmp_path / "labels.db"
    spans = [(start, start + 100) for start in range(0, count, 100)]
    orders = [f"{verb} {start} {end}" for start, end in spans for verb in ("join", "take")]
    for after in (7, 23, 31):
        killed_in_the_middle(path, count, orders, after)
    part, stream = TruthPart(path, SystemClock()), cases(count, at_ms=FUTURE_MS)
    part.told("table", told())
    before = sum(version["arrival"]["labelled"] for version in report(part)["versions"].values())
    assert before >= 15 * 100
    for chunk in chunks(stream, 100):
        join(part, *((case.id, case.label) for case in chunk))
        part.take([record(case) for case in chunk])
    for number, version in report(part)["versions"].items():
        assert values(version["measures"]) == plainly(case for case in stream if str(case.version.number) == number)
    found = counted(part)
    assert found["early"] + found.get("joined", 0) == count
    part.close()


def test_what_is_owed_to_a_rollouts_evidence_is_owed_until_it_has_arrived(part: TruthPart) -> None:
    """Also over a restart; once for each key's answer; and never of a fallback's answer, or one that was kept."""
    wrong, right, *others = cases(5)
    part.take([record(wrong), record(right)])
    part.take([record(others[0], answered_by=NEW if others[0].version == OLD else OLD), record(others[1], batch=0)])
    labels = [(case.id, 1 - case.answer if case is wrong else case.answer) for case in (wrong, right, *others[:2])]
    join(part, *labels)
    join(part, *labels)
    owed = part.ask(ASK_OUTCOMES, {"delivered": 0})["outcomes"]
    assert [outcome[1:] for outcome in owed] == [
        [
            "digits",
            *wrong.version,
            wrong.place,
            4,
            "split",
            True,
            ["brier", (wrong.score - (1 - wrong.answer)) ** 2],
            0,
        ],
        ["digits", *right.version, right.place, 4, "split", False, ["brier", (right.score - right.answer) ** 2], 0],
    ]
    assert part.ask(ASK_OUTCOMES, {"delivered": 0})["outcomes"] == owed
    assert part.ask(ASK_OUTCOMES, {"delivered": owed[0][0]})["outcomes"] == owed[1:]
    assert part.ask(ASK_OUTCOMES, {"delivered": owed[1][0]})["outcomes"] == []


def test_a_label_ends_as_one_outcome(part: TruthPart, clock: ManualClock) -> None:
    """In time, late, before its answer, twice the same in whatever form, another one, of nobody, and too late."""
    one, two, early, never = cases(4)
    part.take([record(one), record(two)])
    assert join(part, (early.id, early.label)) == ["held"]
    assert join(part, (early.id, bool(early.label))) == ["duplicate"]
    assert join(part, (early.id, 1 - early.label)) == ["conflict"]
    part.take([record(early)])
    assert join(part, (one.id, 1), (one.id, 1.0), (one.id, "1"), (one.id, True), (one.id, [1])) == [
        "joined", "duplicate", "duplicate", "duplicate", "duplicate",
    ]  # fmt: skip
    assert join(part, (one.id, 0)) == ["conflict"]
    clock.advance(LATE_AFTER_S + 1)
    assert join(part, (two.id, 0)) == ["late"]
    part.take([record(never)])
    clock.advance(BINARY.horizon_s)
    assert join(part, (never.id, 1)) == ["expired"]
    part.tick()
    assert join(part, (never.id, 1)) == ["expired"]
    assert counted(part) == {
        "joined": 1, "late": 1, "early": 1, "duplicate": 5, "conflict": 2, "expired": 2,
    }  # fmt: skip


def test_a_label_that_does_not_fit_is_told_so_and_counts_nothing(part: TruthPart) -> None:
    """By what was expected and what came; a later one that fits joins all the same."""
    (case,) = cases(1)
    part.take([record(case)])
    for label in (None, 1.5, {"a": 1}, [1, 0], [], [None], [[1]]):
        (verdict,) = part.ask(ASK_JOIN, {"labels": [(case.id, label)], "routes": None})["verdicts"]
        assert verdict[0] == "rejected"
        assert verdict[1]
    assert join(part, (case.id, "another class")) == ["joined"]
    assert counted(part) == {"rejected": 7, "joined": 1}


def test_several_rows_have_a_label_each(part: TruthPart) -> None:
    """A list in the order of the rows; null for one that has none, and it stays without."""
    (case,) = cases(1)
    outputs = {"label": np.array([0, 1, 1]), "p": np.array([0.1, 0.8, 0.6], np.float32)}
    part.take([record(case, rows=3, content=Content({}, outputs))])
    (verdict,) = part.ask(ASK_JOIN, {"labels": [(case.id, 1)], "routes": None})["verdicts"]
    assert verdict == ["rejected", "a list of 3 labels, one for each row of the answer", "1"]
    assert join(part, (case.id, [0, None, 0])) == ["joined"]
    (version,) = report(part)["versions"].values()
    assert (version["arrival"]["rows"], version["arrival"]["labelled"]) == (3, 2)
    assert version["measures"]["accuracy"]["value"] == 0.5


def test_a_sender_that_is_bound_to_routes_labels_no_others(part: TruthPart) -> None:
    """Neither an answer that is there, nor, with a label that waits, one that comes."""
    one, two = cases(2)
    part.take([record(one)])
    assert join(part, (one.id, 1), routes=["letters"]) == ["forbidden"]
    assert join(part, (two.id, 1), routes=["letters"]) == ["held"]
    part.take([record(two)])
    assert counted(part) == {"unknown": 1}
    assert join(part, (one.id, 1), (two.id, 1), routes=["digits"]) == ["joined", "joined"]


def test_errors_of_numbers_are_exact_however_large_or_small(part: TruthPart) -> None:
    """Mean absolute error, its root mean square and bias over numbers of forty orders of magnitude."""
    part.told("table", told(NUMBERS))
    answers = [1e-20, 3.5, -2.25, 1e20, 0.1]
    labels = [2e-20, 3.0, -2.0, 1e20 - 32768, 0.3]
    stream = [case._replace(answer=answer, version=OLD) for case, answer in zip(cases(5), answers, strict=True)]
    part.take([record(case, NUMBERS) for case in stream])
    join(part, *((case.id, label) for case, label in zip(stream, labels, strict=True)))
    measures = report(part)["versions"]["1"]["measures"]
    errors = [Fraction(answer) - Fraction(label) for answer, label in zip(answers, labels, strict=True)]
    assert measures["mae"]["value"] == float(sum(map(abs, errors)) / 5)
    assert measures["bias"]["value"] == float(sum(errors) / 5)
    assert measures["rmse"]["value"] == sqrt(float(sum(error**2 for error in errors) / 5))
    owed = part.ask(ASK_OUTCOMES, {"delivered": 0})["outcomes"]
    assert [outcome[-3] for outcome in owed] == [False, False, False, True, False]
    assert [outcome[-2] for outcome in owed] == [["error", float(abs(error))] for error in errors]


def test_a_clock_that_jumps_ends_no_horizon(tmp_path: Path) -> None:
    """A wall clock that is set ahead or back while answers wait; and one that was set back over a restart."""
    clock = ManualClock()
    part = TruthPart(tmp_path / "labels.db", clock)
    part.told("table", told())
    one, two, three = cases(3)
    part.take([record(one), record(two)])
    clock.jump_wall(365 * 86400.0)
    part.tick()
    assert join(part, (one.id, 1)) == ["joined"]
    clock.jump_wall(-clock.wall() + 1.0)
    clock.advance(LATE_AFTER_S + 1)
    part.tick()
    part.close()
    part = TruthPart(tmp_path / "labels.db", clock)
    part.told("table", told())
    part.take([record(three)])
    assert join(part, (two.id, 0), (three.id, 0)) == ["late", "joined"]
    part.close()


def test_a_disk_that_is_full_refuses_labels_and_loses_none(tmp_path: Path, clock: ManualClock) -> None:
    """A label that cannot be kept is not acknowledged; answers wait in memory; with room, all is counted, once."""
    path = tmp_path / "labels.db"
    part = TruthPart(path, clock)
    part.told("table", told())
    stream = cases(400)
    part.take([record(case) for case in stream[:200]])
    connection = part._ledger._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    part.take([record(case) for case in stream[200:]])
    held = [(name(random.Random(seed)), "x" * 200) for seed in range(200)]
    with pytest.raises(StorageFull, match="disk is full"):
        join(part, *held, *((case.id, case.label) for case in stream))
    connection.execute("PRAGMA max_page_count = 1000000")
    assert set(join(part, *((case.id, case.label) for case in stream))) == {"joined"}
    found = report(part)["versions"]
    assert sum(version["arrival"]["labelled"] for version in found.values()) == 400
    for number, version in found.items():
        assert values(version["measures"]) == plainly(case for case in stream if str(case.version.number) == number)
    part.close()


def test_a_file_that_is_damaged_is_put_aside(tmp_path: Path, clock: ManualClock) -> None:
    """The recorder lives on and keeps what comes from now on; the damaged file stays for who wants to look."""
    path = tmp_path / "labels.db"
    path.write_bytes(b"no database at all" * 1000)
    part = TruthPart(path, clock)
    part.told("table", told())
    (case,) = cases(1)
    part.take([record(case)])
    assert join(part, (case.id, 1)) == ["joined"]
    assert (tmp_path / "labels.db.damaged").exists()
    part.close()


def test_a_file_of_a_newer_program_is_left_alone(tmp_path: Path, clock: ManualClock) -> None:
    """It may hold what this one would destroy."""
    path = tmp_path / "labels.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnavailable, match="newer"):
        TruthPart(path, clock)


def test_what_waits_is_bounded(tmp_path: Path, clock: ManualClock) -> None:
    """Answers that are too many go before their time, and it is counted; labels of unknown answers are refused."""
    part = TruthPart(tmp_path / "labels.db", clock, Bounds(answers=50, held=3))
    part.told("table", told())
    stream = cases(80)
    part.take([record(case) for case in stream])
    part.tick()
    draw = random.Random(5)
    assert join(part, *((name(draw), 1) for _ in range(5))) == ["held"] * 3 + ["full"] * 2
    assert report(part)["standing"] == {"answers": 50, "held": 3, "unusable": 0, "lost": 30}
    part.close()


def test_slices_and_classes_have_a_bound(part: TruthPart) -> None:
    """Fifty groups of a slice and two hundred classes; the rest together, and sums over all stay exact."""
    truth = Truth("classification", "label", slices=(Slice("country", "country"),))
    part.told("table", told(truth))
    stream = [case._replace(country=f"c{number}", version=OLD) for number, case in enumerate(cases(300))]
    part.take([record(case, truth) for case in stream])
    join(part, *((case.id, f"class {number}") for number, case in enumerate(stream)))
    version = report(part)["versions"]["1"]
    groups = version["slices"]["country"]["groups"]
    assert (len(groups), groups["(other)"]["arrival"]["rows"]) == (51, 250)
    assert len(version["classes"]) == 201
    assert version["measures"]["accuracy"]["value"] == 0.0


def test_outputs_that_say_nothing_are_counted_and_harm_nobody(part: TruthPart) -> None:
    """Missing, of another shape, not a number; a failed request; a route without a truth; an answer without content."""
    one, *rest = cases(8)
    strange: list[dict[str, Any]] = [
        {"content": Content({}, {"other": np.array([1])})},
        {"content": Content({}, {"label": np.array([[1, 2], [3, 4]])})},
        {"content": Content({}, {"label": np.array([[np.nan, 1.0]], np.float32)})},
        {"code": 500},
        {"route": "letters"},
        {"content": None},
        {"answered_by": None},
    ]
    part.take([record(case, **changes) for case, changes in zip(rest, strange, strict=True)])
    part.take([record(one)])
    assert report(part)["standing"] == {"answers": 1, "held": 0, "unusable": 4, "lost": 0}


@pytest.mark.parametrize(
    ("truth", "outputs", "answers", "scores"),
    [
        (Truth("classification", "p", positive="1"), {"p": [[0.2], [0.7]]}, ["0", "1"], [0.2, 0.7]),
        (Truth("classification", "p", positive="yes", threshold=0.8), {"p": [0.2, 0.7]}, ["not yes"] * 2, [0.2, 0.7]),
        (Truth("classification", "p", classes=("a", "b")), {"p": [[0.2, 0.8], [0.7, 0.3]]}, ["b", "a"], [0.8, 0.7]),
        (Truth("classification", "p", positive="0"), {"p": [[0.2, 0.8], [0.7, 0.3]]}, ["1", "0"], [0.2, 0.7]),
        (Truth("classification", "y", score="p"), {"y": [1, 0], "p": [[0.2, 0.8], [0.7, 0.3]]}, ["1", "0"], [0.8, 0.7]),
        (Truth("classification", "y"), {"y": [True, False]}, ["1", "0"], [None, None]),
        (Truth("classification", "y"), {"y": np.array([b"cat", b"dog"], object)}, ["cat", "dog"], [None, None]),
        (Truth("classification", "y"), {"y": [1.0, 2.0]}, ["1", "2"], [1.0, 2.0]),
    ],
)
def test_answers_are_read_from_whatever_output_holds_them(
    truth: Truth, outputs: dict[str, Any], answers: list[str], scores: list[float | None]
) -> None:
    """Classes, scores of all classes, a score of the positive one alone; as numbers, text or yes and no."""
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    rows = rows_of(Content({}, arrays), truth, 2)
    assert [row.answer for row in rows] == answers
    assert [row.score for row in rows] == scores


def test_labels_of_nothing_are_refused_where_no_route_asks_for_any(tmp_path: Path, clock: ManualClock) -> None:
    """Rather than held for a week; and a report of a route without a truth is not found."""
    part = TruthPart(tmp_path / "labels.db", clock)
    with pytest.raises(Conflict, match="truth"):
        join(part, ("x", 1))
    with pytest.raises(NotFound, match="digits"):
        report(part)
    with pytest.raises(KeyError):
        part.ask("weather", {})
    part.close()


def test_scores_for_metrics_come_when_something_has_changed(part: TruthPart) -> None:
    """By version, with gaps of slices and estimates; and nothing when nothing has."""
    stream = cases(600)
    part.take([record(case) for case in stream])
    join(part, *((case.id, case.label) for case in stream))
    found = part.ask(ASK_SCORES, {"seen": -1})
    (old, _) = sorted(found["scores"], key=lambda one: int(one["version"]))
    mine: list[Case] = [case for case in stream if case.version == OLD]
    assert old["scores"]["accuracy"] == plainly(mine)["accuracy"]
    assert {"accuracy_gap:country", "recall_gap:age", "accuracy_estimated"} <= old["scores"].keys()
    assert part.ask(ASK_SCORES, {"seen": found["changes"]}) == {"changes": found["changes"]}


def test_a_file_that_cannot_be_opened_holds_nobody_up_and_is_tried_again(tmp_path: Path, clock: ManualClock) -> None:
    """Labels are refused with the reason; once it opens, what was told meanwhile is in force."""
    path = tmp_path / "home" / "labels.db"
    path.parent.write_text("in the way", encoding="utf-8")
    part = TruthAtPath(path, clock, Bounds())
    part.told("table", told())
    one, two = cases(2)
    part.take([record(one)])
    part.tick()
    with pytest.raises(StoreUnavailable, match="labels cannot be kept"):
        part.ask(ASK_JOIN, {"labels": [(one.id, 1)], "routes": None})
    with pytest.raises(KeyError):
        part.ask("weather", {})
    path.parent.unlink()
    clock.advance(TRY_EVERY_S)
    part.tick()
    part.take([record(two)])
    answer = part.ask(ASK_JOIN, {"labels": [(one.id, 1), (two.id, 1)], "routes": None})
    assert [verdict[0] for verdict in answer["verdicts"]] == ["held", "joined"]
    part.close()


def test_sums_are_kept_for_their_days_and_reports_look_back_as_far_as_asked(tmp_path: Path, clock: ManualClock) -> None:
    """By the day of the answer; what is older than is kept is gone, and a report of a day has that day's alone."""
    part = TruthPart(tmp_path / "labels.db", clock, Bounds(days=3))
    part.told("table", told())
    for day in range(6):
        some = cases(10, seed=day)
        part.take([record(case, answered_by=OLD) for case in some])
        join(part, *((case.id, case.label) for case in some))
        part.tick()
        clock.advance(86_400.0)
    rows = [report(part, days)["versions"]["1"]["arrival"]["labelled"] for days in (2, 3, 0)]
    assert rows == [10, 20, 40]
    part.close()


def test_nobody_else_on_the_machine_reads_what_was_answered(tmp_path: Path, clock: ManualClock) -> None:
    """The files that SQLite keeps beside its own hold the newest answers, and have its mode from the first moment."""
    part = TruthPart(tmp_path / "labels.db", clock)
    part.told("table", told())
    part.take([record(case) for case in cases(10)])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    part.close()
    assert modes == dict.fromkeys(("labels.db", "labels.db-wal", "labels.db-shm"), 0o600)
