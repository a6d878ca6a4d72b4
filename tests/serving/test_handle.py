"""A version's life: visible only when warm, gone only when nobody needs it, and nothing left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from gateway.errors import DeadlineExceeded, IntegrityError, LoadError, TurnoutError, VersionUnavailable
from gateway.messages import Arrays
from gateway.serving.engine import BatchPolicy
from gateway.serving.handle import VersionState
from gateway.serving.scripted_engine import DOUBLING
from tests.serving.stage import DIGITS, Stage, ask, rows, turns, until


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


def states(stage: Stage) -> list[str]:
    return [state for _, state, _ in stage.observer.states]


async def test_a_version_is_visible_only_after_load_and_warm_up(stage: Stage):
    """MLServer's registry shows it before it has loaded."""
    stage.script().load_gate = asyncio.Event()
    handle = stage.handle()
    starting = asyncio.ensure_future(handle.start())
    await until(lambda: handle.state is VersionState.LOADING)
    with pytest.raises(VersionUnavailable, match="digits/3 is loading"):
        handle.lease()
    with pytest.raises(VersionUnavailable, match="digits/3 is loading"):
        await handle.infer(rows(1), 1, None)
    with pytest.raises(VersionUnavailable, match="signature is known once it has loaded"):
        _ = handle.signature
    stage.script().hold()
    stage.script().load_gate.set()
    await until(lambda: handle.state is VersionState.WARMING)
    with pytest.raises(VersionUnavailable, match="digits/3 is warming"):
        handle.lease()
    assert not handle.ready
    stage.script().gate.set()
    await starting
    assert handle.state is VersionState.ACTIVE
    assert handle.ready
    assert handle.signature == DOUBLING
    assert states(stage) == ["loading", "warming", "active"]
    with handle.lease():
        answer = await handle.infer(rows(1, 2), 2, None)
    assert answer.outputs["y"][:, 0].tolist() == [2.0, 4.0]
    assert repr(handle) == "<Handle digits/3 [active | 0 leases | ready]>"


@pytest.mark.parametrize("failure", [LoadError("no such file"), IntegrityError("expected sha256:aa, got sha256:bb")])
async def test_a_load_that_fails_leaves_a_reason_and_nothing_else(stage: Stage, failure: TurnoutError):
    """State failed, the error as it was, every byte given back."""
    stage.script().every_load = failure
    handle = stage.handle()
    with pytest.raises(type(failure)) as raised:
        await handle.start()
    assert raised.value is failure
    assert (handle.state, handle.reason, handle.ready) == (VersionState.FAILED, str(failure), False)
    assert stage.script().alive == 0
    assert len(asyncio.all_tasks()) == 1
    with pytest.raises(VersionUnavailable, match=f"digits/3 is failed: {failure}"):
        handle.lease()
    with pytest.raises(LoadError, match="starts once"):
        await handle.start()


async def test_a_load_that_takes_too_long_is_ended(stage: Stage):
    """Load and warm-up together have one time limit."""
    stage.script().load_s = 200.0
    handle = stage.handle(load_timeout_s=60.0)
    starting = asyncio.ensure_future(handle.start())
    await turns()
    stage.clock.advance(60.0)
    with pytest.raises(LoadError, match="was not loaded and warm within 60 s"):
        await starting
    assert handle.state is VersionState.FAILED
    assert stage.script().alive == 0


async def test_cancelling_a_start_is_clean(stage: Stage):
    """At any point of it: no child, no task, and a state that says so."""
    stage.script().load_gate = asyncio.Event()
    for gate in (stage.script().load_gate, None):
        stage.script().load_gate = gate
        stage.script().hold()
        handle = stage.handle()
        starting = asyncio.ensure_future(handle.start())
        await turns()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert (handle.state, handle.reason) == (VersionState.FAILED, "loading was cancelled")
        assert stage.script().alive == 0
        assert len(asyncio.all_tasks()) == 1


