"""Clocks: the manual one moves only by hand, and runs what falls due in the order of time."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.clock import Clock, ManualClock, SystemClock


def test_a_manual_clock_stands_still() -> None:
    """Until it is told otherwise."""
    clock = ManualClock(start=5.0, wall=100.0)
    assert [(clock.monotonic(), clock.wall()) for _ in range(3)] == [(5.0, 100.0)] * 3


def test_advancing_moves_both_times() -> None:
    """Durations and records agree."""
    clock = ManualClock(start=5.0, wall=100.0)
    clock.advance(2.5)
    assert (clock.monotonic(), clock.wall()) == (7.5, 102.5)


def test_the_wall_can_jump_alone() -> None:
    """As NTP does, in both directions; deadlines do not move."""
    clock = ManualClock(start=5.0, wall=100.0)
    clock.jump_wall(-30.0)
    clock.advance(1.0)
    assert (clock.monotonic(), clock.wall()) == (6.0, 71.0)


def test_due_callbacks_run_in_the_order_of_their_times_and_see_them() -> None:
    """Each at its own moment, equal times in the order of the calls."""
    clock = ManualClock(start=0.0)
    seen: list[tuple[str, float]] = []
    for name, when in (("late", 3.0), ("first", 1.0), ("second", 1.0), ("never", 9.0)):
        clock.call_at(when, lambda name=name: seen.append((name, clock.monotonic())))
    clock.advance(5.0)
    assert seen == [("first", 1.0), ("second", 1.0), ("late", 3.0)]
    assert clock.monotonic() == 5.0


def test_a_callback_may_set_another_that_is_due_in_the_same_advance() -> None:
    """A chain of timers runs to where the clock stops, and one set for the past runs at once, not in the past."""
    clock = ManualClock(start=0.0)
    seen: list[float] = []

    def again() -> None:
        seen.append(clock.monotonic())
        clock.call_at(clock.monotonic() + 1.0, again)

    clock.call_at(1.0, again)
    clock.advance(3.5)
    clock.call_at(1.0, lambda: seen.append(clock.monotonic()))
    clock.advance(0.0)
    assert seen == [1.0, 2.0, 3.0, 3.5]


def test_a_cancelled_timer_does_not_run() -> None:
    """Cancelling twice, or after it ran, is no error."""
    clock = ManualClock(start=0.0)
    seen: list[int] = []
    timer = clock.call_at(1.0, lambda: seen.append(1))
    timer.cancel()
    timer.cancel()
    clock.advance(2.0)
    assert seen == []


async def test_a_sleeper_wakes_when_the_clock_has_passed_its_time() -> None:
    """And not before."""
    clock = ManualClock()
    sleeper = asyncio.ensure_future(clock.sleep(10.0))
    await asyncio.sleep(0)
    clock.advance(9.9)
    await asyncio.sleep(0)
    assert not sleeper.done()
    clock.advance(0.1)
    await asyncio.wait_for(sleeper, 30)


async def test_a_cancelled_sleeper_leaves_nothing_behind() -> None:
    """Its timer is cancelled; advancing past it is safe."""
    clock = ManualClock()
    sleeper = asyncio.ensure_future(clock.sleep(10.0))
    await asyncio.sleep(0)
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    clock.advance(20.0)


async def test_the_system_clock_calls_back_on_the_loop() -> None:
    """At once for a time that has passed; its monotonic time is the event loop's."""
    clock: Clock = SystemClock()
    assert time.monotonic() <= clock.monotonic() <= asyncio.get_running_loop().time()
    called = asyncio.Event()
    clock.call_at(clock.monotonic() - 1.0, called.set)
    await asyncio.wait_for(called.wait(), 30)
    await clock.sleep(0.0)


async def test_a_system_timer_can_be_cancelled() -> None:
    """It does not run; one set after it for the same time does."""
    clock = SystemClock()
    seen: list[str] = []
    done = asyncio.Event()
    clock.call_at(clock.monotonic(), lambda: seen.append("cancelled")).cancel()
    clock.call_at(clock.monotonic(), done.set)
    await asyncio.wait_for(done.wait(), 30)
    assert seen == []


def test_the_system_clocks_wall_is_the_epochs() -> None:
    """Seconds, between two readings of the system's own."""
    before = time.time()
    assert before <= SystemClock().wall() <= time.time()
