"""Versions on one device get what their weights say, and nothing of what they do not ask for is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import VersionRef
from gateway.serving.batcher import Batcher
from gateway.serving.devices import Devices, Turn
from gateway.serving.engine import BatchPolicy
from gateway.serving.item import Priority
from tests.serving.stage import Stage, ask, rows, turns, until

MAIN, CANARY = VersionRef("digits", 3), VersionRef("digits", 4)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


async def shared(stage: Stage, **weights: float) -> tuple[Batcher, Batcher]:
    """Two versions on one GPU, a batch at a time; a batch of either takes 10 ms."""
    devices = Devices(width=1)
    made = []
    for ref, weight in ((MAIN, weights["main"]), (CANARY, weights["canary"])):
        stage.script(ref).delay_s = lambda _: 0.010
        stage.script(ref).depth = 2
        stage.script(ref).device = "cuda:0"
        batcher = await stage.batcher(ref=ref, devices=devices, batch=BatchPolicy(max_rows=2))
        batcher.weigh(weight)
        made.append(batcher)
    return made[0], made[1]


async def run(stage: Stage, batches: int) -> None:
    for _ in range(batches):
        await turns()
        stage.clock.advance(0.010)
    await turns()


async def test_two_loaded_versions_get_the_devices_time_by_their_weights(stage: Stage):
    """Three to one, over forty batches."""
    main, canary = await shared(stage, main=3, canary=1)
    items = [batcher.submit(rows(1), 1, None) for _ in range(90) for batcher in (main, canary)]
    await run(stage, 40)
    assert len(stage.script(MAIN).runs) == pytest.approx(30, abs=1)
    assert len(stage.script(CANARY).runs) == pytest.approx(10, abs=1)
    await run(stage, 60)
    assert all(item.future.done() for item in items)


async def test_a_version_that_has_nothing_to_do_costs_the_others_nothing(stage: Stage):
    """The other runs batch after batch, and two at a time are under way."""
    main, _ = await shared(stage, main=1, canary=99)
    items = [main.submit(rows(1), 1, None) for _ in range(80)]
    await run(stage, 40)
    assert len(stage.script(MAIN).runs) == 40
    assert all(item.future.done() for item in items)


async def test_time_not_asked_for_is_not_saved_up(stage: Stage):
    """A version idle for a hundred batches gets its share from then on, and not the hundred."""
    main, canary = await shared(stage, main=1, canary=1)
    for _ in range(400):
        main.submit(rows(1), 1, None)
    await run(stage, 100)
    for _ in range(100):
        canary.submit(rows(1), 1, None)
    await run(stage, 20)
    assert len(stage.script(CANARY).runs) == pytest.approx(10, abs=2)


async def test_an_arm_with_a_hundredth_of_the_traffic_takes_the_next_turn_with_what_it_has(stage: Stage):
    """It waits neither for a batch of its own size nor for a hundred batches of the other."""
    main, canary = await shared(stage, main=99, canary=1)
    for _ in range(100):
        main.submit(rows(1), 1, None)
    await run(stage, 5)
    single = ask(canary, 7)
    await run(stage, 3)
    assert single.done()
    assert await single == [14.0]
    assert stage.script(CANARY).runs == [(1,)]


async def test_shadow_work_has_the_device_only_when_no_version_wants_it(stage: Stage):
    """Whatever its weight."""
    main, shadow = await shared(stage, main=1, canary=99)
    copies = [shadow.submit(rows(1), 1, None, priority=Priority.SPARE) for _ in range(4)]
    for _ in range(20):
        main.submit(rows(1), 1, None)
    await run(stage, 9)
    assert len(stage.script(MAIN).runs) >= 8
    await run(stage, 6)
    assert all(copy.future.done() for copy in copies)


async def test_work_that_comes_behind_waiting_shadow_work_takes_its_turn(stage: Stage):
    """A version whose shadows wait for a quiet device asks anew when something comes that a client waits for."""
    main, canary = await shared(stage, main=1, canary=1)
    for _ in range(80):
        main.submit(rows(1), 1, None)
    await turns()
    copy = canary.submit(rows(1), 1, None, priority=Priority.SPARE)
    await run(stage, 2)
    asked = canary.submit(rows(2), 1, None)
    await run(stage, 4)
    assert asked.future.done()
    assert not copy.future.done()
    await run(stage, 60)
    assert copy.future.done()


async def test_a_version_that_ends_while_it_has_the_device_gives_it_back(stage: Stage):
    """Who waits for it goes on."""
    main, canary = await shared(stage, main=1, canary=1)
    gate = stage.script(MAIN).hold()
    first = ask(main, 1)
    await until(lambda: stage.script(MAIN).running)
    second = ask(canary, 2)
    await turns()
    assert stage.script(CANARY).runs == []
    await main.close("it was rolled back")
    await run(stage, 2)
    assert await second == [4.0]
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], Exception)
    gate.set()


def test_versions_on_the_cpu_take_no_turns():
    """The kernel shares the processors among them."""
    assert Devices().turn("cpu", lambda: None) is None


@given(st.lists(st.floats(0.5, 20), min_size=2, max_size=5), st.lists(st.floats(0.001, 0.05), min_size=5, max_size=5))
def test_shares_follow_weights_whatever_the_batches_take(weights: list[float], costs: list[float]):
    """Among any number of versions that always want more: each within two batches of its due."""
    devices = Devices(width=1)
    lanes: list[Turn] = []
    holders: list[int] = []

    def take(number: int) -> None:
        if lanes[number].take():
            holders.append(number)

    for number, weight in enumerate(weights):
        turn = devices.turn("cuda", partial(take, number), weight)
        assert turn is not None
        lanes.append(turn)
    for number in range(len(lanes)):
        take(number)
    used = [0.0] * len(lanes)
    for _ in range(400):
        (holder,) = holders
        holders.clear()
        lanes[holder].give_back(costs[holder])
        used[holder] += costs[holder]
        take(holder)
        lanes[holder].pass_on()
    total, longest = sum(used), max(costs)
    for share, weight in zip(used, weights, strict=True):
        assert abs(share - total * weight / sum(weights)) <= 2 * longest * max(1.0, max(weights) / min(weights))
