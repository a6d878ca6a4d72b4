"""Targets: along the path only, by whom and why is kept, and what a target's routes serve stands there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.control.gatekeeping import GateOutcome, OpenGate, Override
from gateway.control.target_control import Move, TargetControl
from gateway.control.target_path import TargetPath
from gateway.errors import (
    Conflict,
    InvalidInput,
    InvalidRegistration,
    NotFound,
    SettingsError,
    StaleRevision,
    UnknownModel,
    UnknownVersion,
)
from gateway.registry.catalogue import ModelDocument
from gateway.registry.standing import MAX_PAST, Standing, TargetState
from gateway.settings import Settings, TargetSettings, load_settings
from tests.control.scene import MODEL, Scene, digest, scene, until

PATH: Mapping[str, Any] = {
    "development": {"gates": "none"},
    "staging": {"from": ["development"]},
    "production": {"from": ["staging"]},
}


class Gate(OpenGate):
    """A gatekeeper that is opened by hand, and remembers who asked."""

    def __init__(self, *, opened: bool = True) -> None:
        self.asked: list[tuple[int, str, int | None]] = []
        self.opened = asyncio.Event()
        if opened:
            self.opened.set()
        self.refusal: Exception | None = None

    async def require(
        self,
        model: str,
        version: int,
        *,
        purpose: str,
        against: int | None = None,
        override: Override | None = None,
        actor: str,
    ) -> GateOutcome:
        self.asked.append((version, purpose, against))
        await self.opened.wait()
        if self.refusal is not None and override is None:
            raise self.refusal
        if override is not None:
            return GateOutcome(overridden=override.reason, failed=("accuracy",))
        return GateOutcome(record="sha256:" + f"{version:064x}")


def control(stage: Scene, targets: Mapping[str, Any] = PATH, gate: OpenGate | None = None) -> TargetControl:
    """With a gatekeeper of the test's own."""
    return TargetControl(
        Settings(targets={name: TargetSettings(**rule) for name, rule in targets.items()}).targets,
        stage.store,
        gates=gate or Gate(),
        rollouts=stage.plane.rollouts,
        routes=stage.plane.routes,
        clock=stage.clock,
    )


def move(number: int, target: str, *, actor: str = "olga", **more: Any) -> Move:
    return Move(MODEL, number, target, actor, **more)


async def promoted(targets: TargetControl, number: int, *names: str, actor: str = "olga") -> None:
    for name in names:
        await targets.promote(move(number, name, actor=actor))


async def model_of(stage: Scene) -> ModelDocument:
    snapshot = await stage.store.snapshot()
    return next(
        ModelDocument.from_json(found.body)
        for key, found in snapshot.documents.items()
        if key.kind == "model" and found.body is not None
    )


async def test_a_version_goes_along_the_path_and_its_name_goes_with_it(tmp_path: Path) -> None:
    """Each step with who, why and what let it pass, in the catalogue and in the audit."""
    async with scene(tmp_path) as stage:
        gate = Gate()
        targets = control(stage, gate=gate)
        await promoted(targets, 3, "development", "staging")
        view = await targets.promote(move(3, "production", reason=" beats 2 "))
        assert (view["changed"], view["before"], view["rollouts"]) == (True, None, [])
        assert view["standing"] == {
            "number": 3,
            "at": stage.clock.wall(),
            "by": "olga",
            "how": "promoted",
            "reason": "beats 2",
            "from": "staging",
            "gates": {"record": "sha256:" + f"{3:064x}"},
        }
        assert gate.asked == [(3, "target:staging", None), (3, "target:production", None)]
        model = await model_of(stage)
        assert dict(model.aliases) == {"development": 3, "staging": 3, "production": 3}
        assert model.targets["development"].now is not None
        assert model.targets["development"].now.gates is None
        entries = await stage.audited("promote")
        assert [(entry.actor, (entry.detail or {})["target"]) for entry in entries] == [
            ("olga", "development"),
            ("olga", "staging"),
            ("olga", "production"),
        ]
        assert entries[-1].reason == "beats 2"
        assert (entries[-1].detail or {})["gates"] == {"record": "sha256:" + f"{3:064x}"}


