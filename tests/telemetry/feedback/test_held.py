"""Labels that wait for an answer which nobody knows: a bound that all senders share, and none can take for itself."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.telemetry.feedback.asks import ASK_SHARE
from gateway.telemetry.feedback.nouns import Bounds
from tests.telemetry.feedback.scene import report, restarted, send
from tests.telemetry.feedback.stream import cases, name, record


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def held_by(path: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT sender, count(*) FROM held_by GROUP BY sender"))


def test_a_noisy_sender_gives_way_to_others_and_pushes_out_none_of_theirs(tmp_path: Path, clock: ManualClock) -> None:
    """One fills all there is with ids that it made up. Others are held all the same, each up to an equal share; it
    loses its oldest, which count as unknown, and after a restart it is as before."""
    path, bounds = tmp_path / "labels.db", Bounds(held=30)
    part = restarted(path, clock, bounds)
    draw = random.Random(11)
    made_up = [name(draw) for _ in range(40)]
    assert send(part, "noisy", *made_up[:10]) == ["held"] * 10
    clock.advance(1.0)
    assert send(part, "noisy", *made_up[10:]) == ["held"] * 20 + ["full"] * 10
    mine = cases(10, seed=3)
    assert send(part, "quiet", *(case.id for case in mine)) == ["held"] * 10
    assert send(part, "noisy", *(name(draw) for _ in range(100))) == ["full"] * 100
    assert held_by(path) == {"noisy": 20, "quiet": 10}
    assert send(part, "noisy", made_up[0], made_up[29]) == ["full", "duplicate"]
    assert report(part)["feedback"] == {"unknown": 10, "duplicate": 1}
    part.close()

    part = restarted(path, clock, bounds)
    assert send(part, "third", *(name(draw) for _ in range(12))) == ["held"] * 10 + ["full"] * 2
    assert held_by(path) == {"noisy": 10, "quiet": 10, "third": 10}
    part.take([record(case) for case in mine])
    assert report(part)["feedback"]["early"] == 10
    assert held_by(path) == {"noisy": 10, "third": 10}
    assert report(part)["standing"]["held"] == 20
    part.close()


def test_what_a_sender_holds_elsewhere_counts_as_its_own_here(tmp_path: Path, clock: ManualClock) -> None:
    """What other replicas tell of a noisy sender pushes out nobody's labels either; an older one names no sender."""
    path = tmp_path / "labels.db"
    part = restarted(path, clock, Bounds(held=8))
    draw = random.Random(12)
    assert send(part, "quiet", name(draw), name(draw)) == ["held"] * 2
    heard = [[draw.randbytes(16), 1, None, sender] for sender in ["noisy"] * 9 + [""] * 9]
    part.ask(ASK_SHARE, {"place": "7", "labels": heard, "settled": [], "told": [[], []]})
    assert held_by(path) == {"quiet": 2, "noisy": 3, "": 3}
    said = part.ask(ASK_SHARE, {"place": None, "told": [[], []]})
    assert [label[3] for label in said["labels"]] == ["quiet"] * 2
    assert "unknown" not in report(part)["feedback"]
    part.close()


def test_labels_that_an_older_program_has_held_are_nobodys(tmp_path: Path, clock: ManualClock) -> None:
    """A home that went back to it and came again: its rows have a place, and lose it as any other's."""
    path = tmp_path / "labels.db"
    restarted(path, clock).close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        rows = [(bytes([number]) * 16, 4_000_000_000_000 + number, b"1", None, 0) for number in range(6)]
        connection.executemany("INSERT INTO held VALUES (?, ?, ?, ?, ?)", rows)
    part = restarted(path, clock, Bounds(held=6))
    draw = random.Random(13)
    assert send(part, "new", *(name(draw) for _ in range(5))) == ["held"] * 3 + ["full"] * 2
    assert held_by(path) == {"": 3, "new": 3}
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM held")
    assert held_by(path) == {}
    part.close()
