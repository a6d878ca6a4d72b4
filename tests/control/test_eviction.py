"""Who goes when memory is short: the rule, and the versions of a running gateway that follow it."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ManualClock
from gateway.control.eviction import Demand, Resident, Standing, choose
from tests.control.scene import ref, scene, until

NOW = 1000.0
MIB = 1 << 20

residents = st.lists(
    st.builds(
        Resident,
        st.integers(1, 40).map(ref),
        st.integers(0, 1000),
        st.floats(0, 100),
        st.floats(0, NOW),
        st.sampled_from(Standing),
    ),
    max_size=8,
    unique_by=lambda one: one.ref,
)
demands = st.builds(Demand, st.integers(1, 4000), st.integers(0, 1000), st.booleans())


def resident(
    number: int, size: int = 10, *, reload_s: float = 1.0, idle_s: float = 100.0, **changes: Standing
) -> Resident:
    return Resident(ref(number), size, reload_s, NOW - idle_s, changes.get("standing", Standing.UNUSED))


@given(residents, demands)
def test_what_is_left_fits_or_nothing_more_may_go(held: list[Resident], demand: Demand) -> None:
    """And the shortage is told to the byte."""
    choice = choose(held, demand, NOW)
    left = sum(one.size_bytes for one in held if one.ref not in choice.victims)
    assert choice.short_bytes == max(0, left + demand.needed_bytes - demand.budget_bytes)
    if choice.short_bytes:
        highest = Standing.SERVING if demand.lazy else Standing.UNUSED
        stays = [one for one in held if one.ref not in choice.victims and one.size_bytes]
        assert all(one.standing > highest for one in stays)


@given(residents, demands)
def test_a_known_good_never_goes_and_what_serves_only_where_it_may(held: list[Resident], demand: Demand) -> None:
    """Whatever the shortage."""
    standings = {one.ref: one.standing for one in held}
    for victim in choose(held, demand, NOW).victims:
        assert standings[victim] is not Standing.PINNED
        assert demand.lazy or standings[victim] is Standing.UNUSED


@given(residents, demands)
def test_none_goes_in_vain(held: list[Resident], demand: Demand) -> None:
    """Without any one of the victims the rest would not fit."""
    choice = choose(held, demand, NOW)
    sizes = {one.ref: one.size_bytes for one in held}
    total = sum(sizes.values()) + demand.needed_bytes - demand.budget_bytes
    if not choice.short_bytes:
        for fewer in combinations(choice.victims, max(0, len(choice.victims) - 1)):
            assert not choice.victims or total - sum(sizes[one] for one in fewer) > 0


@given(residents, demands)
def test_the_order_of_versions_changes_nothing(held: list[Resident], demand: Demand) -> None:
    """The same versions, the same victims."""
    assert choose(held, demand, NOW) == choose(held[::-1], demand, NOW)


def test_the_longest_idle_goes_before_the_just_used() -> None:
    """All else being equal."""
    held = [resident(1, idle_s=10), resident(2, idle_s=1000), resident(3, idle_s=100)]
    assert choose(held, Demand(20), NOW).victims == (ref(2),)


def test_what_is_quick_to_reload_goes_before_what_is_slow() -> None:
    """A minute of loading is worth keeping longer than a second of it."""
    held = [resident(1, reload_s=60), resident(2, reload_s=1)]
    assert choose(held, Demand(10), NOW).victims == (ref(2),)


def test_what_serves_goes_after_all_that_does_not() -> None:
    """However long it was idle, and only where the operator allows it."""
    held = [resident(1, idle_s=10_000, standing=Standing.SERVING), resident(2, idle_s=1)]
    assert choose(held, Demand(10), NOW).victims == (ref(2),)
    assert choose(held, Demand(10, 10, lazy=True), NOW).victims == (ref(2), ref(1))
    assert choose(held, Demand(10, 10), NOW).short_bytes == 10


async def test_the_idle_version_goes_and_comes_back_when_it_is_weighted(tmp_path: Path) -> None:
    """Three versions, room for two: the known good stays, and a change that needs the third finds it loaded again."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, runtimes={"memory_bytes": 210 * MIB}) as stage:
        for number in (1, 2, 3):
            stage.script(number).memory_bytes = 70 * MIB
        await stage.put({1: 100, 2: 0}, known_good=1)
        await until(lambda: set(stage.dataplane.current.handles) == {ref(1), ref(2)})
        await stage.put({1: 50, 2: 0, 3: 50}, known_good=1)
        assert (await stage.plane.routes.get("digits"))["status"]["applied"] is True
        for number in (1, 2, 3):
            stage.script(number).memory_bytes = 90 * MIB
        await stage.plane.reconciler.budget.look()
        await until(lambda: set(stage.fleet.handles) == {ref(1), ref(3)})
        assert stage.plane.whereabouts(ref(2))[0] == "resting"
        rows = {row["version"]: row for row in await stage.plane.versions()}
        assert (rows[2]["state"], rows[2]["pid"]) == ("resting", None)
        await stage.put({1: 100, 2: 0, 3: 0}, known_good=1)
        await stage.put({1: 50, 2: 50, 3: 0}, known_good=1)
        await until(lambda: set(stage.dataplane.current.handles) == {ref(1), ref(2)})
        assert stage.arms() == {1: 50, 2: 50}
        assert stage.plane.whereabouts(ref(3))[0] == "resting"


