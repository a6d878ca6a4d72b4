"""A labels' file of which a page is no longer what was written, wherever that page is and whenever it is read."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.errors import NotFound, RecorderUnavailable, StoreUnavailable
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_OUTCOMES, ASK_REPORT
from gateway.telemetry.feedback.nouns import Bounds
from gateway.telemetry.feedback.opening import TRY_EVERY_S, TruthAtPath, truth_at
from tests.telemetry.feedback.stream import Case, cases, record, told

PAGE_BYTES = 4096
CASES = cases(110)
LABELLED, WAITING, LATER = CASES[:60], CASES[60:100], CASES[100:]


@pytest.mark.parametrize("at_work", [False, True], ids=["at a start", "at work"])
def test_a_damaged_page_ends_no_recorder_and_is_put_aside_once_it_stands_in_the_way(
    tmp_path: Path, at_work: bool
) -> None:
    """Whichever page it is: the part stands, one question at the most is refused, and labels join again."""
    whole = written(tmp_path / "labels.db").read_bytes()
    pages = len(whole) // PAGE_BYTES
    assert pages > 10
    aside = 0
    for page in range(1, pages):
        path = tmp_path / f"{page}" / "labels.db"
        path.parent.mkdir()
        path.write_bytes(whole)
        part = TruthAtPath(path, ManualClock(), Bounds()) if at_work else None
        damage(path, page)
        part = part or TruthAtPath(path, ManualClock(), Bounds())
        part.told("table", told())
        assert asked_all(part) <= 1, page
        part.tick()
        part.take([record(case) for case in LATER])
        assert joined(part, LATER) == {"joined"}, page
        aside += (path.parent / "labels.db.damaged").exists()
        part.close()
    assert aside > pages / 2


def test_answers_that_the_damaged_file_did_not_take_are_in_the_next(tmp_path: Path) -> None:
    """They wait in memory while it cannot be written to, and its place is taken."""
    path = written(tmp_path / "labels.db")
    part = TruthAtPath(path, ManualClock(), Bounds())
    part.told("table", told())
    for page in range(1, path.stat().st_size // PAGE_BYTES):
        damage(path, page)
    part.take([record(case) for case in LATER])
    assert (tmp_path / "labels.db.damaged").exists()
    assert joined(part, LATER) == {"joined"}
    part.close()


def test_a_damaged_file_that_cannot_be_put_aside_is_tried_again(tmp_path: Path) -> None:
    """Labels are refused with the reason until it can."""
    path, clock = written(tmp_path / "labels.db"), ManualClock()
    in_the_way = tmp_path / "labels.db.damaged"
    in_the_way.mkdir()
    for page in range(1, path.stat().st_size // PAGE_BYTES):
        damage(path, page)
    part = TruthAtPath(path, clock, Bounds())
    part.told("table", told())
    with pytest.raises(RecorderUnavailable, match="labels cannot be kept"):
        joined(part, LATER)
    in_the_way.rmdir()
    clock.advance(TRY_EVERY_S)
    part.tick()
    part.take([record(case) for case in LATER])
    assert joined(part, LATER) == {"joined"}
    part.close()


def test_a_report_of_a_damaged_file_says_so(tmp_path: Path) -> None:
    """``turnout truth`` on a home whose gateway is not running."""
    path = written(tmp_path / "labels.db")
    for page in range(1, path.stat().st_size // PAGE_BYTES):
        damage(path, page)
    with pytest.raises(RecorderUnavailable, match="cannot be read"):
        truth_at(path, "digits", 0)


def written(path: Path) -> Path:
    part = TruthAtPath(path, ManualClock(), Bounds())
    part.told("table", told())
    part.take([record(case) for case in [*LABELLED, *WAITING]])
    assert joined(part, LABELLED) == {"joined"}
    part.close()
    return path


def damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(random.Random(page).randbytes(PAGE_BYTES))


def joined(part: TruthAtPath, cases: list[Case]) -> set[str]:
    body = {"labels": [(case.id, case.label) for case in cases], "routes": None}
    return {str(verdict[0]) for verdict in part.ask(ASK_JOIN, body)["verdicts"]}


def asked_all(part: TruthAtPath) -> int:
    """How many questions were refused."""
    refused = 0
    for kind, body in (
        (ASK_REPORT, {"route": "digits", "days": 0}),
        (ASK_OUTCOMES, {"delivered": 0}),
        (ASK_JOIN, {"labels": [(case.id, case.label) for case in WAITING], "routes": None}),
    ):
        with contextlib.suppress(NotFound):
            try:
                part.ask(kind, body)
            except StoreUnavailable:
                refused += 1
    return refused
