"""Looks at months of sums, a slice at a time: the same to the last digit, and nobody waits for them."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.messages import VersionRef
from gateway.telemetry.feedback.asks import ASK_JOIN, ASK_REPORT, ASK_SCORES
from gateway.telemetry.feedback.desk import LOOK_S, TruthDesk
from gateway.telemetry.feedback.looks import SLICE_S
from gateway.telemetry.feedback.part import TruthPart
from tests.telemetry.feedback.stream import Case, cases, record, told

DAY_S = 86_400.0
STREAM = cases(600)


class Hasty(ManualClock):
    """Once it is in haste, a slice is over after its first step."""

    haste = False

    def monotonic(self) -> float:
        if self.haste:
            self.advance(SLICE_S)
        return super().monotonic()


def part_of(path: Path, clock: ManualClock, stream: Sequence[Case], days: int, late: random.Random) -> TruthPart:
    """Answers over so many days; labels come at once, a day or two later, or never."""
    part = TruthPart(path, clock)
    part.told("table", told())
    waiting: list[tuple[int, Case]] = []
    for day in range(days):
        today = stream[day::days]
        part.take([record(case) for case in today])
        waiting += [(day + late.choice([0, 0, 1, 2, days]), case) for case in today]
        join(part, [case for when, case in waiting if when == day])
        clock.advance(DAY_S)
    return part


def join(part: TruthPart, stream: Sequence[Case]) -> None:
    part.ask(ASK_JOIN, {"labels": [[case.id, case.label] for case in stream], "routes": None})


def in_slices(part: TruthPart, kind: str, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """What it comes to, and how often it was asked."""
    said, asks = part.ask(kind, body), 1
    while "look" in said or "going_on" in said:
        said, asks = part.ask(kind, {**body, **said}), asks + 1
    return said, asks


@settings(max_examples=15, deadline=None)
@given(days=st.integers(1, 12), asked=st.integers(0, 12), seed=st.integers(0, 2**32))
def test_a_look_in_slices_says_what_one_at_once_says(
    days: int, asked: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """To the last digit, of any days, however labels came; and no slice adds up more than a group of a day."""
    clock = Hasty()
    part = part_of(tmp_path_factory.mktemp("labels") / "labels.db", clock, STREAM, days, random.Random(seed))
    whole, scores = part.report("digits", asked), part.ask(ASK_SCORES, {"seen": -1})
    assert "scores" in scores
    clock.haste = True
    said, asks = in_slices(part, ASK_REPORT, {"route": "digits", "days": asked, "look": None})
    assert said == whole
    assert asks > 2 * (min(asked, days) or days) - 2
    said, asks = in_slices(part, ASK_SCORES, {"seen": -1})
    assert said == scores
    (groups,) = part._ledger._connection.execute("SELECT count(*) FROM sums").fetchone()
    assert asks > groups > 2 * days
    part.close()


def test_a_label_that_comes_meanwhile_counts_in_all_groups_or_in_none(tmp_path: Path) -> None:
    """Of a day that was read already in none; and the next look has it."""
    clock = Hasty()
    part = part_of(tmp_path / "labels.db", clock, STREAM[:-10], 6, random.Random(1))
    part.take([record(case) for case in STREAM[-10:]])
    clock.haste = True
    asked: dict[str, Any] = {"route": "digits", "days": 0, "look": None}
    for case in STREAM[-10:]:
        for _ in range(6):
            asked |= part.ask(ASK_REPORT, asked)
            assert "going_on" in part.ask(ASK_SCORES, {"seen": -1})
        join(part, [case])
    (said, _), (report, _) = in_slices(part, ASK_SCORES, {"seen": -1}), in_slices(part, ASK_REPORT, asked)
    for version in report["versions"].values():
        groups = version["slices"]["country"]["groups"].values()
        for name in ("rows", "labelled"):
            assert sum(group["arrival"][name] for group in groups) == version["arrival"][name]
    later, _ = in_slices(part, ASK_SCORES, {"seen": said["changes"]})
    assert sum(one["labelled"] for one in later["scores"]) > sum(one["labelled"] for one in said["scores"])
    assert part.ask(ASK_SCORES, {"seen": later["changes"]}) == {"changes": later["changes"]}
    part.close()


def test_a_look_that_is_lost_begins_anew(tmp_path: Path) -> None:
    """With its recorder, by another's, or by a file that cannot be read for a moment."""
    clock = Hasty()
    part = part_of(tmp_path / "labels.db", clock, STREAM, 3, random.Random(1))
    whole, scores = part.report("digits", 0), part.ask(ASK_SCORES, {"seen": -1})
    clock.haste = True
    asked = {"route": "digits", "days": 0, "look": None}
    first, other = part.ask(ASK_REPORT, asked), part.ask(ASK_REPORT, asked)
    assert first["look"] != other["look"]
    assert in_slices(part, ASK_REPORT, {**asked, **first})[0] == whole
    assert in_slices(part, ASK_REPORT, {**asked, "look": 4711})[0] == whole
    begun = part.ask(ASK_REPORT, asked)
    part.ask(ASK_SCORES, {"seen": -1})
    connection = part._ledger._connection
    connection.execute("ALTER TABLE sums RENAME TO gone")
    for kind, body in ((ASK_REPORT, {**asked, **begun}), (ASK_SCORES, {"seen": -1})):
        with pytest.raises(sqlite3.OperationalError):
            in_slices(part, kind, body)
    connection.execute("ALTER TABLE gone RENAME TO sums")
    assert in_slices(part, ASK_REPORT, {**asked, **begun})[0] == whole
    assert in_slices(part, ASK_SCORES, {"seen": -1})[0] == scores
    part.close()


