"""What users of other delivery systems suffered from, each as a test that it cannot happen here.

The numbers are those of the table in docs/architecture.md. Real serving, scripted versions, time moved by hand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.control.rollout import targets
from gateway.messages import VersionRef
from gateway.serving.scripted_engine import double
from tests.control.rollout_scene import QUICK, begin, broken, passed, report, sometimes, traffic, until_phase
from tests.control.scene import MODEL, Scene, ref, scene, until
from tests.listening import listening


@asynccontextmanager
async def rolling(tmp_path: Path, phase: str = "stepping", **plan: Any) -> AsyncIterator[tuple[Scene, ManualClock]]:
    """A gateway whose rollout of version 2 is in that phase."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage, **plan)
        await until_phase(stage, clock, phase)
        yield stage, clock


async def status(stage: Scene) -> dict[str, Any]:
    found: dict[str, Any] = (await stage.plane.routes.get(MODEL))["status"]
    return found


async def owners(stage: Scene, keys: range) -> dict[str, int]:
    """Which version each key's request is answered by."""
    found = {}
    for key in keys:
        record = await stage.predict(key=f"user-{key}")
        assert record.answered_by is not None
        found[f"user-{key}"] = record.answered_by.number
    return found


async def test_pain_4_a_failed_analysis_stops_the_rollout(tmp_path: Path) -> None:
    """Steps that have all their requests and time do not go on over harm: it is looked at first."""
    async with rolling(tmp_path) as (stage, clock):
        stage.script(2).model = sometimes(3)
        await until_phase(stage, clock, "rolled-back")
        assert stage.arms() == {1: 100}
        assert [entry.action for entry in await stage.audited("rollout-promoted")] == []


@pytest.mark.parametrize("phase", ["stepping", "baking"])
async def test_pain_5_an_abort_counts_also_after_full_promotion_was_asked_for(tmp_path: Path, phase: str) -> None:
    """Promote fully, then abort: the weights before the rollout, and it stays so."""
    async with rolling(tmp_path, phase) as (stage, clock):
        if phase == "stepping":
            await stage.plane.rollouts.promote(MODEL, actor="olga", full=True)
        await stage.plane.rollouts.abort(MODEL, actor="olga", reason="changed our minds")
        await until(lambda: stage.arms() == {1: 100})
        await traffic(stage, clock, rounds=20)
        assert stage.arms() == {1: 100}
        assert (await report(stage, clock))["verdict"] == "aborted"


async def test_pain_6_a_hook_that_never_answers_delays_no_rollback(tmp_path: Path) -> None:
    """The step waits for its confirmation; harm that comes meanwhile is rolled back at once."""
    clock = ManualClock()
    answered = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answered.wait()

    async with listening(never) as port, scene(tmp_path, clock=clock, home=tmp_path) as stage:
        url = f"http://127.0.0.1:{port}/"
        hooks = {"confirm": [{"url": url}], "rolled_back": [{"url": url}]}
        await begin(stage, webhooks=hooks)
        waits: list[str] = []
        for _ in range(60):
            await traffic(stage, clock, rounds=1)
            waits = (await stage.plane.rollouts.get(MODEL)).get("live", {}).get("waits", [])
            if any("confirmation" in wait for wait in waits):
                break
        assert any("confirmation" in wait for wait in waits), waits
        assert stage.arms() == {1: 80, 2: 20}
        stage.script(2).model = sometimes(2)
        await until_phase(stage, clock, "rolled-back", rounds=100)
        assert stage.arms() == {1: 100}
        answered.set()


async def test_pain_7_a_promotion_does_not_get_stuck_when_its_leader_ends(tmp_path: Path) -> None:
    """In the bake the driver ends; another takes over and finishes."""
    async with rolling(tmp_path, "baking") as (stage, clock):
        await stage.plane.driver.close()
        await traffic(stage, clock, rounds=10)
        assert (await stage.plane.rollouts.get(MODEL))["rollout"]["phase"] == "baking"
        stage.plane.driver.start()
        await until_phase(stage, clock, "promoted")
        assert stage.arms() == {2: 100}


async def test_pain_8_after_promotion_the_way_back_is_one_step_and_needs_no_load(tmp_path: Path) -> None:
    """The version before stays loaded and warm; harm in the bake goes back by itself, and later an operator can."""
    async with rolling(tmp_path, "promoted") as (stage, _):
        before = list(stage.assembled)
        view = await stage.plane.routes.rollback(MODEL, to=1, reason="a customer called", actor="olga")
        assert (view["changed"], stage.arms(), stage.assembled) == (True, {1: 100}, before)
        assert (await stage.predict()).answered_by == ref(1)


