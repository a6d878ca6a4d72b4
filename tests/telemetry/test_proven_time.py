"""The time that retention goes by: real time passes, wrong clocks do not, and what stands long enough is believed."""

from __future__ import annotations

import logging
import random

import pytest

from gateway.clock import ManualClock
from gateway.telemetry.proven_time import STEP_MS, KeptTime, ProvenTime

HOUR_S, DAY_S = 3600.0, 86_400.0
YEAR_S = 365 * DAY_S


def proven(clock: ManualClock, kept: KeptTime | None = None, *, stands_s: float = 3 * DAY_S) -> ProvenTime:
    return ProvenTime(clock, kept, stands_s=stands_s, what="the log")


def run(clock: ManualClock, time: ProvenTime, seconds: float, every_s: float = 600.0) -> None:
    for _ in range(int(seconds // every_s)):
        clock.advance(every_s)
        time.look()


def test_time_that_passes_is_proved_to_the_millisecond() -> None:
    """Where the two clocks go together, it is both."""
    clock = ManualClock()
    time = proven(clock)
    run(clock, time, 200 * DAY_S, every_s=3333.3)
    assert abs(time.now_ms() - clock.wall() * 1000) <= 1
    assert time.trouble == ""


def test_a_clock_that_is_set_a_year_ahead_and_right_again_proves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is told of in words and logged once each way, and leaves no trace."""
    clock = ManualClock()
    time = proven(clock)
    began = time.now_ms()
    with caplog.at_level(logging.INFO, logger="turnout.telemetry"):
        clock.jump_wall(YEAR_S)
        run(clock, time, 2 * DAY_S)
        assert "365 days after the time that is proved; nothing of the log goes by its age" in time.trouble
        clock.jump_wall(-YEAR_S)
        run(clock, time, 2 * DAY_S)
    assert time.now_ms() - began == 4 * DAY_S * 1000
    assert time.trouble == ""
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def test_a_step_that_stands_long_enough_is_believed_restarts_included() -> None:
    """A machine that was off for a month: each process goes on from what the one before has kept."""
    clock = ManualClock()
    kept = proven(clock).kept
    clock.jump_wall(30 * DAY_S)
    for _ in range(3):
        time = proven(clock, kept)
        assert time.trouble
        run(clock, time, 23 * HOUR_S)
        kept = KeptTime.from_json(time.kept.to_json())
        assert kept.at_ms < (clock.wall() - 29 * DAY_S) * 1000
    time = proven(clock, kept)
    run(clock, time, 4 * HOUR_S)
    assert time.trouble == ""
    assert time.now_ms() == int(clock.wall() * 1000)


def test_a_night_off_is_logged_and_no_trouble_but_nothing_goes_by_it_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """It cannot be told from a clock that was set; that it would be a day at most is reason enough to wait in quiet."""
    clock = ManualClock()
    kept = proven(clock).kept
    clock.advance(14 * HOUR_S)
    with caplog.at_level(logging.INFO, logger="turnout.telemetry"):
        time = proven(clock, kept)
        run(clock, time, DAY_S)
    assert (time.trouble, time.now_ms() - kept.at_ms) == ("", DAY_S * 1000)
    assert [(record.levelname, "14 h after" in record.getMessage()) for record in caplog.records] == [("INFO", True)]
    run(clock, time, 3 * DAY_S)
    assert time.now_ms() == int(clock.wall() * 1000)


@pytest.mark.parametrize("on_h", [10, 14, 20])
def test_a_machine_that_is_off_every_night_is_days_behind_and_no_more(on_h: int) -> None:
    """No step of its clock stands for three days of running time before the next one is there; what stood is taken over
    all the same, and never ahead of the clock."""
    clock = ManualClock()
    time = proven(clock)
    for _ in range(200):
        run(clock, time, on_h * HOUR_S)
        kept = KeptTime.from_json(time.kept.to_json())
        clock.advance((24 - on_h) * HOUR_S)
        time = proven(clock, kept)
        assert kept.at_ms <= time.now_ms() <= clock.wall() * 1000
    behind_s = clock.wall() - time.now_ms() / 1000
    assert behind_s < 2 * 3 * DAY_S * (24 - on_h) / on_h + 2 * DAY_S


def test_a_clock_that_is_set_ahead_while_a_night_off_waits_is_believed_no_sooner() -> None:
    """At a start, the night goes on to stand and the year does not; in a process that runs, both begin anew."""
    clock = ManualClock()
    kept = proven(clock).kept
    clock.advance(14 * HOUR_S)
    running = proven(clock, kept)
    run(clock, running, 2 * DAY_S)
    clock.jump_wall(YEAR_S)
    time = proven(clock, running.kept)
    assert "366 days after" in time.trouble
    assert "stood for 24 h more, and then by 14 h of that" in time.trouble
    running.look()
    assert (running.kept.stood_ms, running.kept.more_ms) == (0, 0)

    began = time.now_ms()
    run(clock, time, 3 * DAY_S)
    assert time.now_ms() - began == int((3 * DAY_S + 14 * HOUR_S) * 1000)
    clock.jump_wall(-YEAR_S)
    run(clock, time, DAY_S)
    assert (time.now_ms(), time.trouble) == (int(clock.wall() * 1000), "")


def test_an_operator_who_sets_the_wait_to_nothing_believes_the_clock_at_once() -> None:
    """``stands_s`` 0, at the next start."""
    clock = ManualClock()
    kept = proven(clock).kept
    clock.jump_wall(YEAR_S)
    time = proven(clock, kept, stands_s=0.0)
    assert (time.now_ms(), time.trouble) == (int(clock.wall() * 1000), "")


def test_a_clock_that_goes_back_takes_nothing_back() -> None:
    """The time goes on as fast as it does; what happens meanwhile is not stamped as old; once it has stood, it is no
    trouble any more."""
    clock = ManualClock()
    time = proven(clock)
    began = time.now_ms()
    clock.jump_wall(-YEAR_S)
    run(clock, time, DAY_S)
    assert time.now_ms() == time.latest_ms() == began + DAY_S * 1000
    assert "365 days before the time that is proved" in time.trouble
    run(clock, time, 3 * DAY_S)
    again = proven(clock, time.kept)
    assert (again.trouble, again.now_ms()) == ("", began + 4 * DAY_S * 1000)
    clock.jump_wall(YEAR_S)
    run(clock, again, DAY_S)
    assert (again.trouble, again.now_ms()) == ("", began + 5 * DAY_S * 1000)


def test_a_clock_that_never_stands_still_is_never_believed() -> None:
    """An hour ahead at each look, and a bit."""
    clock = ManualClock()
    time = proven(clock)
    began = time.now_ms()
    for _ in range(1000):
        clock.jump_wall(STEP_MS / 1000 + 1)
        run(clock, time, 1200.0)
    assert time.now_ms() - began == 1000 * 1_200_000


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_clock_does_no_more_is_proved_than_has_passed(seed: int) -> None:
    """Jumps in both directions, none of which stands for long enough, and restarts; and no less is proved either."""
    clock, draw = ManualClock(), random.Random(seed)
    time = proven(clock)
    began, first = time.now_ms(), clock.monotonic()
    for _ in range(100):
        if draw.random() < 0.2:
            time = proven(clock, time.kept)
        clock.jump_wall(draw.choice((-1, 1)) * draw.uniform(2 * HOUR_S, 2 * YEAR_S))
        run(clock, time, draw.uniform(0.0, 2.9 * DAY_S), every_s=5000.0)
        passed_ms = (clock.monotonic() - first) * 1000
        assert abs(time.now_ms() - began - passed_ms) < 1000
        assert time.latest_ms() >= time.now_ms()