async def test_labels_are_taken_between_the_slices_of_a_report(tmp_path: Path) -> None:
    """Two reports wait for each other, a label for a slice at most; both are whole. What metrics show is computed a
    slice at each look, so for a twentieth of the time at most."""
    clock, order = Hasty(), list[str]()
    part = part_of(tmp_path / "labels.db", clock, STREAM[1:], 8, random.Random(1))
    part.take([record(STREAM[0])])

    async def ask(kind: str, body: Mapping[str, Any], /) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        order.append(kind)
        return part.ask(kind, body)

    desk = TruthDesk(ask, wanted=lambda: True, joined=lambda _: None, clock=clock)
    clock.haste = True
    reports = [asyncio.ensure_future(desk.report("digits", days)) for days in (0, 7)]
    await asyncio.sleep(0)
    verdicts = await desk.join([(STREAM[0].id, STREAM[0].label)], None)
    assert verdicts[0][0] == "joined"
    assert order.index(ASK_JOIN) <= 2
    assert not any(report.done() for report in reports)
    found = await asyncio.gather(*reports)
    assert [report["days"] for report in found] == [None, 7]
    looks = 0
    while "scores" not in desk.scores:
        await desk.look()
        looks += 1
    assert order.count(ASK_SCORES) == looks > 8
    assert SLICE_S <= LOOK_S / 20
    assert sum(one["labelled"] for one in desk.scores["scores"]) > 300
    await desk.close()
    part.close()


def test_the_version_in_service_keeps_its_scores_however_many_have_come_and_gone_since(tmp_path: Path) -> None:
    """The known good answered first, a hundred candidates after it: metrics have it and the newest of the others."""
    part = TruthPart(tmp_path / "labels.db", ManualClock())
    body = told()
    body["routes"]["digits"] |= {"model": "digits", "weights": {"101": 1}, "known_good": 1}
    part.told("table", body)
    stream = [case._replace(version=VersionRef("digits", number)) for number, case in enumerate(cases(101), 1)]
    part.take([record(case, answered_by=case.version) for case in stream])
    join(part, stream)
    found, _ = in_slices(part, ASK_SCORES, {"seen": -1})
    shown = [one["version"] for one in found["scores"]]
    assert (len(shown), {1, 100, 101} <= set(shown), 2 in shown) == (64, True, False)
    part.close()