async def test_pain_8_harm_in_the_bake_goes_back(tmp_path: Path) -> None:
    """At 80% of the traffic, with nobody watching."""
    async with rolling(tmp_path, "baking") as (stage, clock):
        stage.script(2).model = sometimes(4)
        await until_phase(stage, clock, "rolled-back")
        assert (stage.arms(), (await status(stage))["known_good"]) == ({1: 100}, 1)


async def test_pain_9_a_rollback_does_not_walk_the_weights(tmp_path: Path) -> None:
    """From 50% to none in one revision."""
    async with rolling(tmp_path, "baking") as (stage, clock):
        stage.script(2).model = sometimes(4)
        await until_phase(stage, clock, "rolled-back")
        marks = [mark["percent"] for mark in (await stage.plane.rollouts.get(MODEL))["rollout"]["weights"]]
        assert marks[-2:] == [80.0, 0.0]
        assert len(await stage.audited("rollback")) == 1


async def test_pain_10_no_request_fails_while_it_goes_back(tmp_path: Path) -> None:
    """The known good never left: nothing is started or waited for; what the candidate still has is answered."""
    async with rolling(tmp_path) as (stage, clock):
        loads = [version for version in stage.assembled if version == ref(1)]
        stage.script(2).model = broken
        await traffic(stage, clock, rounds=30)
        assert stage.arms() == {1: 100}
        assert {record.code for record in stage.recording.requests} == {200}
        assert [version for version in stage.assembled if version == ref(1)] == loads == [ref(1)]


async def test_pain_11_who_was_on_the_candidate_stays_on_it_up_to_the_promotion(tmp_path: Path) -> None:
    """No key flaps back at a step, at the bake or at the end."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage)
        seen: dict[str, int] = {}
        for phase in ("stepping", "baking", "promoted"):
            await until_phase(stage, clock, phase)
            now = await owners(stage, range(200))
            assert {key for key, version in seen.items() if version == 2} <= {
                key for key, version in now.items() if version == 2
            }
            seen = now
        assert set(seen.values()) == {2}


async def test_pain_12_a_new_rollout_inherits_no_evidence(tmp_path: Path) -> None:
    """The same version, lifted and tried again: its counts begin at nothing, and it may well be promoted."""
    async with rolling(tmp_path) as (stage, clock):
        stage.script(2).model = sometimes(3)
        await until_phase(stage, clock, "rolled-back")
        first = await report(stage, clock)
        stage.script(2).model = double
        await stage.plane.routes.lift(MODEL, 2, actor="olga")
        view = await stage.plane.rollouts.start(MODEL, QUICK, actor="olga")
        assert view["rollout"]["id"] != first["id"]
        assert view["live"].get("judgement", {}) == {}
        await until_phase(stage, clock, "promoted")
        [promoted] = await stage.audited("rollout-promoted")
        assert promoted.detail is not None
        assert promoted.detail["evidence"]["streams"]["error"]["candidate"]["bad"] == 0


async def test_pain_13_going_back_starts_no_third_version(tmp_path: Path) -> None:
    """Other versions are loaded beside; all goes to the known good, and to nothing else."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await stage.put({1: 100, 3: 0, 4: 0}, fallback=1, known_good=1)
        await stage.plane.rollouts.start(MODEL, QUICK, actor="olga")
        await until_phase(stage, clock, "stepping")
        stage.script(2).model = sometimes(3)
        await until_phase(stage, clock, "rolled-back")
        mark = len(stage.recording.requests)
        await traffic(stage, clock, rounds=5)
        assert {record.answered_by for record in stage.recording.requests[mark:]} == {VersionRef(MODEL, 1)}


async def test_pain_38_one_harm_is_told_once(tmp_path: Path) -> None:
    """One rollback, one record, one report; not a message every round."""
    async with rolling(tmp_path) as (stage, clock):
        stage.script(2).model = sometimes(3)
        await until_phase(stage, clock, "rolled-back")
        await report(stage, clock)
        revision = (await stage.store.snapshot()).revision
        await traffic(stage, clock, rounds=100)
        assert (await stage.store.snapshot()).revision == revision
        assert len(stage.recording.rollbacks) == 1


async def test_pain_40_nothing_rolls_back_in_a_circle(tmp_path: Path) -> None:
    """The known good turns bad after the rollback: what was rolled back is no way out, so the route stays, and the
    guard says so once."""
    async with rolling(tmp_path) as (stage, clock):
        stage.script(2).model = sometimes(3)
        await until_phase(stage, clock, "rolled-back")
        stage.script(1).model = broken
        await traffic(stage, clock, rounds=60)
        assert stage.arms() == {1: 100}
        assert len(stage.recording.rollbacks) == 1
        document = stage.plane.reconciler.desired.routes[MODEL].document
        assert targets(document) == (1,)
        assert len(await stage.audited("guard-no-target")) == 1
        await passed(clock)