@pytest.mark.parametrize(
    ("before", "number", "target", "says"),
    [
        (
            (),
            3,
            "production",
            r"digits/3 cannot go to production: versions come there from staging, and it stands in no target yet. ",
        ),
        ((), 3, "production", r"development → staging → production. Next: turnout promote digits/3 --to development"),
        (
            ("development",),
            3,
            "production",
            r"it stands in development. The path is development → staging → production. Next: .* digits/3 --to staging",
        ),
        (("development",), 4, "staging", "digits/4 cannot go to staging: .* it stands in no target yet"),
    ],
)
async def test_a_step_that_the_path_does_not_have_is_refused_and_the_path_named(
    tmp_path: Path, before: tuple[str, ...], number: int, target: str, says: str
) -> None:
    """With the next command to type; and nothing is asked of gates first."""
    async with scene(tmp_path) as stage:
        gate = Gate()
        targets = control(stage, gate=gate)
        await promoted(targets, 3, *before)
        gate.asked.clear()
        with pytest.raises(Conflict, match=says):
            await targets.promote(move(number, target))
        assert gate.asked == []


async def test_names_that_are_not_there_are_said(tmp_path: Path) -> None:
    """Targets, models and versions."""
    async with scene(tmp_path) as stage:
        targets = control(stage)
        with pytest.raises(NotFound, match="no target 'prod'; the settings have development, staging, production"):
            await targets.promote(move(3, "prod"))
        with pytest.raises(UnknownVersion):
            await targets.promote(move(99, "development"))
        with pytest.raises(UnknownModel):
            await targets.promote(Move("nobody", 1, "development", "olga"))
        with pytest.raises(NotFound, match="none: name some under targets in the settings"):
            await control(stage, {}).promote(move(3, "production"))
        with pytest.raises(Conflict, match="digits/3 does not stand in staging; standing there: none of digits"):
            await targets.demote(move(3, "staging"))


async def test_a_target_that_asks_for_a_reason_time_and_a_second_person_gets_them(tmp_path: Path) -> None:
    """A version that has been there for too short says how long it has to go."""
    rules = {**PATH, "production": {"from": ["staging"], "stood_s": 7200, "by_another": True, "reason": "required"}}
    async with scene(tmp_path) as stage:
        targets = control(stage, rules)
        await promoted(targets, 3, "development", "staging", actor="olga")
        with pytest.raises(InvalidInput, match="target production wants to know why"):
            await targets.promote(move(3, "production", actor="pavel", reason="  "))
        with pytest.raises(Conflict, match=r"digits/3 has been in staging for 0 s, .* were there for 2 h: 2 h to go"):
            await targets.promote(move(3, "production", actor="pavel", reason="good"))
        stage.clock.advance(7200)  # type: ignore[attr-defined]
        with pytest.raises(Conflict, match=r"olga promoted digits/3 to staging, and production wants another"):
            await targets.promote(move(3, "production", actor="olga", reason="good"))
        view = await targets.promote(move(3, "production", actor="pavel", reason="good"))
        assert view["standing"]["by"] == "pavel"


async def test_gates_that_refuse_leave_everything_as_it_was(tmp_path: Path) -> None:
    """And an override is kept with its reason, where the version stands and in the audit."""
    async with scene(tmp_path) as stage:
        gate = Gate()
        gate.refusal = Conflict("accuracy 0.91 is below 0.95")
        targets = control(stage, gate=gate)
        await promoted(targets, 3, "development")
        with pytest.raises(Conflict, match=r"accuracy 0\.91"):
            await targets.promote(move(3, "staging"))
        assert "staging" not in (await model_of(stage)).targets
        view = await targets.promote(move(3, "staging"), override=Override("the data was wrong"))
        kept = {"overridden": "the data was wrong", "failed": ["accuracy"]}
        assert view["standing"]["gates"] == kept
        assert ((await stage.audited("promote"))[-1].detail or {})["gates"] == kept


