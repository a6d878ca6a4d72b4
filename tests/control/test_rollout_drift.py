"""A rollout whose plan says so waits while an alarm of drift stands about its candidate; it never goes back by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.control.alarms import Alarm
from gateway.control.rollout_drift import HOLDING
from gateway.control.rollout_plan import PlanSpec
from gateway.errors import InvalidInput
from gateway.messages import VersionRef
from gateway.telemetry.drift.blame import ADVICE, DATA_PIPELINE, WORLD
from gateway.telemetry.drift.looking import DriftAlarm
from tests.control.rollout_scene import begin, sometimes, traffic, until_phase
from tests.control.scene import MODEL, Scene, scene

CANDIDATE = VersionRef(MODEL, 2)


async def alarm(stage: Scene, blame: str, version: VersionRef = CANDIDATE, *, raised: bool = True) -> None:
    """Written as the watch's are: under the name that it gives them."""
    told = DriftAlarm(MODEL, version, blame, raised, ("x[0]",), "x[0]: its values are missing", "look", {})
    kind = "data-pipeline" if told.broken_data else "drift"
    await stage.plane.alarms.write(Alarm(told.name, kind, f"route/{MODEL}", raised, told.reason))


async def standing(stage: Scene) -> tuple[str, int, list[str]]:
    """Phase, step, and what is waited for."""
    view = await stage.plane.rollouts.get(MODEL)
    return view["rollout"]["phase"], view["rollout"]["step"], view["live"]["waits"]


@pytest.mark.parametrize("blame", HOLDING)
async def test_an_alarm_about_the_candidate_holds_the_step_and_its_end_lets_it_go_on(
    tmp_path: Path, blame: str
) -> None:
    """However many requests are fine; what it waits for is said, nothing goes back."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage, on_drift="hold")
        await until_phase(stage, clock, "stepping")
        await alarm(stage, blame)
        await traffic(stage, clock, rounds=40)
        phase, step, waits = await standing(stage)
        assert (phase, step) == ("stepping", 0)
        (wait,) = [wait for wait in waits if "alarm of drift" in wait]
        assert blame in wait
        assert "its values are missing" in wait
        await alarm(stage, blame, raised=False)
        await until_phase(stage, clock, "promoted")
        assert not await stage.audited("rollback")


async def test_an_operator_promotes_past_an_alarm(tmp_path: Path) -> None:
    """On his word: the next step is held again."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage, on_drift="hold")
        await until_phase(stage, clock, "stepping")
        await alarm(stage, DATA_PIPELINE)
        await stage.plane.rollouts.promote(MODEL, actor="olga")
        await traffic(stage, clock, rounds=40)
        assert (await standing(stage))[:2] == ("stepping", 1)


async def test_harm_goes_back_although_the_step_is_held(tmp_path: Path) -> None:
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage, on_drift="hold")
        await until_phase(stage, clock, "stepping")
        await alarm(stage, DATA_PIPELINE)
        stage.script(2).model = sometimes(4)
        await until_phase(stage, clock, "rolled-back")


async def test_the_worlds_doing_and_alarms_about_others_hold_nothing(tmp_path: Path) -> None:
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage, on_drift="hold")
        await alarm(stage, WORLD)
        await alarm(stage, DATA_PIPELINE, VersionRef(MODEL, 1))
        await until_phase(stage, clock, "promoted")


async def test_without_the_key_no_alarm_holds_anything(tmp_path: Path) -> None:
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, home=tmp_path) as stage:
        await begin(stage)
        await alarm(stage, DATA_PIPELINE)
        await until_phase(stage, clock, "promoted")


def test_what_holds_is_named_as_blame_names_it() -> None:
    assert set(HOLDING) == set(ADVICE) - {WORLD}


def test_a_plan_that_does_not_use_the_key_is_written_without_it() -> None:
    """Which the release before does not know; and what else is asked for is refused in words."""
    assert "on_drift" not in PlanSpec.parse({"candidate": 2}).to_json()
    held = PlanSpec.parse({"candidate": 2, "on_drift": "hold"})
    assert PlanSpec.parse(held.to_json()) == held
    with pytest.raises(InvalidInput, match="on_drift"):
        PlanSpec.parse({"candidate": 2, "on_drift": "rollback"})