async def test_a_version_retired_while_it_loads_tells_its_starter(stage: Stage):
    """LoadError for who waits, retired for the rest, nothing left behind."""
    stage.script().load_gate = asyncio.Event()
    handle = stage.handle()
    starting = asyncio.ensure_future(handle.start())
    await turns()
    await handle.retire()
    with pytest.raises(LoadError, match="was retired while it loaded"):
        await starting
    assert handle.state is VersionState.RETIRED
    assert stage.script().alive == 0
    assert stage.observer.retired == [DIGITS]


async def test_a_load_that_meets_the_unforeseen_is_failed_too(stage: Stage):
    """An example without rows is foreseen by nobody; the state must not say warming for ever."""
    handle = stage.handle(example={"x": np.zeros(())})
    with pytest.raises(IndexError):
        await handle.start()
    assert handle.state is VersionState.FAILED
    assert "IndexError" in handle.reason
    assert stage.script().alive == 0


async def test_a_slow_model_is_given_the_time_it_needs_to_prove_itself(stage: Stage):
    """Eight seconds a row is slow, not broken, though it is longer than the interval between two probes."""
    stage.script().delay_s = lambda rows: 8.0 * rows
    handle = stage.handle(batch=BatchPolicy(max_rows=2))
    starting = asyncio.ensure_future(handle.start())
    for _ in range(30):
        await turns()
        stage.clock.advance(2.0)
    await starting
    assert handle.ready
    for _ in range(30):
        await turns()
        stage.clock.advance(1.0)
        assert handle.ready, handle.reason


async def test_retiring_waits_for_leases_and_the_queue(stage: Stage):
    """Who holds a lease is still answered; nobody new gets one; then it closes."""
    handle = await stage.active()
    gate = stage.script().hold()
    with handle.lease():
        client = ask(handle, 1)
        await until(lambda: stage.script().running)
        retiring = asyncio.ensure_future(handle.retire())
        await until(lambda: handle.state is VersionState.DRAINING)
        with pytest.raises(VersionUnavailable, match="digits/3 is draining"):
            handle.lease()
        late = ask(handle, 2)
        await turns()
        assert repr(handle) == "<Handle digits/3 [draining | 1 leases | not ready]>"
        gate.set()
        assert await asyncio.gather(client, late) == [[2.0], [4.0]]
        await turns()
        assert not retiring.done()
    await retiring
    assert states(stage)[-2:] == ["draining", "retired"]
    assert stage.observer.retired == [DIGITS]
    assert stage.script().alive == 0
    await handle.retire()
    assert stage.observer.retired == [DIGITS], "a second retirement waits for the first"


async def test_draining_is_bounded_in_time(stage: Stage):
    """Half a minute; what is not answered by then fails with VersionUnavailable, so that a fallback can answer."""
    handle = await stage.active(batch=BatchPolicy(hang_floor_ms=100_000))
    stage.script().hold()
    with handle.lease():
        client = ask(handle, 1)
        await until(lambda: stage.script().running)
        retiring = asyncio.ensure_future(handle.retire())
        await turns()
        stage.clock.advance(30)
        await retiring
        with pytest.raises(VersionUnavailable, match="is gone"):
            await client
    assert stage.script().alive == 0


async def test_abandoning_ends_the_child_at_once(stage: Stage):
    """A version that hangs after a rollback: its waiting items fail so that they can be decided anew."""
    handle = await stage.active()
    stage.script().hold()
    with handle.lease():
        clients = [ask(handle, 1)]
        await until(lambda: stage.script().running)
        clients.append(ask(handle, 2))
        draining = asyncio.ensure_future(handle.retire())
        await turns()
        await handle.kill()
        await draining
        failures = await asyncio.gather(*clients, return_exceptions=True)
    assert [type(failure) for failure in failures] == [VersionUnavailable] * 2
    assert "rolled back or unloaded" in str(failures[0])
    assert handle.state is VersionState.RETIRED
    assert stage.script().alive == 0
    assert len(asyncio.all_tasks()) == 1


