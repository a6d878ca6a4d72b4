"""All versions on a machine: one load each, one at a time, and an end for all."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.errors import LoadError, ServiceDraining
from gateway.messages import VersionRef
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet, Footprint
from gateway.serving.handle import VersionState
from gateway.serving.scripted_engine import ScriptedEngine
from tests.serving.processes import LONG_S
from tests.serving.stage import DIGITS, Stage, ask, spec, turns, until

OTHER = VersionRef("digits", 4)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest.fixture
async def fleet(stage: Stage) -> AsyncIterator[Fleet]:
    fleet = Fleet(stage.engines, clock=stage.clock, observer=stage.observer)
    yield fleet
    await fleet.close(abandon=True)
    assert all(not script.alive for script in stage.engines._scripts.values())


async def test_who_asks_for_the_same_version_at_the_same_time_shares_one_load(stage: Stage, fleet: Fleet):
    """And who asks later gets the same handle at once."""
    handles = await asyncio.gather(*(fleet.ensure(spec()) for _ in range(5)))
    assert len({id(handle) for handle in handles}) == 1
    assert await fleet.ensure(spec()) is handles[0]
    assert len(stage.script().engines) == 1
    assert fleet.handles[DIGITS] is handles[0]
    assert repr(fleet) == "<Fleet [1 active]>"


async def test_one_version_loads_at_a_time(stage: Stage, fleet: Fleet):
    """Two loads would only slow each other down, and what serves beside them."""
    stage.script().load_gate = asyncio.Event()
    first, second = asyncio.ensure_future(fleet.ensure(spec())), asyncio.ensure_future(fleet.ensure(spec(OTHER)))
    await turns()
    assert stage.script(OTHER).engines == []
    assert repr(fleet) == "<Fleet [1 loading | 1 registered]>"
    stage.script().load_gate.set()
    await asyncio.gather(first, second)
    assert repr(fleet) == "<Fleet [2 active]>"


async def test_a_failed_load_is_told_to_all_who_asked_and_can_be_tried_again(stage: Stage, fleet: Fleet):
    """The failed handle stays listed with its reason until then."""
    stage.script().loads.append(LoadError("no such file"))
    outcomes = await asyncio.gather(*(fleet.ensure(spec()) for _ in range(3)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["no such file"] * 3
    assert fleet.statistics().versions[0].reason == "no such file"
    handle = await fleet.ensure(spec())
    assert handle.state is VersionState.ACTIVE
    assert fleet.handles[DIGITS] is handle


async def test_memory_is_counted_beside_the_loop_while_versions_come_and_go(stage: Stage):
    """Tens of milliseconds a large process: statistics never ask for it, and a scrape on its thread meets no change."""
    asked, go_on = threading.Event(), threading.Event()

    class Large(ScriptedEngine):
        def memory_bytes(self) -> int:
            asked.set()
            go_on.wait(LONG_S)
            return super().memory_bytes()

    def made(wanted: VersionSpec, on_exit: Callable[[str], None]) -> ScriptedEngine:
        return Large(stage.script(wanted.ref), on_exit, clock=stage.clock, pid=1)

    fleet = Fleet(made, clock=stage.clock, observer=stage.observer)
    await asyncio.gather(fleet.ensure(spec()), fleet.ensure(spec(OTHER)))
    assert [row.ref for row in fleet.statistics().versions] == [DIGITS, OTHER]
    assert not asked.is_set()
    counting = asyncio.ensure_future(asyncio.to_thread(fleet.memory))
    await asyncio.to_thread(asked.wait, LONG_S)
    await fleet.retire(OTHER)
    go_on.set()
    assert await counting == (Footprint(DIGITS, "cpu", 1 << 20), Footprint(OTHER, "cpu", 0))
    await fleet.close()


async def test_who_stops_waiting_does_not_stop_the_load(stage: Stage, fleet: Fleet):
    """It is wanted by the desired state, not by the caller."""
    stage.script().load_gate = asyncio.Event()
    caller = asyncio.ensure_future(fleet.ensure(spec()))
    await turns()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    stage.script().load_gate.set()
    assert (await fleet.ensure(spec())).state is VersionState.ACTIVE
    assert len(stage.script().engines) == 1


async def test_a_failure_that_nobody_waits_for_disturbs_nobody(stage: Stage, fleet: Fleet):
    """The handle's state tells of it."""
    stage.script().load_gate = asyncio.Event()
    stage.script().every_load = LoadError("no such file")
    caller = asyncio.ensure_future(fleet.ensure(spec()))
    await turns()
    caller.cancel()
    stage.script().load_gate.set()
    await until(lambda: fleet.handles[DIGITS].state is VersionState.FAILED)