async def test_a_target_may_want_models_that_declare_gates(tmp_path: Path) -> None:
    """Nothing declared is then no pass; an override says why it was one."""
    rules = {"production": {"gates": "required"}}
    async with scene(tmp_path) as stage:
        targets = control(stage, rules)
        with pytest.raises(Conflict, match=r"digits declares none for it; declare some .turnout gates digits"):
            await targets.promote(move(3, "production"))
        view = await targets.promote(move(3, "production"), override=Override("first of its kind"))
        assert view["standing"]["gates"] == {"overridden": "first of its kind", "failed": ["none is declared"]}


class Unsigned(OpenGate):
    """Lets nothing pass, whoever overrides: no author has signed."""

    async def require(
        self,
        model: str,
        version: int,
        *,
        purpose: str,
        against: int | None = None,
        override: Override | None = None,
        actor: str,
    ) -> GateOutcome:
        raise Conflict("no author has signed it")


@pytest.mark.parametrize("gates", ["none", "required", "declared"])
async def test_a_signature_is_asked_for_whatever_a_target_asks_of_gates(tmp_path: Path, gates: str) -> None:
    """No override passes it, and no target that wants no gates."""
    rules = {"production": TargetSettings.model_validate({"gates": gates})}
    async with scene(tmp_path) as stage:
        targets = TargetControl(
            rules,
            stage.store,
            gates=Unsigned(),
            ungated=Unsigned(),
            rollouts=stage.plane.rollouts,
            routes=stage.plane.routes,
            clock=stage.clock,
        )
        with pytest.raises(Conflict, match="no author has signed it"):
            await targets.promote(move(3, "production"), override=Override("never mind"))
        assert "production" not in (await model_of(stage)).targets


async def test_gates_for_another_target_are_none_for_this_one(tmp_path: Path) -> None:
    """``required`` is not met by what is only asked elsewhere."""
    async with scene(tmp_path) as stage:
        gate = {"kind": "environment", "for": ["target:staging"]}
        await stage.plane.gates.declare(MODEL, {"gates": [gate]}, actor="anna")
        targets = control(stage, {"production": {"gates": "required"}, "staging": {"gates": "required"}})
        with pytest.raises(Conflict, match="digits declares none for it"):
            await targets.promote(move(3, "production"))
        # The gatekeeper of this test knows no declaration: that gates were asked is what counts.
        with pytest.raises(Conflict, match="were changed while"):
            await targets.promote(move(3, "staging"))


async def test_of_two_operators_at_once_the_second_is_told_and_changes_nothing(tmp_path: Path) -> None:
    """While the gates of one ran, another promoted: what was decided by is no longer so."""
    async with scene(tmp_path) as stage:
        quick = control(stage)
        for number in (3, 4):
            await promoted(quick, number, "development", "staging")
        gate = Gate(opened=False)
        slow = asyncio.ensure_future(control(stage, gate=gate).promote(move(4, "production", actor="pavel")))
        await until(lambda: gate.asked)
        await quick.promote(move(3, "production"))
        gate.opened.set()
        with pytest.raises(
            Conflict, match=r"nothing stood in production when this promotion began, and olga put digits/3 there"
        ):
            await slow
        model = await model_of(stage)
        assert model.aliases["production"] == 3
        with pytest.raises(StaleRevision):
            await quick.promote(move(4, "production"), expected=1)


async def test_of_two_operators_who_want_the_same_one_does_it(tmp_path: Path) -> None:
    """The other finds it done, whoever was first; and once more changes nothing, and is not written again."""
    async with scene(tmp_path) as stage:
        targets = control(stage)
        await promoted(targets, 3, "development", "staging")
        both = await asyncio.gather(*(targets.promote(move(3, "production", actor=who)) for who in ("olga", "pavel")))
        assert sorted(view["changed"] for view in both) == [False, True]
        again = await targets.promote(move(3, "production", actor="rosa"))
        assert not again["changed"]
        production = [e for e in await stage.audited("promote") if (e.detail or {})["target"] == "production"]
        assert len(production) == 1