async def test_a_cancelled_retire_goes_on(stage: Stage):
    """The caller's patience is not the version's fate."""
    handle = await stage.active()
    with handle.lease():
        retiring = asyncio.ensure_future(handle.retire())
        await turns()
        retiring.cancel()
        await turns()
    await until(lambda: handle.state is VersionState.RETIRED)
    assert stage.script().alive == 0


async def test_health_tells_of_a_restart_while_the_state_stays_active(stage: Stage):
    """Visible to readyz as a reason; requests wait, and are answered."""
    handle = await stage.active()
    stage.script().load_gate = asyncio.Event()
    stage.script().kill("signal 9")
    assert handle.state is VersionState.ACTIVE
    assert not handle.ready
    assert handle.reason == "restarting after crash: signal 9"
    client = ask(handle, 1)
    await turns()
    stage.script().load_gate.set()
    assert await client == [2.0]
    assert handle.ready
    assert handle.reason == ""
    assert stage.observer.states[-2:] == [
        (DIGITS, "active", "restarting after crash: signal 9"),
        (DIGITS, "active", ""),
    ]


async def test_an_idle_version_is_probed_through_its_real_queue(stage: Stage):
    """Every five seconds without work; work counts as proof and spares the probe."""
    handle = await stage.active()
    stage.clock.advance(5)
    await turns()
    assert stage.script().runs == [(1,)]
    stage.clock.advance(4)
    assert await ask(handle, 1) == [2.0]
    stage.clock.advance(1)
    await turns()
    assert stage.script().runs == [(1,), (1,)]
    assert handle.ready


async def test_a_version_whose_self_inference_fails_is_not_ready_and_says_why(stage: Stage):
    """It is asked again at the next interval, and ready again once it answers."""
    handle = await stage.active()
    good = stage.script().model
    stage.script().model = _raises
    stage.clock.advance(5)
    await turns()
    assert not handle.ready
    assert handle.reason == "self-inference failed: ModelError: the model raised ValueError: broken"
    assert handle.state is VersionState.ACTIVE
    stage.script().model = good
    stage.clock.advance(5)
    await turns()
    assert handle.ready


def _raises(inputs: Arrays) -> Arrays:
    raise ValueError("broken")


async def test_a_version_that_does_not_answer_its_self_inference_is_not_ready(stage: Stage):
    """A stuck queue is found though nobody asks anything of it."""
    handle = await stage.active(batch=BatchPolicy(hang_floor_ms=60_000))
    stage.script().hold()
    stage.clock.advance(5)
    await until(lambda: stage.script().running)
    assert handle.ready
    stage.clock.advance(5)
    await turns()
    assert not handle.ready
    assert "DeadlineExceeded" in handle.reason
    client = ask(handle, 1, deadline=stage.clock.monotonic() + 1)
    await turns()
    stage.clock.advance(1)
    with pytest.raises(DeadlineExceeded):
        await client


async def test_a_version_that_was_stopped_is_no_longer_probed(stage: Stage):
    """No timer outlives it."""
    handle = await stage.active()
    await handle.retire()
    stage.clock.advance(60)
    await turns()
    assert [timer for _, _, timer in stage.clock._timers if not timer.cancelled] == []
    assert stage.script().runs == []


async def test_statistics_tell_what_is_here(stage: Stage):
    """One frozen record: process, memory, what was loaded, queue, deaths."""
    handle = await stage.active()
    await ask(handle, 1, 2)
    statistics = handle.statistics()
    assert statistics.ref == DIGITS
    assert statistics.pid == stage.script().engines[0]._pid
    assert statistics.device == "cpu"
    assert statistics.loaded == {"model": "0" * 64}
    assert handle.memory_bytes() == 1 << 20
    assert (statistics.deaths, statistics.restarts, statistics.leases) == (0, 0, 0)
    assert statistics.batcher is not None
    assert statistics.batcher.answered == 2, "the self-inference before it was visible, and the client"
    await handle.retire()
    gone = handle.statistics()
    assert (gone.pid, handle.memory_bytes(), gone.state) == (None, 0, VersionState.RETIRED)
