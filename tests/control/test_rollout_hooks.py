"""What webhooks are owed stands with the change that owes it: leaders may die at any moment between the two."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.control.rollout_driver import RolloutDriver
from gateway.control.rollout_hooks import settled
from gateway.control.rollout_state import MAX_TELLINGS, Phase, RolloutState
from gateway.control.webhooks import Webhooks
from tests.control.receiver import Receiver, receiver
from tests.control.rollout_scene import QUICK, begin, passed, report, traffic, until_phase
from tests.control.scene import MODEL, Scene, scene, until
from tests.control.test_rollout import begun


def next_leader(stage: Scene) -> RolloutDriver:
    """As a process that began after another had died: it knows what is stored and kept, and nothing else."""
    plane = stage.plane
    return RolloutDriver(
        store=stage.store,
        coordination=plane.coordination,
        counts=plane.collector,
        reconciler=plane.reconciler,
        rollbacks=plane.rollbacks,
        webhooks=Webhooks({}, clock=stage.clock),
        clock=stage.clock,
    )


def state(**changes: Any) -> RolloutState:
    found = begun(**changes).status.rollout
    assert found is not None
    return found


async def rounds(driver: RolloutDriver, clock: ManualClock, count: int = 12) -> None:
    for _ in range(count):
        await driver.tick()
        await passed(clock, 0.3)


def names(told: Receiver) -> list[str]:
    return [headers["x-turnout-delivery"] for headers, _ in told.got]


def bodies(told: Receiver) -> list[dict[str, Any]]:
    return [json.loads(body) for _, body in told.got]


async def test_a_step_whose_leader_died_before_it_told_anybody_is_told_by_the_next(tmp_path: Path) -> None:
    """Once; the leader after that one knows it is told; one that knows nothing at all gives it the same name."""
    clock = ManualClock()
    async with receiver(200) as told, scene(tmp_path, clock=clock, home=tmp_path) as stage:
        steps = [{**step, "min_s": 1000} for step in QUICK["steps"]]
        await begin(stage, webhooks={"after": [{"url": told.url}]}, steps=steps)
        await until_phase(stage, clock, "stepping")
        await until(lambda: told.got)
        await traffic(stage, clock, rounds=8)
        await stage.plane.driver.close()
        assert len(told.got) == 1
        await stage.plane.rollouts.promote(MODEL, actor="olga")
        for leader in range(2):
            await rounds(next_leader(stage), clock)
            assert len(told.got) == 2, leader
        assert bodies(told)[-1]["next"] == {"phase": "stepping", "percent": 50.0}
        assert bodies(told)[-1]["by"] == "olga"
        view = await stage.plane.rollouts.get(MODEL)
        await stage.plane.coordination.forget(f"{MODEL}/{view['rollout']['id']}")
        await rounds(next_leader(stage), clock)
        assert len(set(names(told)[:2])) == 2
        assert names(told)[2:] == names(told)[:2]


async def test_a_rollback_whose_leader_died_before_it_told_anybody_is_told_by_the_next(tmp_path: Path) -> None:
    """And the report is written by it, with the delivery; whoever leads after that sends nothing more."""
    clock = ManualClock()
    async with receiver(200) as told, scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage, webhooks={"rolled_back": [{"url": told.url}]})
        await until_phase(stage, clock, "baking")  # a step goes on by evidence, and what it went by is kept
        await stage.plane.driver.close()
        await stage.plane.routes.rollback(MODEL, to=None, reason="it looks odd", actor="olga")
        assert told.got == []
        for _ in range(2):
            await rounds(next_leader(stage), clock)
        [body] = bodies(told)
        assert (body["event"], body["reason"], body["next"]["phase"]) == ("rolled-back", "it looks odd", "rolled-back")
        assert body["evidence"]["streams"]["error"]["candidate"]["units"] > 0
        written = await report(stage, clock)
        assert [hook["state"] for hook in written["webhooks"]] == ["delivered"]
        assert written["evidence"]["streams"]["error"]["candidate"]["units"] > 0


async def test_pauses_and_steps_at_one_step_are_told_each(tmp_path: Path) -> None:
    """Paused and resumed twice at one step: four changes, four names."""
    clock = ManualClock()
    async with receiver(200) as told, scene(tmp_path, clock=clock, home=tmp_path) as stage:
        steps = [{**QUICK["steps"][0], "min_s": 1000}]
        await begin(stage, webhooks={"after": [{"url": told.url}]}, steps=steps)
        await until_phase(stage, clock, "stepping")
        for _ in range(2):
            await stage.plane.rollouts.pause(MODEL, actor="olga", reason="lunch")
            await stage.plane.rollouts.resume(MODEL, actor="olga")
        await until(lambda: len(told.got) == 5, clock=clock, step_s=0.1)
        assert [body["next"]["phase"] for body in bodies(told)[1:]] == ["paused", "stepping"] * 2
        assert bodies(told)[1]["reason"] == "lunch"
        assert len(set(names(told))) == 5


def test_a_rollout_owes_only_those_whom_its_plan_names() -> None:
    """The state of a plan without webhooks stays small; of one with many changes too."""
    alone = state().moved(Phase.STEPPING, at=1.0, by="rollout", step=0)
    assert alone.tellings == ()
    told = state(webhooks={"after": [{"url": "http://127.0.0.1/x"}]})
    for turn in range(2 * MAX_TELLINGS):
        told = told.moved(Phase.PAUSED if turn % 2 else Phase.STEPPING, at=float(turn), by="olga", step=0)
    assert [told.tellings[0].number, told.tellings[-1].number] == [MAX_TELLINGS + 1, 2 * MAX_TELLINGS]
    assert RolloutState.from_json(told.to_json()) == told
    assert not settled("digits/x", told, [])


def test_a_state_that_an_older_gateway_wrote_owes_nothing() -> None:
    """It has no such field."""
    body = state().to_json()
    del body["tellings"]
    assert RolloutState.from_json(body).tellings == ()
