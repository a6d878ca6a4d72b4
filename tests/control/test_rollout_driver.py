"""Rollouts at work: real serving, real evidence, scripted versions; time is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.control.memory_store import MemoryStore
from gateway.errors import Conflict, ModelError
from gateway.messages import Arrays
from gateway.serving.scripted_engine import double
from tests.control.scene import MODEL, Scene, scene

QUICK: dict[str, Any] = {
    "candidate": 2,
    "steps": [{"weight": 20, "min_requests": 20, "min_s": 1}, {"weight": 50, "min_requests": 20, "min_s": 1}],
    "shadow": None,
    "max_harm": {"error": 0.2},
    "bake": {"holdback": 20, "min_s": 1, "min_requests": 20},
}


def sometimes(every: int) -> Callable[[Arrays], Arrays]:
    """Raises on each ``every``-th request, beginning with the first."""
    count = iter(range(10**9))

    def model(inputs: Arrays) -> Arrays:
        if next(count) % every == 0:
            raise ModelError("it is broken")
        return double(inputs)

    return model


def wrong(inputs: Arrays) -> Arrays:
    return {name: value + 1 for name, value in double(inputs).items()}


async def begin(stage: Scene, **changes: Any) -> dict[str, Any]:
    await stage.put({1: 100}, fallback=1, known_good=1)
    return await stage.plane.rollouts.start(MODEL, QUICK | changes, actor="olga")


async def traffic(stage: Scene, clock: ManualClock, *, rounds: int, each: int = 20) -> None:
    """Requests, then a quarter of a second, again and again; what runs beside gets its turns."""
    for _ in range(rounds):
        for _ in range(each):
            await stage.predict()
        await passed(clock)


async def passed(clock: ManualClock, seconds: float = 0.25) -> None:
    clock.advance(seconds)
    for turn in range(40):
        await asyncio.sleep(0 if turn % 10 else 0.001)


async def until_phase(
    stage: Scene, clock: ManualClock, phase: str, *, rounds: int = 400, each: int = 20
) -> dict[str, Any]:
    for _ in range(rounds):
        view = await stage.plane.rollouts.get(MODEL)
        if view["rollout"]["phase"] == phase:
            return view
        await traffic(stage, clock, rounds=1, each=each)
    raise AssertionError(f"it is {view['rollout']['phase']}, not {phase}: {view.get('live')}")


async def report(stage: Scene, clock: ManualClock) -> dict[str, Any]:
    for _ in range(100):
        if found := await stage.plane.rollouts.reports(MODEL):
            return await stage.plane.rollouts.report(MODEL, found[0]["id"])
        await passed(clock, 0.5)
    raise AssertionError("no report was written")


async def test_a_good_candidate_is_promoted_and_proved(tmp_path: Path) -> None:
    """Through its steps and its bake; each step is audited with its evidence; the report and the proof are kept."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        view = await begin(stage)
        assert (view["running"], view["rollout"]["phase"]) == (True, "preparing")
        await until_phase(stage, clock, "promoted")
        status = (await stage.plane.routes.get(MODEL))["status"]
        assert status["split"] == [{"version": 2, "weight": 100}]
        assert status["known_good"] == 2
        assert status["proved"][-1]["version"] == 2
        assert status["proved"][-1]["evidence"]["streams"]["error"]["verdict"] == "healthy"
        written = await report(stage, clock)
        assert written["verdict"] == "promoted"
        assert [mark["percent"] for mark in written["weights"]] == [0.0, 20.0, 50.0, 80.0, 100.0]
        records = await stage.store.audit(limit=1000)
        actions = [record.entry.action for record in records if record.entry.action.startswith("rollout-")]
        assert actions == [
            "rollout-start",
            "rollout-step",
            "rollout-step",
            "rollout-bake",
            "rollout-promoted",
            "rollout-report",
        ]
        last = next(record for record in records if record.entry.action == "rollout-promoted")
        assert last.entry.detail is not None
        assert last.entry.detail["evidence"]["streams"]["error"]["candidate"]["units"] > 20
        assert all(record.code == 200 for record in stage.recording.requests)


async def test_a_candidate_that_fails_a_fifth_of_its_requests_is_rolled_back(tmp_path: Path) -> None:
    """Too seldom for the guard; proved by evidence; the fallback kept it from the callers."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage)
        await until_phase(stage, clock, "stepping")
        stage.script(2).model = sometimes(4)
        await until_phase(stage, clock, "rolled-back")
        assert stage.arms() == {1: 100}
        [told] = stage.recording.rollbacks
        assert (told.trigger, told.target, told.quarantined) == ("rollout:error", 1, (2,))
        [entry] = await stage.audited("rollback")
        assert entry.actor == "rollout"
        assert entry.detail is not None
        assert entry.detail["evidence"]["streams"]["error"]["verdict"] == "harmful"
        written = await report(stage, clock)
        assert (written["verdict"], written["trigger"]) == ("rolled-back", "error")
        assert written["requests_harmed"] > 0
        assert "of the candidate" in written["reason"]
        assert all(record.code == 200 for record in stage.recording.requests)


async def test_two_operators_who_begin_at_once_get_one_rollout(tmp_path: Path) -> None:
    """Compare-and-set decides; the other is told what runs."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await stage.put({1: 100}, known_good=1)
        calls = [
            stage.plane.rollouts.start(MODEL, QUICK | {"candidate": candidate}, actor=actor)
            for candidate, actor in ((2, "olga"), (3, "otto"))
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Conflict", "dict"]
        with pytest.raises(Conflict, match="abort"):
            await stage.plane.routes.set_weights(MODEL, {"1": 50, "3": 50}, actor="otto")


async def test_nothing_goes_on_while_the_store_is_down_and_harm_still_goes_back(tmp_path: Path) -> None:
    """The driver stands still; what this replica counted proves the harm; the rollback is stored when the store is
    back, and reported."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path) as stage:
        await begin(stage)
        await until_phase(stage, clock, "stepping")
        store.fail("the disk is full")
        await traffic(stage, clock, rounds=30)
        assert stage.arms() == {1: 80, 2: 20}
        stage.script(2).model = sometimes(2)
        for _ in range(300):
            await traffic(stage, clock, rounds=1)
            if stage.recording.rollbacks:
                break
        assert stage.arms() == {1: 100}
        assert not stage.recording.rollbacks[0].durable
        store.fail(None)
        written = await report(stage, clock)
        assert written["verdict"] == "rolled-back"
        assert (await stage.plane.rollouts.get(MODEL))["rollout"]["phase"] == "rolled-back"
