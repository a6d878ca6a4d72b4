"""One engine at a time: restarted at once, then with back-off, and never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.errors import LoadError, VersionCrashed, VersionUnavailable
from gateway.serving.scripted_engine import double
from gateway.serving.supervision import Standing, backoff_s, within
from tests.serving.stage import DIGITS, Stage, ask, rows, turns, until


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


def backing_off(stage: Stage, wait: float) -> bool:
    return stage.supervisor.standing is Standing.BACKING_OFF and f"next try in {wait} s" in stage.supervisor.reason


@given(st.integers(0, 10_000))
def test_back_off_is_none_then_doubles_to_ten_seconds(failures: int):
    """0, 0, 0.1, 0.2, 0.4 … 10."""
    expected = 0.0 if failures < 2 else min(10.0, 0.1 * 2 ** (min(failures, 40) - 2))
    assert backoff_s(failures) == pytest.approx(expected)


async def test_an_idle_child_that_dies_is_restarted_at_once(stage: Stage):
    """Nobody notices but the observer."""
    batcher = await stage.batcher()
    stage.script().kill("signal 9")
    assert stage.supervisor.standing is Standing.RESTARTING
    assert stage.supervisor.reason == "restarting after crash: signal 9"
    assert await ask(batcher, 1) == [2.0]
    assert stage.observer.crashes == [(DIGITS, "crash", False)]
    assert (stage.supervisor.deaths, stage.supervisor.restarts, stage.script().alive) == (1, 1, 1)
    assert repr(stage.supervisor) == "<Supervisor digits/3 [up | 1 restarts]>"


async def test_work_waits_for_a_restart_under_way_at_once(stage: Stage):
    """It costs the load's time, not an answer."""
    batcher = await stage.batcher()
    stage.script().load_gate = asyncio.Event()
    stage.script().kill()
    client = ask(batcher, 1)
    await turns()
    assert not client.done()
    stage.script().load_gate.set()
    assert await client == [2.0]


async def test_a_child_that_dies_at_each_start_backs_off_and_refuses_at_once_meanwhile(stage: Stage):
    """0.1 s, 0.2 s, 0.4 s between tries; the reason names the cause and the next try; then it is back."""
    batcher = await stage.batcher()
    stage.script().every_load = LoadError("the child died while loading: signal 6")
    stage.script().kill()
    waits: list[str] = []
    for wait in (0.1, 0.2, 0.4, 0.8):
        await until(partial(backing_off, stage, wait))
        waits.append(stage.supervisor.reason)
        with pytest.raises(VersionUnavailable, match="digits/3 cannot answer now: restarting after failed start"):
            await batcher.infer(rows(1), 1, None)
        await turns()
        stage.clock.advance(wait + 1e-6)
    assert waits[-1] == "restarting after failed start: the child died while loading: signal 6, next try in 0.8 s"
    stage.script().every_load = None
    await turns()
    stage.clock.advance(1.7)
    await until(lambda: stage.supervisor.standing is Standing.UP)
    assert await ask(batcher, 1) == [2.0]
    causes = [cause for _, cause, _ in stage.observer.crashes]
    assert causes[0] == "crash"
    assert set(causes[1:]) == {"load"}


async def test_work_is_not_kept_waiting_for_a_start_that_follows_a_back_off(stage: Stage):
    """Only the first restart, the one at once, is worth waiting for."""
    batcher = await stage.batcher()
    stage.script().loads.append(LoadError("first restart fails"))
    stage.script().kill()
    await until(lambda: stage.supervisor.standing is Standing.BACKING_OFF)
    stage.script().load_gate = asyncio.Event()
    await turns()
    stage.clock.advance(0.11)
    await turns()
    assert stage.supervisor.reason.endswith("trying again now")
    with pytest.raises(VersionUnavailable):
        await batcher.infer(rows(1), 1, None)


async def test_good_work_makes_the_next_restart_immediate_again(stage: Stage):
    """So ``kill -9`` now and then never meets a back-off."""
    batcher = await stage.batcher()
    for _ in range(5):
        stage.script().kill()
        assert await ask(batcher, 1) == [2.0]


async def test_a_good_minute_makes_the_next_restart_immediate_again(stage: Stage):
    """Without any work at all."""
    await stage.batcher()
    stage.script().kill()
    await until(lambda: stage.supervisor.standing is Standing.UP)
    stage.clock.advance(59)
    stage.script().kill()
    assert stage.supervisor.standing is Standing.BACKING_OFF
    await turns()
    stage.clock.advance(0.2)
    await until(lambda: stage.supervisor.standing is Standing.UP)
    stage.clock.advance(60)
    stage.script().kill()
    assert stage.supervisor.standing is Standing.RESTARTING


async def test_closing_during_a_back_off_or_a_restart_leaves_nothing_behind(stage: Stage):
    """No task, no child."""
    for gate in (None, asyncio.Event()):
        batcher = await stage.batcher()
        stage.script().load_gate = gate
        stage.script().kill()
        await turns()
        await batcher.close("over")
        await stage.supervisor.close()
        stage.script().load_gate = None
        assert stage.script().alive == 0
        assert stage.supervisor.standing is Standing.CLOSED
    assert len(asyncio.all_tasks()) == 1


async def test_a_restart_that_meets_the_unforeseen_is_tried_again(stage: Stage):
    """A fault of our own while starting must not leave work waiting for ever for a restart that nobody makes."""
    batcher = await stage.batcher()
    stage.script().loads.append(RuntimeError("nobody foresaw this"))  # type: ignore[arg-type]
    stage.script().kill()
    await until(lambda: backing_off(stage, 0.1))
    assert stage.supervisor.reason.startswith("restarting after failed check: nobody foresaw this")
    with pytest.raises(VersionUnavailable):
        await ask(batcher, 1)
    stage.clock.advance(0.1)
    await until(lambda: stage.supervisor.standing is Standing.UP)
    assert await ask(batcher, 1) == [2.0]


async def test_a_cancelled_run_ends_the_engine(stage: Stage):
    """As the engine's interface says; nothing is restarted by that."""
    batcher = await stage.batcher()
    stage.script().hold()
    client = ask(batcher, 1)
    await until(lambda: stage.script().running)
    await batcher.close("over")
    assert isinstance((await asyncio.gather(client, return_exceptions=True))[0], VersionUnavailable)
    assert stage.script().alive == 0
    assert stage.observer.crashes == []
    await stage.supervisor.close()


async def test_a_run_on_a_child_found_dead_is_run_again(stage: Stage):
    """Its death may be told by the run before it is told by the process watch."""
    batcher = await stage.batcher()
    stage.script().engines[0].alive = False
    stage.script().model = double
    assert await ask(batcher, 1) == [2.0]
    assert stage.observer.crashes == [(DIGITS, "crash", False)]


async def test_within_gives_its_work_a_time_and_waits_for_its_end():
    """TimeoutError on time; cancellation passes through; both only after the work has cleaned up."""
    clock = ManualClock()
    cleaned: list[str] = []

    async def work() -> None:
        try:
            await clock.sleep(100)
        finally:
            await asyncio.sleep(0)
            cleaned.append("cleaned")

    timed = asyncio.ensure_future(within(clock, 5, work()))
    await turns()
    clock.advance(5)
    with pytest.raises(TimeoutError, match="not done within 5 s"):
        await timed
    cancelled = asyncio.ensure_future(within(clock, 5, work()))
    await turns()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert cleaned == ["cleaned"] * 2

    async def crash() -> None:
        raise VersionCrashed("at once")

    with pytest.raises(VersionCrashed):
        await within(clock, 5, crash())
