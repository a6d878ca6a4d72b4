"""Segments under clocks that are wrong: none goes by an age that it only seems to have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.telemetry.decisions.log_time import TIME_FILE
from gateway.telemetry.decisions.segments import listed
from gateway.telemetry.decisions.upkeep import LogUpkeep, UpkeepOptions
from gateway.telemetry.decisions.verify import verify
from tests.telemetry.decisions.scene import checkpoints, open_log

DAY_S = 86_400.0
YEAR_S = 365 * DAY_S
KEPT = UpkeepOptions(keep_s=190 * DAY_S, compact=False)


class Home:
    """A log whose writer comes and goes; segments by the names of their files, the open one left out."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder, self.clock = folder, clock
        self.begin()

    def begin(self) -> None:
        self.log = open_log(self.folder, self.clock)
        self.upkeep = LogUpkeep(self.log, KEPT, clock=self.clock)
        self.upkeep.look()

    def end(self) -> None:
        self.upkeep.close()
        self.log.close()

    def segment(self) -> int:
        """Writes one and ends it."""
        number = self.log.segment
        self.log.append([b"[]"] * 10)
        self.log.rotate()
        assert self.log.sync(60.0)
        return number

    def pass_days(self, days: float) -> None:
        for _ in range(int(days * 4)):
            self.clock.advance(DAY_S / 4)
            self.upkeep.look()

    @property
    def held(self) -> list[int]:
        return [one.number for one in listed(self.folder) if one.number != self.log.segment]

    @property
    def trouble(self) -> str:
        return str(self.upkeep.statistics()["clock_trouble"])


def test_a_year_ahead_deletes_nothing_and_right_again_leaves_no_trace(tmp_path: Path) -> None:
    """While it runs and over a restart; segments of the time between are of their real age afterwards."""
    home = Home(tmp_path, ManualClock())
    first = [home.segment() for _ in range(3)]
    home.clock.jump_wall(YEAR_S)
    home.pass_days(1)
    between = home.segment()
    assert "365 days after the time that is proved" in home.trouble
    home.end()
    home.begin()
    home.pass_days(1)
    assert home.held == [*first, between]

    home.clock.jump_wall(-YEAR_S)
    home.pass_days(1)
    assert home.trouble == ""
    last = home.segment()
    home.pass_days(188)
    assert home.held == [between, last]
    home.pass_days(4)
    assert home.held == []
    home.end()
    assert verify(tmp_path, checkpoints(tmp_path)).faults == []


def test_a_clock_that_was_back_makes_no_segment_old(tmp_path: Path) -> None:
    """A year back while segments end, and right again: they go with the others, in their time."""
    home = Home(tmp_path, ManualClock())
    first = home.segment()
    home.clock.jump_wall(-YEAR_S)
    home.pass_days(1)
    assert "before the time that is proved" in home.trouble
    between = home.segment()
    home.end()
    home.begin()
    home.clock.jump_wall(YEAR_S)
    home.pass_days(180)
    assert (home.trouble, home.held) == ("", [first, between])
    home.pass_days(12)
    assert home.held == []
    home.end()


def test_after_a_long_stop_what_is_old_goes_once_the_clock_has_stood(tmp_path: Path) -> None:
    """Three days later than it would; what was written after the start is not taken for older than it is."""
    home = Home(tmp_path, ManualClock())
    home.segment()
    home.end()
    home.clock.advance(YEAR_S)
    home.begin()
    new = home.segment()
    home.pass_days(2)
    assert len(home.held) == 2
    home.pass_days(1.5)
    assert home.held == [new]
    home.pass_days(180)
    assert home.held == [new]
    home.end()


@pytest.mark.parametrize("content", [None, b"", b"[1]", b'{"at_ms": "soon"}'])
def test_without_its_file_the_time_goes_on_from_a_segment(tmp_path: Path, content: bytes | None) -> None:
    """An older home, or a file that a loss of power has torn: a clock that is ahead by then is not believed either."""
    home = Home(tmp_path, ManualClock())
    numbers = [home.segment() for _ in range(2)]
    home.end()
    if content is None:
        tmp_path.joinpath(TIME_FILE).unlink()
    else:
        tmp_path.joinpath(TIME_FILE).write_bytes(content)
    for segment in listed(tmp_path):
        os.utime(segment.log, (home.clock.wall(), home.clock.wall()))
    home.clock.jump_wall(YEAR_S)
    home.begin()
    home.pass_days(1)
    assert home.held[:2] == numbers
    assert home.trouble
    home.end()


def test_a_torn_file_and_a_clock_that_was_ahead_before_delete_nothing(tmp_path: Path) -> None:
    """What was stamped last says nothing then; once the clock is right, all is of its real age."""
    home = Home(tmp_path, ManualClock())
    old = home.segment()
    home.clock.jump_wall(YEAR_S)
    between = home.segment()
    home.end()
    tmp_path.joinpath(TIME_FILE).write_bytes(b"")
    home.begin()
    home.pass_days(1)
    assert (home.held[:2], bool(home.trouble)) == ([old, between], True)
    home.clock.jump_wall(-YEAR_S)
    home.pass_days(1)
    last = home.segment()
    home.pass_days(187)
    assert home.held == [old, between, last]
    home.pass_days(2)
    assert home.held == [between, last]
    home.pass_days(4)
    assert home.held == []
    home.end()


def test_a_time_that_cannot_be_kept_is_said_once_and_costs_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is in the way: records are written on, and segments go by their size as ever."""
    home = Home(tmp_path, ManualClock())
    tmp_path.joinpath(TIME_FILE).unlink()
    tmp_path.joinpath(TIME_FILE).mkdir()
    number = home.segment()
    home.pass_days(1)
    assert home.held == [number]
    assert sum("go by their age later" in record.getMessage() for record in caplog.records) == 1
    home.end()