async def test_a_version_that_is_demoted_while_its_gates_run_is_not_promoted(tmp_path: Path) -> None:
    """The path is looked at again when it is written."""
    async with scene(tmp_path) as stage:
        quick, gate = control(stage), Gate(opened=False)
        await promoted(quick, 3, "development", "staging")
        slow = asyncio.ensure_future(control(stage, gate=gate).promote(move(3, "production")))
        await until(lambda: gate.asked)
        await quick.demote(move(3, "staging"))
        gate.opened.set()
        with pytest.raises(Conflict, match="versions come there from staging, and it stands in development"):
            await slow


async def test_a_demotion_gives_the_place_back_and_the_history_has_all_of_it(tmp_path: Path) -> None:
    """What stood where, from when to when, by whom, why, and what let it pass."""
    async with scene(tmp_path) as stage:
        targets = control(stage)
        for number in (3, 4):
            await promoted(targets, number, "development", "staging", "production")
            stage.clock.advance(60)  # type: ignore[attr-defined]
        view = await targets.demote(move(4, "production", actor="pavel", reason="it drifts"))
        assert (view["standing"]["number"], view["standing"]["how"], view["standing"]["by"]) == (3, "returned", "pavel")
        assert view["standing"]["gates"] == {"record": "sha256:" + f"{3:064x}"}
        production = (await targets.get(MODEL))["targets"][-1]
        assert production["admitted"] == [3]
        stays = [(row["number"], row["until"] - row["at"], row["ended"], row["ended_by"]) for row in production["past"]]
        assert stays == [(4, 60.0, "demoted", "pavel"), (3, 60.0, "superseded", "olga")]
        assert production["past"][0]["ended_reason"] == "it drifts"
        assert (await model_of(stage)).aliases["production"] == 3
        await targets.demote(move(3, "production"))
        model = await model_of(stage)
        assert "production" not in model.aliases
        assert model.targets["production"].number is None
        assert [entry.reason for entry in await stage.audited("demote")] == ["it drifts", ""]


async def test_what_was_promoted_before_goes_back_without_waiting_for_gates(tmp_path: Path) -> None:
    """It has passed them; an incident is no time for an evaluation of an hour."""
    async with scene(tmp_path) as stage:
        gate = Gate()
        targets = control(stage, gate=gate)
        for number in (3, 4):
            await promoted(targets, number, "development", "staging", "production")
        gate.asked.clear()
        view = await targets.promote(move(3, "production"))
        assert (view["before"], view["standing"]["gates"]) == (4, {"record": "sha256:" + f"{3:064x}"})
        assert gate.asked == []
        assert (await model_of(stage)).targets["production"].admitted == (4, 3)


async def test_arms_of_a_targets_route_stand_in_it(tmp_path: Path) -> None:
    """Split, rules, fallback and known good; a shadow answers nobody, and may come from anywhere."""
    async with scene(tmp_path) as stage:
        targets = control(stage)
        await promoted(targets, 3, "development", "staging", "production")
        await promoted(targets, 4, "development")
        says = r"digits/4 stands in development, and this route serves production; promote it first: turnout promote"
        rule = {"name": "staff", "if": {"==": [1, 1]}, "use": 4}
        for changes in ({"fallback": 4}, {"known_good": 4}, {"rules": [rule]}):
            with pytest.raises(Conflict, match=f"{says} digits/4 --to production"):
                await stage.put({3: 100}, wait=False, target="production", **changes)
        with pytest.raises(Conflict, match=r"split\[1\]\.version: digits/4"):
            await stage.put({3: 100, 4: 0}, wait=False, target="production")
        await stage.put({3: 100}, target="production", shadow=[{"version": 4, "share": 0.5}])
        with pytest.raises(Conflict, match=says):
            await stage.plane.routes.set_weights(MODEL, {"3": 50, "4": 50}, actor="olga")
        with pytest.raises(Conflict, match=f"candidate: {says}"):
            await stage.plane.rollouts.start(MODEL, {"candidate": 4}, actor="olga")
        await promoted(targets, 4, "staging", "production")
        await stage.plane.routes.set_weights(MODEL, {"3": 50, "4": 50}, actor="olga")


