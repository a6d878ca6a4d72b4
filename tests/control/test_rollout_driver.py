"""Rollouts at work: real serving, real evidence, scripted versions; time is moved by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.control.coordination import Alone
from gateway.control.memory_store import MemoryStore
from gateway.control.rollout_driver import RolloutDriver
from gateway.errors import Conflict, LoadError
from tests.control.receiver import receiver
from tests.control.rollout_scene import QUICK, begin, broken, passed, report, sometimes, traffic, until_phase
from tests.control.scene import MODEL, Scene, scene, until


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


async def test_after_a_restart_evidence_begins_anew_in_a_new_epoch(tmp_path: Path) -> None:
    """Which keys were counted was in the process that ended: the rollout goes on at its step, with fresh evidence on
    the smaller budget, and still ends well."""
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path) as stage:
        await begin(stage)
        await until_phase(stage, clock, "stepping")
        await traffic(stage, clock, rounds=4)
        before = (await stage.plane.routes.get(MODEL))["status"]
        assert (await stage.plane.rollouts.get(MODEL))["live"]["progress"]["units"] > 0
    async with scene(tmp_path, clock=clock, store=store, home=tmp_path, versions=0) as again:
        for _ in range(20):
            await passed(clock)
        now = (await again.plane.routes.get(MODEL))["status"]
        assert now["epoch"] == before["epoch"] + 1
        assert (now["split"], now["rollout"]["phase"]) == (before["split"], "stepping")
        assert now["rollout"]["renewals"] == 1
        assert len(await again.audited("rollout-epoch")) == 1
        await until_phase(again, clock, "promoted")


def second_driver(stage: Scene, coordination: Alone) -> RolloutDriver:
    plane = stage.plane
    return RolloutDriver(
        store=stage.store,
        coordination=coordination,
        counts=plane.collector,
        reconciler=plane.reconciler,
        rollbacks=plane.rollbacks,
        webhooks=plane.webhooks,
        clock=stage.clock,
    )


async def test_two_drivers_on_one_store_repeat_no_step(tmp_path: Path) -> None:
    """Both believe that they lead, as after a pause of one: each step is committed once, and in its order."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage)
        other = second_driver(stage, stage.plane.coordination)  # type: ignore[arg-type]
        for _ in range(200):
            await traffic(stage, clock, rounds=1)
            await asyncio.gather(other.tick(), stage.plane.driver.tick())
            if not (await stage.plane.rollouts.get(MODEL))["running"]:
                break
        await report(stage, clock)
        percents = [mark["percent"] for mark in (await stage.plane.rollouts.get(MODEL))["rollout"]["weights"]]
        assert percents == [0.0, 20.0, 50.0, 80.0, 100.0]
        for action, count in (("rollout-step", 2), ("rollout-bake", 1), ("rollout-promoted", 1), ("rollout-report", 1)):
            assert len(await stage.audited(action)) == count


async def test_a_leader_of_an_old_term_commits_nothing(tmp_path: Path) -> None:
    """It was stopped, another led meanwhile, it continues: fenced off, without a word to anybody."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage)
        await stage.plane.driver.close()
        stale = second_driver(stage, stage.plane.coordination)  # type: ignore[arg-type]
        await stage.plane.coordination.lead("rollouts")
        newer = Alone(tmp_path, clock)
        term = await newer.lead("rollouts")
        from gateway.control.store import AuditEntry, Fence

        assert term is not None
        await stage.store.commit([], AuditEntry("test", "note", "x"), fence=Fence("rollouts", term))
        revision = (await stage.store.snapshot()).revision
        for _ in range(10):
            await traffic(stage, clock, rounds=1)
            await stale.tick()
        assert (await stage.store.snapshot()).revision == revision
        assert (await stage.plane.rollouts.get(MODEL))["rollout"]["phase"] == "preparing"


async def test_a_candidate_that_does_not_load_ends_its_rollout(tmp_path: Path) -> None:
    """Aborted with the reason; nobody was sent to it."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        stage.script(2).every_load = LoadError("its file is damaged")
        await begin(stage)
        view = await until_phase(stage, clock, "aborted")
        assert "its file is damaged" in view["rollout"]["reason"]
        assert {record.answered_by.number for record in stage.recording.requests if record.answered_by} == {1}


