"""Labels, answers and sums under clocks that are wrong: nothing goes by an age that it only seems to have."""

from __future__ import annotations

from pathlib import Path

from gateway.clock import ManualClock
from gateway.telemetry.feedback.asks import ASK_CLOCK
from gateway.telemetry.feedback.nouns import Bounds
from tests.telemetry.feedback.scene import join, report, restarted
from tests.telemetry.feedback.stream import BINARY, cases, record

DAY_S = 86_400.0


def test_a_clock_that_is_a_year_ahead_at_a_start_ends_no_horizon_and_leaves_no_trace(tmp_path: Path) -> None:
    """Answers, held labels and sums outlive it; what came meanwhile ends with its horizon once the clock is right."""
    clock, path = ManualClock(), tmp_path / "labels.db"
    part = restarted(path, clock)
    one, two, three, early = cases(4)
    part.take([record(one), record(two)])
    assert join(part, (one.id, 1), (early.id, 1)) == ["joined", "held"]
    part.close()

    clock.jump_wall(365 * DAY_S)
    part = restarted(path, clock, Bounds(days=30))
    assert "365 days after" in part.ask(ASK_CLOCK, {})["trouble"]
    clock.advance(DAY_S)
    part.tick()
    part.take([record(three)])
    assert report(part)["standing"] | {"lost": 0} == {"answers": 3, "held": 1, "unusable": 0, "lost": 0}
    assert join(part, (two.id, 1)) == ["late"]
    part.take([record(early)])
    part.close()

    clock.jump_wall(-365 * DAY_S)
    part = restarted(path, clock, Bounds(days=30))
    assert part.ask(ASK_CLOCK, {})["trouble"] == ""
    assert report(part)["feedback"] == {"joined": 1, "late": 1, "early": 1}
    clock.advance(BINARY.horizon_s + DAY_S)
    part.tick()
    assert report(part)["standing"]["answers"] == 0
    part.close()


def test_a_long_stop_ends_what_it_must_once_the_clock_has_stood(tmp_path: Path) -> None:
    """Later by the time that it must stand, and no answer of after the start goes with those of before."""
    clock, path = ManualClock(), tmp_path / "labels.db"
    part = restarted(path, clock)
    old, new = cases(2)
    part.take([record(old)])
    part.close()
    clock.advance(30 * DAY_S)
    part = restarted(path, clock)
    part.take([record(new)])
    assert report(part)["standing"]["answers"] == 2
    for _ in range(80):
        clock.advance(3600.0)
        part.tick()
    assert report(part)["standing"]["answers"] == 1
    assert join(part, (new.id, 1)) == ["late"]
    part.close()


def test_an_answer_ends_on_a_machine_that_is_off_every_night_too(tmp_path: Path) -> None:
    """Ten hours a day where a step must stand for twelve: what stood before a start is not forgotten by it."""
    clock, path, bounds = ManualClock(), tmp_path / "labels.db", Bounds(stands_s=12 * 3600.0)
    part = restarted(path, clock, bounds)
    part.take([record(*cases(1))])
    for _ in range(int(BINARY.horizon_s / DAY_S) + 4):
        for _ in range(10):
            clock.advance(3600.0)
            part.tick()
        part.close()
        clock.advance(14 * 3600.0)
        part = restarted(path, clock, bounds)
    assert report(part)["standing"]["answers"] == 0
    part.close()


def test_a_clock_that_was_back_makes_no_answer_old(tmp_path: Path) -> None:
    """A year back at a start, and right again at the next: all horizons are as long as ever."""
    clock, path = ManualClock(), tmp_path / "labels.db"
    part = restarted(path, clock)
    one, two = cases(2)
    part.take([record(one)])
    part.close()
    clock.jump_wall(-365 * DAY_S)
    part = restarted(path, clock)
    part.take([record(two)])
    clock.advance(DAY_S)
    part.tick()
    part.close()
    clock.jump_wall(365 * DAY_S)
    part = restarted(path, clock)
    assert part.ask(ASK_CLOCK, {})["trouble"] == ""
    assert join(part, (one.id, 1), (two.id, 1)) == ["late", "late"]
    part.close()
