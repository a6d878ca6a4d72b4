"""A decision log that cannot be written is told of once, and once when it is over."""

from __future__ import annotations

from typing import Any

from gateway.clock import ManualClock
from gateway.control.alarms import Alarm
from gateway.control.recording_watch import RecordingWatch
from tests.control.scene import until

FULL = {"full": True, "trouble": "the decision log cannot be written: No space left on device", "dropped": 7}
WELL = {"full": False, "trouble": None, "dropped": 7}


def told_by(*looks: dict[str, Any]) -> list[Alarm]:
    told: list[Alarm] = []
    left = list(looks)
    watch = RecordingWatch(lambda: left.pop(0), told.append, where="host:/home", clock=ManualClock())
    for _ in looks:
        watch.look()
    return told


def test_a_log_that_goes_to_and_fro_is_one_alarm() -> None:
    """Raised at once, over when it has been well for a while."""
    raised, over = told_by({}, FULL, WELL, FULL, WELL, WELL, FULL, WELL, WELL, WELL, WELL)
    assert (raised.raised, raised.kind, raised.name) == (True, "decision-log", "decision-log/host:/home")
    assert raised.reason.endswith("No space left on device")
    assert raised.numbers["Records missing"] == 7
    assert (over.raised, over.name) == (False, raised.name)


def test_an_alarm_of_an_earlier_process_is_cleared_by_the_next() -> None:
    """Which finds it well, and says so once; it was raised by nobody who still lives."""
    [over] = told_by(WELL, WELL, WELL, WELL, WELL)
    assert not over.raised


async def test_it_looks_again_and_again_by_the_clock() -> None:
    """And ends when it is closed."""
    clock, told, standing = ManualClock(), list[Alarm](), dict[str, Any]()
    watch = RecordingWatch(lambda: standing, told.append, where="here", clock=clock)
    watch.start()
    await until(lambda: clock.waiting)
    standing.update(FULL)
    clock.advance(5.0)
    await until(lambda: told)
    await watch.close()
    assert clock.waiting == 0