async def test_a_route_that_serves_already_takes_a_target_only_with_its_arms_in_it(tmp_path: Path) -> None:
    """The known good that nobody wrote down counts, and so does the candidate of a rollout."""
    async with scene(tmp_path) as stage:
        targets = control(stage)
        await stage.put({2: 100})
        await promoted(targets, 3, "development", "staging", "production")
        with pytest.raises(Conflict, match="known_good: digits/2 stands in no target"):
            await stage.put({3: 100}, wait=False, target="production")
        await stage.plane.rollouts.start(MODEL, {"candidate": 4}, actor="olga")
        await promoted(targets, 2, "development", "staging", "production")
        with pytest.raises(Conflict, match="candidate of the rollout: digits/4 stands in no target"):
            await stage.put({2: 100}, wait=False, target="production")


async def test_a_version_that_may_answer_is_demoted_with_its_routes_or_not_at_all(tmp_path: Path) -> None:
    """``roll_back`` takes it off first, and it is quarantined there; no lift brings it back while it is demoted."""
    async with scene(tmp_path) as stage:
        targets = control(stage)
        for number in (3, 4):
            await promoted(targets, number, "development", "staging", "production")
        await stage.put({3: 90, 4: 10}, target="production", known_good=3)
        with pytest.raises(Conflict, match=r"digits/4 may answer on route digits, which serves .*--roll-back"):
            await targets.demote(move(4, "production"))
        with pytest.raises(Conflict, match="digits/3 is the known good of route digits; say where to go first"):
            await targets.demote(move(3, "production"), roll_back=True)
        view = await targets.demote(move(4, "production", reason="wrong"), roll_back=True)
        assert (view["rolled_back"], view["standing"]["number"]) == (["digits"], 3)
        await until(lambda: stage.arms() == {3: 100})
        with pytest.raises(Conflict, match="lift: digits/4 stands in development, staging, and this route serves"):
            await stage.plane.routes.lift(MODEL, 4, actor="olga")
        await stage.plane.routes.set_weights(MODEL, {"3": 100}, actor="olga")
        await promoted(targets, 4, "production")
        await stage.plane.routes.lift(MODEL, 4, actor="olga")


async def test_a_promotion_begins_the_rollout_that_its_target_asks_for(tmp_path: Path) -> None:
    """By the target's plan. One of another version that runs is told before gates have run for an hour."""
    rules = {"production": {"rollout": {"steps": [10, 50], "shadow": None}}}
    async with scene(tmp_path) as stage:
        gate = Gate()
        targets = control(stage, rules, gate)
        await promoted(targets, 2, "production")
        await stage.put({2: 100}, target="production")
        await stage.put({2: 100}, name="elsewhere")
        view = await targets.promote(move(3, "production"))
        (begun,) = view["rollouts"]
        assert (begun["route"], begun["started"]) == (MODEL, True)
        rollout = (await stage.plane.rollouts.get(MODEL))["rollout"]
        assert rollout["id"] == begun["rollout"]
        assert [step["weight"] for step in rollout["plan"]["steps"]] == [10, 50]
        assert (await stage.plane.routes.get("elsewhere"))["status"]["rollout"] is None
        gate.asked.clear()
        with pytest.raises(Conflict, match=r"route digits of production is rolling out digits/3.*--abort"):
            await targets.promote(move(4, "production"))
        assert gate.asked == []
        again = await targets.promote(move(3, "production"))
        assert (again["changed"], again["rollouts"]) == (False, [])


