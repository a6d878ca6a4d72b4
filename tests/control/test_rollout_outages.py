"""Whatever ends or stands still in whatever phase of a rollout: it goes on where it was, and to the same end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.control.memory_store import MemoryStore
from tests.control.rollout_scene import begin, passed, report, traffic, until_phase
from tests.control.scene import MODEL, Scene, scene

GATED: dict[str, Any] = {
    "steps": [{"weight": 20, "min_requests": 20, "min_s": 1, "gate": "manual"}],
    "shadow": {"share": 0.5, "min_pairs": 20, "min_s": 1},
    "needs": ["error"],
}
PHASES = ("preparing", "shadowing", "stepping", "waiting", "paused", "baking")


async def brought_to(stage: Scene, clock: ManualClock, phase: str) -> None:
    """To the phase, by what an operator does where he must."""
    if phase == "preparing":
        return
    if phase == "baking":
        await until_phase(stage, clock, "waiting")
        await stage.plane.rollouts.promote(MODEL, actor="olga")
    if phase == "paused":
        await until_phase(stage, clock, "stepping")
        await stage.plane.rollouts.pause(MODEL, actor="olga", reason="lunch")
    await until_phase(stage, clock, phase)


async def brought_to_its_end(stage: Scene, clock: ManualClock) -> dict[str, Any]:
    """Opens what is for an operator to open, and nothing else."""
    for _ in range(400):
        view = await stage.plane.rollouts.get(MODEL)
        phase = view["rollout"]["phase"]
        if not view["running"]:
            break
        if phase == "paused":
            await stage.plane.rollouts.resume(MODEL, actor="olga")
        if phase == "waiting":
            await stage.plane.rollouts.promote(MODEL, actor="olga")
        await traffic(stage, clock, rounds=1)
    return await report(stage, clock)


@pytest.mark.parametrize("phase", PHASES)
async def test_a_gateway_that_restarts_in_any_phase_goes_on_in_it(tmp_path: Path, phase: str) -> None:
    """At the same weights, never back and never a step further; then to its promotion."""
    clock, store = ManualClock(), MemoryStore()
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path) as stage:
        await begin(stage, **GATED)
        await brought_to(stage, clock, phase)
        before = (await stage.plane.routes.get(MODEL))["status"]
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path, versions=0) as again:
        now = (await again.plane.routes.get(MODEL))["status"]
        assert (now["split"], now["rollout"]["phase"], now["rollout"]["step"]) == (
            before["split"],
            phase,
            before["rollout"]["step"],
        )
        written = await brought_to_its_end(again, clock)
        assert written["verdict"] == "promoted"
        assert [mark["percent"] for mark in written["weights"]] == [0.0, 20.0, 80.0, 100.0]


@pytest.mark.parametrize("phase", PHASES[1:])
async def test_a_store_that_is_away_in_any_phase_stops_the_rollout_and_no_request(tmp_path: Path, phase: str) -> None:
    """For a while in which each step would have had its time and its requests; then it goes on to its promotion."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path) as stage:
        await begin(stage, **GATED)
        await brought_to(stage, clock, phase)
        await passed(clock)
        standing = stage.arms()
        store.fail("the disk is full")
        await traffic(stage, clock, rounds=20)
        assert stage.arms() == standing
        store.fail(None)
        for _ in range(8):  # the store is asked again by the clock
            await passed(clock, 1.0)
        written = await brought_to_its_end(stage, clock)
        assert written["verdict"] == "promoted"
        assert [mark["percent"] for mark in written["weights"]] == [0.0, 20.0, 80.0, 100.0]
        assert all(record.code == 200 for record in stage.recording.requests)


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
@pytest.mark.parametrize("phase", ["shadowing", "stepping", "baking"])
async def test_a_wall_clock_that_jumps_while_the_gateway_is_down_is_waited_out_by_no_step(
    tmp_path: Path, phase: str, jump_s: float
) -> None:
    """A day forward or back between two lives of the process: the rollout needs its requests all the same, and ends."""
    clock, store = ManualClock(), MemoryStore()
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path) as stage:
        await begin(stage, **GATED)
        await brought_to(stage, clock, phase)
    clock.jump_wall(jump_s)
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path, versions=0) as again:
        for _ in range(8):
            await passed(clock)
        assert (await again.plane.rollouts.get(MODEL))["rollout"]["phase"] == phase
        assert (await brought_to_its_end(again, clock))["verdict"] == "promoted"