async def test_a_clock_that_jumps_neither_hurries_nor_stalls_a_step(tmp_path: Path) -> None:
    """An hour forward is no hour; an hour back is no wait."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        long = [{"weight": 20, "min_requests": 20, "min_s": 100}]
        await begin(stage, steps=long)
        await until_phase(stage, clock, "stepping")
        clock.jump_wall(3600)
        await traffic(stage, clock, rounds=40)
        assert stage.arms() == {1: 80, 2: 20}
        clock.jump_wall(-7200)
        clock.advance(90)
        await until_phase(stage, clock, "baking", rounds=40)


async def test_deleting_the_route_ends_its_rollout(tmp_path: Path) -> None:
    """Nothing is driven any more; the report is there at once, with the evidence so far; restored, the route is at rest
    with the weights before it."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        view = await begin(stage)
        await until_phase(stage, clock, "baking")
        await stage.plane.routes.delete(MODEL, actor="olga")
        written = await stage.plane.rollouts.report(MODEL, "last")
        assert (written["verdict"], written["reason"]) == ("aborted", "the route was deleted")
        assert (written["id"], written["ended_by"]) == (view["rollout"]["id"], "olga")
        assert [mark["percent"] for mark in written["weights"]] == [0.0, 20.0, 50.0, 80.0, 0.0]
        assert written["evidence"]["streams"]["error"]["candidate"]["units"] > 0
        for _ in range(10):
            await passed(clock)
        await stage.plane.routes.restore(MODEL, view["revision"], actor="olga")
        status = (await stage.plane.routes.get(MODEL))["status"]
        assert (status["rollout"], status["split"]) == (None, [{"version": 1, "weight": 100}])


async def test_webhooks_are_asked_and_told_at_each_step_and_stand_in_the_report(tmp_path: Path) -> None:
    """The step goes on with the second answer, a yes; before and after are told once for each step; the end too."""
    clock = ManualClock()
    async with receiver(403, 200) as gate, receiver(200) as told, scene(tmp_path, clock=clock, home=tmp_path) as stage:
        hooks = {"confirm": [{"url": gate.url}], "before": [{"url": told.url}], "after": [{"url": told.url}]}
        await begin(stage, webhooks=hooks, steps=QUICK["steps"][:1])
        for _ in range(100):
            await traffic(stage, clock, rounds=1)
            waits = (await stage.plane.rollouts.get(MODEL)).get("live", {}).get("waits", [])
            if any("said no (403)" in wait for wait in waits):
                break
        assert stage.arms() == {1: 80, 2: 20}
        for _ in range(400):
            await traffic(stage, clock, rounds=1)
            if not (await stage.plane.rollouts.get(MODEL))["running"]:
                break
        written = await report(stage, clock)
        assert written["verdict"] == "promoted"
        asked = [headers["x-turnout-delivery"] for headers, _ in gate.got]
        assert (len(asked), len(set(asked))) == (3, 2)  # the step, twice; the bake
        bodies = [json.loads(body) for _, body in told.got]
        before = [body["next"]["phase"] for body in bodies if body["event"] == "before"]
        assert before == ["stepping", "baking", "promoted"]
        after = [(body["phase"], body["next"]["phase"]) for body in bodies if body["event"] == "after"]
        assert after == [("preparing", "stepping"), ("stepping", "baking"), ("baking", "promoted")]
        assert bodies[-1]["evidence"]["streams"]["error"]["verdict"] == "healthy"
        for _ in range(100):  # the report is written at once, and again when the last webhook is done
            if {hook["state"] for hook in written["webhooks"]} == {"delivered"}:
                break
            await passed(clock)
            written = await report(stage, clock)
        assert {hook["state"] for hook in written["webhooks"]} == {"delivered"}
        assert len({headers["x-turnout-delivery"] for headers, _ in told.got}) == len(told.got)


async def test_a_rolled_back_webhook_is_told_after_the_rollback(tmp_path: Path) -> None:
    """With what was found; the rollback was long in force."""
    clock = ManualClock()
    async with receiver(200) as told, scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage, webhooks={"rolled_back": [{"url": told.url}]})
        await until_phase(stage, clock, "stepping")
        stage.script(2).model = sometimes(3)
        await until_phase(stage, clock, "rolled-back")
        await until(lambda: told.got, clock=clock, step_s=0.1)
        [(headers, body)] = told.got
        assert headers["x-turnout-event"] == "rolled-back"
        assert json.loads(body)["evidence"]["streams"]["error"]["verdict"] == "harmful"
        for _ in range(20):
            await passed(clock)
        written = await report(stage, clock)
        assert [hook["state"] for hook in written["webhooks"]] == ["delivered"]


async def test_the_guard_may_be_faster_and_the_report_says_so(tmp_path: Path) -> None:
    """A candidate that fails outright: taken off within a burst, by whichever comes first; the rollout ends with it,
    and only the candidate is quarantined, not the versions beside it."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await stage.put({1: 80, 3: 20}, fallback=1, known_good=1)
        await stage.plane.rollouts.start(MODEL, QUICK, actor="olga")
        await until_phase(stage, clock, "stepping")
        stage.script(2).model = broken
        while not stage.recording.rollbacks:
            await stage.predict()  # no time passes: the driver has no round meanwhile
        await passed(clock)
        view = await until_phase(stage, clock, "rolled-back")
        assert view["rollout"]["harm"] == "guard:error-burst"
        assert (await report(stage, clock))["trigger"] == "guard:error-burst"
        status = (await stage.plane.routes.get(MODEL))["status"]
        assert list(status["quarantined"]) == ["2"]
        assert stage.arms() == {1: 100}