async def test_a_rollout_that_does_not_begin_says_why_and_a_second_try_begins_it(tmp_path: Path) -> None:
    """The version stands in the target all the same: the gateway may have died between the two."""
    rules = {"production": {"rollout": {}}}
    async with scene(tmp_path) as stage:
        targets = control(stage, rules)
        for number in (2, 3):
            await promoted(targets, number, "production")
        await stage.put({2: 50, 3: 50}, target="production", known_good=2)
        await stage.plane.routes.rollback(MODEL, to=None, reason="slow", actor="guard")
        view = await targets.promote(move(2, "production"))
        assert view["rollouts"] == []
        view = await targets.promote(move(3, "production"))
        assert not view["rollouts"][0]["started"]
        assert "quarantine" in view["rollouts"][0]["problem"]
        await stage.plane.routes.lift(MODEL, 3, actor="olga")
        view = await targets.promote(move(3, "production"))
        assert (view["changed"], view["rollouts"][0]["started"]) == (False, True)


async def test_what_stands_in_a_target_is_not_archived_and_its_name_is_not_moved_by_hand(tmp_path: Path) -> None:
    """One that may stand, too: a way back that is archived is none."""
    async with scene(tmp_path, targets={"production": {}}) as stage:
        targets, models = stage.plane.targets, stage.plane.models
        for number in (3, 4):
            await promoted(targets, number, "production")
        with pytest.raises(Conflict, match=r"digits/3 may be served in production; .*turnout demote digits/3 --from"):
            await models.archive(MODEL, 3, actor="olga")
        with pytest.raises(Conflict, match=r"production is a target.*turnout promote digits/3 --to production"):
            await models.set_alias(MODEL, "production", 3, actor="olga")
        with pytest.raises(Conflict, match=r"production is a target.*turnout demote"):
            await models.drop_alias(MODEL, "production", actor="olga")
        await targets.demote(move(3, "production"))
        await models.archive(MODEL, 3, actor="olga")
        with pytest.raises(Conflict, match="digits/3 is archived and goes to no target"):
            await targets.promote(move(3, "production"))


async def test_targets_are_shown_in_the_order_of_their_path_with_what_their_routes_serve(tmp_path: Path) -> None:
    """Over all models, and of one with what may come next."""
    rules = {"production": {"from": ["staging"], "role": "admin"}, "staging": {"from": ["dev"]}, "dev": {}}
    async with scene(tmp_path) as stage:
        targets = control(stage, rules)
        await promoted(targets, 3, "dev", "staging", "production")
        await promoted(targets, 4, "dev")
        await stage.put({3: 100}, target="production")
        found = await targets.list()
        assert [row["target"] for row in found] == ["dev", "staging", "production"]
        assert found[-1]["role"] == "admin"
        standing = found[-1]["models"][MODEL]
        assert (standing["version"], standing["routes"]["digits"]["split"]) == (3, {"3": 100})
        view = await targets.get(MODEL)
        assert view["next"]["4"] == ["staging"]
        assert view["next"]["1"] == ["dev"]
        assert "3" not in view["next"]
        gone = control(stage, {"dev": {}})
        assert [row["target"] for row in (await gone.get(MODEL))["targets"]] == ["dev", "staging", "production"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"a": {"from": ["b"]}, "b": {"from": ["a"]}}, "the path goes in a circle"),
        ({"a": {"from": ["a"]}}, "the path goes in a circle"),
        ({"a": {"from": ["nowhere"]}}, "a.from names 'nowhere', which is no target"),
        ({"-a": {}}, "'-a' is no name of a target"),
        ({"a": {"role": "viewer"}}, "targets.a.role"),
        ({"a": {"rollout": {"candidate": 3}}}, "a.rollout names a candidate"),
        ({"a": {"stays": 3}}, "unknown key 'targets.a.stays'"),
    ],
)
def test_settings_of_targets_that_cannot_be_are_refused_by_key(tmp_path: Path, body: Any, says: str) -> None:
    """At the start, not at the first promotion."""
    path = tmp_path / "gateway.yaml"
    path.write_text(f"targets: {body!r}", encoding="utf-8")
    with pytest.raises(SettingsError) as told:
        load_settings(path)
    assert says in str(told.value)