async def test_a_version_that_nobody_asks_for_sends_nobody_away(tmp_path: Path) -> None:
    """It rests from the start, and a client that pins it wakes it."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, runtimes={"memory_bytes": 150 * MIB}) as stage:
        for number in (1, 2, 3):
            stage.script(number).memory_bytes = 70 * MIB
        await stage.put({1: 100, 2: 0, 3: 0}, known_good=1, pin="allowed")
        await until(lambda: len(stage.plane.reconciler.budget.resting) == 1)
        (rests,) = stage.plane.reconciler.budget.resting
        assert (await stage.predict(pin=rests.number)).error == "VersionUnavailable"
        await until(lambda: rests in stage.dataplane.current.handles)
        assert (await stage.predict(pin=rests.number)).answered_by == rests
        assert ref(1) in stage.dataplane.current.handles
        assert len(stage.fleet.handles) == 2


async def test_a_version_without_room_is_refused_with_what_lacks(tmp_path: Path) -> None:
    """What serves stays loaded; the message says how much lacks, and what can be done."""
    async with scene(tmp_path, clock=ManualClock(), runtimes={"memory_bytes": 100 * MIB}) as stage:
        stage.script(1).memory_bytes = 90 * MIB
        await stage.put({1: 100})
        view = await stage.put({1: 50, 2: 50})
        assert "digits/2 needs about 48 MiB on cpu, and 38 MiB of the budget" in view["status"]["failed"]["2"]
        assert "runtimes.lazy" in view["status"]["failed"]["2"]
        assert stage.arms() == {1: 100}
        assert (await stage.predict()).answered_by == ref(1)


async def test_lazily_an_idle_version_that_serves_goes_too_and_its_next_request_wakes_it(tmp_path: Path) -> None:
    """The known good answers meanwhile, as the fallback; it never goes itself."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, runtimes={"memory_bytes": 150 * MIB, "lazy": True}) as stage:
        for number in (1, 2, 3):
            stage.script(number).memory_bytes = 70 * MIB
        rules = [{"name": "beta", "if": {"==": [{"var": "group"}, "beta"]}, "use": 2}]
        await stage.put({1: 100}, known_good=1, fallback=1, rules=rules)
        assert (await stage.predict(context={"group": "beta"})).answered_by == ref(2)
        clock.advance(60)
        rules.append({"name": "staff", "if": {"==": [{"var": "group"}, "staff"]}, "use": 3})
        await stage.put({1: 100}, known_good=1, fallback=1, rules=rules)
        await until(lambda: set(stage.dataplane.current.handles) == {ref(1), ref(3)})
        await stage.predict(context={"group": "beta"})
        await until(lambda: set(stage.dataplane.current.handles) == {ref(1), ref(2)})
        assert (await stage.predict(context={"group": "beta"})).answered_by == ref(2)


async def test_who_was_asked_last_stays_wherever_it_was_and_a_self_inference_asks_nobody(tmp_path: Path) -> None:
    """Web workers have queues of their own: what counts is what is told of requests. A version that proves itself
    every few seconds is as idle as before."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, runtimes={"memory_bytes": 300 * MIB, "lazy": True}) as stage:
        for number in (1, 2, 3, 4):
            stage.script(number).memory_bytes, stage.script(number).load_s = 70 * MIB, 1.0

        def loaded(*numbers: int) -> bool:
            clock.advance(0.125)
            return set(stage.dataplane.current.handles) == {ref(number) for number in numbers}

        await stage.put({1: 100, 2: 0, 3: 0}, known_good=1, pin="allowed", wait=False)
        await until(lambda: loaded(1, 2, 3))
        asked = await stage.predict(pin=2)
        clock.advance(60_000)  # so long that what their loads took, by this clock, decides nothing
        stage.observer.request_finished(asked)  # once more, in another process
        clock.advance(30)
        await stage.fleet.handles[ref(3)].prove()
        await stage.put({1: 50, 2: 0, 3: 0, 4: 50}, known_good=1, pin="allowed", wait=False)
        await until(lambda: loaded(1, 2, 3, 4))
        for number in (1, 2, 3, 4):
            stage.script(number).memory_bytes = 80 * MIB
        await stage.plane.reconciler.budget.look()
        assert set(stage.plane.reconciler.budget.resting) == {ref(3)}


async def test_a_look_during_a_self_inference_takes_it_for_no_use(tmp_path: Path) -> None:
    """Looks and self-inferences both come every few seconds. Who works for a client is at work."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, runtimes={"memory_bytes": 300 * MIB}) as stage:
        for number in (1, 2, 3):
            stage.script(number).memory_bytes, stage.script(number).load_s = 70 * MIB, 1.0

        def loaded() -> bool:
            clock.advance(0.125)
            return len(stage.dataplane.current.handles) == 3

        await stage.put({1: 100, 2: 0, 3: 0}, known_good=1, pin="allowed", wait=False)
        await until(loaded)
        clock.advance(60_000)  # so long that what their loads took decides nothing
        gates = [stage.script(number).hold() for number in (2, 3)]
        working = asyncio.ensure_future(stage.predict(pin=2, timeout_s=None))
        proving = asyncio.ensure_future(stage.fleet.handles[ref(3)].prove())
        await until(lambda: stage.script(2).running and stage.script(3).running)
        await stage.plane.reconciler.budget.look()
        for number in (1, 2, 3):
            stage.script(number).memory_bytes = 140 * MIB
        for gate in gates:
            gate.set()
        await asyncio.wait({working, proving})
        await stage.plane.reconciler.budget.look()
        assert set(stage.plane.reconciler.budget.resting) == {ref(3)}


async def test_without_a_budget_nothing_is_measured(tmp_path: Path) -> None:
    """As before there was one."""
    async with scene(tmp_path, clock=ManualClock()) as stage:
        stage.script(1).memory_bytes = 1 << 50
        await stage.put({1: 100, 2: 0})
        await until(lambda: len(stage.dataplane.current.handles) == 2)
        assert repr(stage.plane.reconciler.budget) == "<MemoryBudget [0 resting | 0 coming]>"