async def test_retiring_during_a_load_cancels_it(stage: Stage, fleet: Fleet):
    """Whether it runs already or waits for its turn."""
    stage.script().load_gate = asyncio.Event()
    callers = [asyncio.ensure_future(fleet.ensure(spec(ref))) for ref in (DIGITS, OTHER)]
    await turns()
    await fleet.retire(OTHER)
    await fleet.retire(DIGITS)
    outcomes = await asyncio.gather(*callers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LoadError] * 2
    assert dict(fleet.handles) == {}
    assert stage.script().alive == 0
    assert stage.script(OTHER).engines == []
    stage.script().load_gate = None
    assert (await fleet.ensure(spec())).ready


async def test_a_version_that_drains_is_loaded_anew_once_it_is_gone(stage: Stage, fleet: Fleet):
    """One that was let go is not brought back half-closed."""
    old = await fleet.ensure(spec())
    with old.lease():
        retiring = asyncio.ensure_future(fleet.retire(DIGITS))
        await until(lambda: old.state is VersionState.DRAINING)
        again = asyncio.ensure_future(fleet.ensure(spec()))
        await turns()
        assert not again.done()
    new = await again
    await retiring
    assert new is not old
    assert (old.state, new.state) == (VersionState.RETIRED, VersionState.ACTIVE)
    assert fleet.handles[DIGITS] is new
    assert stage.script().alive == 1


async def test_retiring_a_version_that_is_to_be_loaded_anew_calls_that_off(stage: Stage, fleet: Fleet):
    """The last word counts."""
    old = await fleet.ensure(spec())
    with old.lease():
        first = asyncio.ensure_future(fleet.retire(DIGITS))
        await until(lambda: old.state is VersionState.DRAINING)
        again = asyncio.ensure_future(fleet.ensure(spec()))
        await turns()
        second = asyncio.ensure_future(fleet.retire(DIGITS))
        await turns()
    await asyncio.gather(first, second)
    with pytest.raises(LoadError, match="retired before it had loaded"):
        await again
    assert dict(fleet.handles) == {}
    assert stage.script().alive == 0


async def test_closing_drains_all_and_loads_nothing_more(stage: Stage, fleet: Fleet):
    """Every admitted request is answered; a late wish to load is refused."""
    handles = [await fleet.ensure(spec(ref)) for ref in (DIGITS, OTHER)]
    gates = [stage.script(ref).hold() for ref in (DIGITS, OTHER)]
    with handles[0].lease(), handles[1].lease():
        clients = [ask(handle, 1) for handle in handles]
        closing = asyncio.ensure_future(fleet.close())
        await turns()
        assert repr(fleet) == "<Fleet [2 draining]>"
        with pytest.raises(ServiceDraining):
            await fleet.ensure(spec(VersionRef("digits", 5)))
        for gate in gates:
            gate.set()
        assert await asyncio.gather(*clients) == [[2.0], [2.0]]
    await closing
    assert dict(fleet.handles) == {}
    assert set(stage.observer.retired) == {DIGITS, OTHER}


async def test_retiring_what_is_not_here_is_no_error(fleet: Fleet):
    """Reconciling again changes nothing."""
    await fleet.retire(DIGITS)


async def test_a_hundred_cycles_leave_nothing_behind(stage: Stage, fleet: Fleet):
    """Load, infer, unload; also with loads that fail."""
    for cycle in range(100):
        if cycle % 3 == 2:
            stage.script().loads.append(LoadError("no such file"))
            with pytest.raises(LoadError):
                await fleet.ensure(spec())
        else:
            assert await ask(await fleet.ensure(spec()), 1) == [2.0]
        await fleet.retire(DIGITS)
        assert stage.script().alive == 0
    assert len(asyncio.all_tasks()) == 1
    assert dict(fleet.handles) == {}