async def test_a_plan_that_is_none_stops_the_start(tmp_path: Path) -> None:
    """By the name of the target."""
    async with scene(tmp_path) as stage:
        with pytest.raises(SettingsError, match=r"targets\.production\.rollout: .*steps"):
            control(stage, {"production": {"rollout": {"steps": [50, 10]}}})


def test_a_path_may_fork_and_join() -> None:
    """A version comes from any of the targets that are named; a refusal names all ways."""
    rules = {"dev": {}, "eu": {"from": ["dev"]}, "us": {"from": ["dev"]}, "world": {"from": ["eu", "us"]}}
    path = TargetPath(Settings(targets={name: TargetSettings(**rule) for name, rule in rules.items()}).targets)
    model, _ = ModelDocument(MODEL).add_version(digest(1), created_at=0.0)
    with pytest.raises(Conflict, match=r"from eu or us, .* The path is dev → eu → world; or dev → us → world"):
        path.step(model, 1, "world", by="olga", at=0.0)
    model = model.with_target("dev", TargetState().promoted(Standing(1, 0.0, "olga")))
    assert path.following(model, 1) == ["eu", "us"]
    model = model.with_target("us", TargetState().promoted(Standing(1, 0.0, "olga")))
    assert path.step(model, 1, "world", by="olga", at=0.0).origin == "us"


Steps = st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=40)


@given(steps=Steps)
@settings(max_examples=200, deadline=None)
def test_a_targets_state_is_sound_after_any_steps_and_reads_back(steps: list[tuple[bool, int]]) -> None:
    """What stands is admitted, last of those that were promoted; the past has no gap and nothing is lost on the way
    through the store."""
    model = ModelDocument(MODEL)
    for number in range(1, 6):
        model, _ = model.add_version(digest(number), created_at=0.0)
    state = TargetState()
    for at, (up, number) in enumerate(steps):
        if up:
            state = state.promoted(Standing(number, float(at), "olga", "why", "staging", gates={"record": "sha256:00"}))
        elif number in state.admitted:
            state = state.demoted(number, at=float(at), by="pavel", reason="")
        else:
            with pytest.raises(Conflict):
                state.demoted(number, at=float(at), by="pavel", reason="")
        assert state.number == (state.admitted[-1] if state.admitted else None)
        assert len(set(state.admitted)) == len(state.admitted)
        stays = [*(past.stood for past in state.past), *([state.now] if state.now else [])]
        assert [stay.at for stay in stays] == sorted(stay.at for stay in stays)
        assert all(past.until >= past.stood.at for past in state.past)
    moved = model.with_target("production", state)
    assert ModelDocument.from_json(moved.to_json()) == moved
    assert moved.aliases.get("production") == state.number


def test_a_long_history_is_bounded() -> None:
    """The audit log has the rest."""
    state = TargetState()
    for at in range(3 * MAX_PAST):
        state = state.promoted(Standing(1 + at % 2, float(at), "olga"))
    assert len(state.past) == MAX_PAST
    assert state.admitted == (1, 2)


def test_a_state_that_names_what_is_not_there_is_not_read() -> None:
    """A damaged document is refused, not served."""
    model, _ = ModelDocument(MODEL).add_version(digest(1), created_at=0.0)
    body = model.with_target("production", TargetState().promoted(Standing(1, 0.0, "olga"))).to_json()
    body["targets"]["production"]["admitted"] = [7]
    with pytest.raises(Exception, match="7 stands in production, and does not exist"):
        ModelDocument.from_json(body)
    with pytest.raises(InvalidRegistration):
        model.with_target("not a name", TargetState().promoted(Standing(1, 0.0, "olga")))
