"""The guard at work: real serving, scripted failures, time moved by hand."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.control.guard import Guard
from gateway.control.memory_store import MemoryStore
from gateway.errors import InvalidInput, ModelError, VersionCrashed
from gateway.messages import Arrays
from gateway.serving.scripted_engine import double
from tests.control.scene import MODEL, Scene, ref, scene, until


def raising(_: Arrays) -> Arrays:
    raise ModelError("it is broken")


def crashing(_: Arrays) -> Arrays:
    raise VersionCrashed("signal 11")


def fussy(inputs: Arrays) -> Arrays:
    """Good, but for 13, which it refuses, 666, on which it dies, and 7, on which it raises."""
    if (inputs["x"] == 13).any():
        raise InvalidInput("not with me")
    if (inputs["x"] == 666).any():
        raise VersionCrashed("signal 11")
    if (inputs["x"] == 7).any():
        raise ModelError("it is broken")
    return double(inputs)


async def canary(stage: Scene, weight: int, **changes: Any) -> None:
    await stage.put({1: 100 - weight, 2: weight}, known_good=1, **{"fallback": 1, **changes})


async def rolled_back(stage: Scene) -> None:
    await until(lambda: stage.arms() == {1: 100} and stage.recording.rollbacks)


async def reached(stage: Scene, wanted: int, *, most: int = 2000) -> int:
    """Sends requests until the guard has acted, or so many were chosen for version 2; how many those were."""
    chosen = 0
    for _ in range(most):
        record = await stage.predict()
        chosen += record.decision is not None and record.decision.version == ref(2)
        if stage.recording.rollbacks or chosen >= wanted:
            break
    return chosen


@pytest.mark.parametrize("weight", [5, 50, 100])
async def test_a_version_that_raises_on_every_request_is_off_the_route_after_the_first_burst(
    tmp_path: Path, weight: int
) -> None:
    """Five failures, whatever its share; nobody saw an error; one record, with its reason, by the guard."""
    async with scene(tmp_path) as stage:
        await canary(stage, weight)
        stage.script(2).model = raising
        assert await reached(stage, 5) == 5
        await rolled_back(stage)
        assert all(record.code == 200 for record in stage.recording.requests)
        [entry] = await stage.audited("rollback")
        assert entry.actor == "guard"
        assert "5 of 5 requests failed" in entry.reason
        assert entry.detail == {"to": 1, "trigger": "guard:error-burst", "quarantined": [2]}
        [told] = stage.recording.rollbacks
        assert (told.trigger, told.target) == ("guard:error-burst", 1)
        status = (await stage.plane.routes.get(MODEL))["status"]
        assert list(status["quarantined"]) == ["2"]
        assert status["quarantined"]["2"]["by"] == "guard:error-burst"
        assert {(await stage.predict()).answered_by for _ in range(50)} == {ref(1)}


@pytest.mark.parametrize("weight", [5, 100])
async def test_a_version_that_hangs_is_off_the_route_when_its_first_hang_is_found(tmp_path: Path, weight: int) -> None:
    """Requests wait behind it: 0.6 s, the hang floor, and not a second more; they are answered by the known good."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await canary(stage, weight)
        stage.script(2).hold()
        calls = [asyncio.ensure_future(stage.predict(key=f"k{n}")) for n in range(400 if weight == 5 else 20)]
        await until(lambda: stage.script(2).running)
        await until(lambda: sum(call.done() for call in calls) > (300 if weight == 5 else -1))
        clock.advance(0.61)
        await rolled_back(stage)
        assert stage.recording.rollbacks[0].trigger == "guard:hang"
        await until(lambda: all(call.done() for call in calls))
        assert {call.result().answered_by for call in calls} == {ref(1)}
        await until(lambda: ref(2) not in stage.fleet.handles)
        assert len(await stage.audited("rollback")) == 1


@pytest.mark.parametrize("weight", [5, 100])
async def test_a_version_that_dies_on_every_request_is_off_the_route(tmp_path: Path, weight: int) -> None:
    """A crash loop, or the burst of failures that it makes, whichever is known first."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await canary(stage, weight)
        stage.script(2).model = crashing
        began = clock.monotonic()
        while not stage.recording.rollbacks and clock.monotonic() - began < 10:
            calls = [asyncio.ensure_future(stage.predict()) for _ in range(40)]
            for _ in range(200):
                await asyncio.sleep(0)
            clock.advance(0.05)
            await asyncio.gather(*calls)
        await rolled_back(stage)
        assert clock.monotonic() - began < 1.0
        assert stage.recording.rollbacks[0].trigger in ("guard:crash-loop", "guard:error-burst")
        assert all(record.code == 200 for record in stage.recording.requests)
        assert len(await stage.audited("rollback")) == 1


def rests(stage: Scene, number: int) -> bool:
    """Its engine is free, and its queue knows; or it is gone."""
    handle = stage.fleet.handles.get(ref(number))
    batcher = None if handle is None else handle.statistics().batcher
    return not stage.script(number).running and (batcher is None or not batcher.running_items)


async def test_a_version_whose_answers_all_come_too_late_is_off_the_route(tmp_path: Path) -> None:
    """Requests were given half a second and more, and it missed their deadlines."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await canary(stage, 100)
        stage.script(2).delay_s = lambda _: 0.58
        for _ in range(5):
            call = asyncio.ensure_future(stage.predict(timeout_s=0.52))
            await until(lambda: stage.script(2).running)
            clock.advance(0.55)
            await call
            clock.advance(0.05)
            await until(lambda: rests(stage, 2))
        await rolled_back(stage)
        assert stage.recording.rollbacks[0].trigger == "guard:deadline"


async def test_deadlines_too_short_for_anybody_are_the_callers_doing(tmp_path: Path) -> None:
    """A client cannot move traffic by asking for the impossible."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await canary(stage, 100)
        stage.script(2).delay_s = lambda _: 0.1
        for _ in range(30):
            call = asyncio.ensure_future(stage.predict(timeout_s=0.001))
            await until(lambda: stage.script(2).running)
            clock.advance(0.11)
            assert (await call).error == "DeadlineExceeded"
            await until(lambda: rests(stage, 2))
        assert stage.recording.rollbacks == []


@pytest.mark.parametrize("sending_s", [0.55, 0.7])
async def test_a_client_that_is_slow_to_send_moves_nothing(tmp_path: Path, sending_s: float) -> None:
    """Its deadline passes on the way, or so soon after that no version could have met it."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await canary(stage, 100)
        stage.script(2).delay_s = lambda _: 0.1
        for _ in range(20):
            call = asyncio.ensure_future(stage.predict(timeout_s=0.6, sending_s=sending_s))
            await until(lambda: stage.script(2).running or call.done())  # noqa: B023 - awaited within the turn
            clock.advance(0.11)
            assert (await call).error == "DeadlineExceeded"
            await until(lambda: rests(stage, 2))
        assert stage.recording.rollbacks == []


async def test_a_failing_version_that_is_only_the_fallback_costs_no_other_its_traffic(tmp_path: Path) -> None:
    """A rollback would leave it in its place, so none is made: the canary beside it is innocent."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 90, 2: 10}, known_good=1, fallback=3, pin="allowed")
        stage.script(3).model = raising
        for _ in range(20):
            await stage.predict(pin=3)
        await until(lambda: "0 acting" in repr(stage.plane.guard))
        assert stage.recording.rollbacks == []
        assert stage.arms() == {1: 90, 2: 10}
        [note] = await stage.audited("guard-no-target")
        assert "digits/3 failed" in note.reason
        assert "only pins choose it" in note.reason


async def test_a_route_made_anew_under_an_old_name_starts_with_no_evidence(tmp_path: Path) -> None:
    """Four failures of the route before it and one of its own are no burst; and what is gone is not watched."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 50, 2: 50}, name="other")
        for failures in (4, 1):
            await canary(stage, 100)
            stage.script(2).model = raising
            for _ in range(failures):
                await stage.predict()
            assert stage.recording.rollbacks == []
            await stage.plane.routes.delete(MODEL, actor="olga")
            await until(lambda: MODEL not in stage.dataplane.current.table.routes)
            assert repr(stage.plane.guard) == "<Guard [0 watched | 0 suspected | 0 acting]>"


async def test_bad_input_and_one_poison_request_do_not_move_it(tmp_path: Path) -> None:
    """A hundred refusals by the model, a request that kills its process, one that raises: the canary stays."""
    async with scene(tmp_path) as stage:
        await canary(stage, 50, pin="allowed")
        stage.script(2).model = fussy
        for _ in range(100):
            assert (await stage.predict(pin=2, value=13.0)).error == "InvalidInput"
        assert (await stage.predict(pin=2, value=666.0)).chosen_failure == "VersionCrashed"
        assert (await stage.predict(pin=2, value=7.0)).chosen_failure == "ModelError"
        for _ in range(50):
            await stage.predict()
        assert stage.recording.rollbacks == []
        assert stage.arms() == {1: 50, 2: 50}


@pytest.mark.parametrize("way", ["pin", "rule"])
async def test_a_version_chosen_by_pin_or_rule_is_watched_too(tmp_path: Path, way: str) -> None:
    """It has no weight; its failures count all the same."""
    async with scene(tmp_path) as stage:
        rules = [{"name": "r", "if": {"==": [{"var": "a"}, 1]}, "use": 2}]
        await stage.put({1: 100, 2: 0}, rules=rules if way == "rule" else [], pin="allowed", fallback=1)
        stage.script(2).model = raising
        facts: dict[str, Any] = {"pin": 2} if way == "pin" else {"context": {"a": 1}}
        for _ in range(5):
            await stage.predict(**facts)
        await until(lambda: stage.recording.rollbacks)
        assert stage.dataplane.current.table.routes[MODEL].quarantined == {2}


@pytest.mark.parametrize("answered", [45, 0])
async def test_web_workers_that_tell_failures_first_take_no_healthy_version_off(tmp_path: Path, answered: int) -> None:
    """One worker has a client that sends only what the version cannot answer, and says so at once; the others tell of
    what went well in the same time a moment later. Of a version that answers nobody, nothing comes."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, server={"workers": 2}) as stage:
        await stage.put({2: 100}, known_good=1, wait=True)
        good = await stage.predict()
        bad = good._replace(answered_by=None, code=500, chosen_failure="ModelError", error="ModelError")
        clock.advance(10)
        stage.plane.guard.requests_finished([bad] * 5)
        clock.advance(0.07)
        stage.plane.guard.requests_finished([good] * answered)
        clock.advance(0.05)
        if answered:
            clock.advance(1.0)
            assert repr(stage.plane.guard) == "<Guard [1 watched | 1 suspected | 0 acting]>"
            assert stage.recording.rollbacks == []
        else:
            await rolled_back(stage)


async def test_what_turns_bad_later_is_taken_off_with_web_workers_too(tmp_path: Path) -> None:
    """0.1 s after the fifth failure, however long after the first."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, server={"workers": 2}) as stage:
        await stage.put({2: 100}, known_good=1, wait=True)
        bad = (await stage.predict())._replace(answered_by=None, code=500, chosen_failure="ModelError")
        clock.advance(10)
        stage.plane.guard.requests_finished([bad])
        clock.advance(0.2)
        stage.plane.guard.requests_finished([bad] * 4)
        clock.advance(0.09)
        assert repr(stage.plane.guard) == "<Guard [1 watched | 1 suspected | 0 acting]>"
        clock.advance(0.02)
        await rolled_back(stage)


@pytest.mark.parametrize("before", ["failure", "death"])
async def test_what_a_version_is_suspected_of_already_does_not_shorten_the_wait(tmp_path: Path, before: str) -> None:
    """One stray failure, or a death some seconds ago, and then nothing: five failures of one client are known before
    the answers of the same time, as of any quiet version."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, server={"workers": 2}) as stage:
        await stage.put({2: 100}, known_good=1, wait=True)
        good = await stage.predict()
        bad = good._replace(answered_by=None, code=500, chosen_failure="ModelError", error="ModelError")
        clock.advance(10)
        if before == "failure":
            stage.plane.guard.requests_finished([bad])
        else:
            stage.plane.guard.version_crashed(ref(2), "crash", False)
        clock.advance(3)
        stage.plane.guard.requests_finished([bad] * 5)
        clock.advance(0.07)
        stage.plane.guard.requests_finished([good] * 45)
        clock.advance(1.0)
        assert repr(stage.plane.guard) == "<Guard [1 watched | 1 suspected | 0 acting]>"
        assert stage.recording.rollbacks == []


async def test_a_second_suspicion_has_a_wait_of_its_own(tmp_path: Path) -> None:
    """The route was deleted and made anew within the first one's, whose end says nothing of the second."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, server={"workers": 2}) as stage:
        await stage.put({2: 100}, known_good=1, wait=True)
        good = await stage.predict()
        bad = good._replace(answered_by=None, code=500, chosen_failure="ModelError", error="ModelError")
        clock.advance(10)
        stage.plane.guard.requests_finished([bad] * 5)
        clock.advance(0.06)
        await stage.plane.routes.delete(MODEL, actor="olga")
        await until(lambda: MODEL not in stage.dataplane.current.table.routes)
        await stage.put({2: 100}, known_good=1, wait=True)
        assert repr(stage.plane.guard) == "<Guard [0 watched | 0 suspected | 0 acting]>"
        stage.plane.guard.requests_finished([bad] * 5)
        clock.advance(0.05)
        assert repr(stage.plane.guard) == "<Guard [1 watched | 1 suspected | 0 acting]>"
        stage.plane.guard.requests_finished([good] * 45)
        clock.advance(1.0)
        assert repr(stage.plane.guard) == "<Guard [1 watched | 1 suspected | 0 acting]>"
        assert stage.recording.rollbacks == []


async def test_a_verdict_that_did_not_stand_is_waited_for_anew(tmp_path: Path) -> None:
    """And one that stands is acted upon once."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock, server={"workers": 2}) as stage:
        await stage.put({2: 100}, known_good=1, wait=True)
        good = await stage.predict()
        bad = good._replace(answered_by=None, code=500, chosen_failure="ModelError", error="ModelError")
        clock.advance(10)
        stage.plane.guard.requests_finished([bad] * 5)
        clock.advance(0.03)
        stage.plane.guard.requests_finished([good] * 6)
        stage.plane.guard.requests_finished([bad])  # 6 of 12: found anew
        clock.advance(0.02)
        stage.plane.guard.requests_finished([good] * 3)
        stage.plane.guard.requests_finished([bad])  # 7 of 16: not found
        clock.advance(0.03)
        stage.plane.guard.requests_finished([bad] * 40)
        clock.advance(0.09)
        assert repr(stage.plane.guard) == "<Guard [1 watched | 1 suspected | 0 acting]>"
        clock.advance(0.02)
        await rolled_back(stage)
        clock.advance(1.0)
        assert len(stage.recording.rollbacks) == 1


async def test_it_does_not_loop_when_the_known_good_fails_too(tmp_path: Path) -> None:
    """One rollback, then one note that there is nowhere to go; the route stays, and answers again when it can."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await canary(stage, 50)
        stage.script(2).model = raising
        await reached(stage, 5)
        await rolled_back(stage)
        stage.script(1).model = raising
        for _ in range(200):
            await stage.predict()
            clock.advance(0.05)
        await until(lambda: not stage.plane.guard or "0 acting" in repr(stage.plane.guard))
        assert len(await stage.audited("rollback")) == 1
        assert len(await stage.audited("guard-no-target")) == 1
        assert stage.arms() == {1: 100}
        stage.script(1).model = double
        assert (await stage.predict()).answered_by == ref(1)


async def test_it_says_again_that_there_is_nowhere_to_go_only_after_a_recovery(tmp_path: Path) -> None:
    """A second incident a good while later is a second note."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await stage.put({1: 100})
        for expected in (1, 2):
            stage.script(1).model = raising
            for _ in range(20):
                await stage.predict()
            await asyncio.sleep(0)
            assert len(await stage.audited("guard-no-target")) == expected
            stage.script(1).model = double
            for _ in range(20):
                await stage.predict()
                clock.advance(0.5)


async def test_it_never_goes_to_a_version_that_is_not_loaded_and_tries_again_when_it_is(tmp_path: Path) -> None:
    """The known good cannot take over yet: said once; as soon as it is loaded, the rollback comes by itself."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        gate = stage.script(1).load_gate = asyncio.Event()
        await stage.put({1: 0, 2: 100}, known_good=1, wait=False)
        await until(lambda: ref(2) in stage.dataplane.current.handles)
        stage.script(2).model = raising
        for _ in range(10):
            await stage.predict()
        await until(lambda: "0 acting" in repr(stage.plane.guard))
        assert stage.recording.rollbacks == []
        assert len(await stage.audited("guard-no-target")) == 1
        gate.set()
        await until(lambda: ref(1) in stage.dataplane.current.handles)
        clock.advance(0.6)
        await rolled_back(stage)
        assert len(await stage.audited("guard-no-target")) == 1


async def test_two_replicas_that_see_the_same_roll_back_once(tmp_path: Path) -> None:
    """Compare-and-set: one audit record."""
    store = MemoryStore()
    async with scene(tmp_path / "a", store=store) as one:
        await canary(one, 50)
        async with scene(tmp_path / "b", store=store, versions=0) as two:
            assert await two.plane.reconciler.wait_applied((await store.snapshot()).revision, timeout_s=60)
            for stage in (one, two):
                stage.script(2).model = raising
            await asyncio.gather(*(stage.predict() for stage in (one, two) for _ in range(60)))
            await until(lambda: one.arms() == two.arms() == {1: 100})
            await until(lambda: "0 acting" in repr(one.plane.guard) and "0 acting" in repr(two.plane.guard))
            assert len(await one.audited("rollback")) == 1


async def test_it_acts_without_the_store(tmp_path: Path) -> None:
    """In force at once, not durable; one record when the store is back."""
    clock, store = ManualClock(), MemoryStore()
    async with scene(tmp_path, clock=clock, store=store) as stage:
        await canary(stage, 100)
        store.fail("unplugged")
        stage.script(2).model = raising
        for _ in range(6):
            await stage.predict()
        await rolled_back(stage)
        assert stage.recording.rollbacks[0].durable is False
        store.fail(None)
        await until(lambda: not len(stage.plane.reconciler.overrides), clock=clock)
        assert len(await stage.audited("rollback")) == 1


async def test_a_version_that_cannot_start_is_left_to_the_fallback(tmp_path: Path) -> None:
    """It never served, so nothing is rolled back: its state says what is wrong, and operators decide."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        stage.script(2).every_load = ModelError("it dies at each start")
        await canary(stage, 50)
        for _ in range(100):
            assert (await stage.predict()).answered_by == ref(1)
            clock.advance(0.5)
        assert stage.recording.rollbacks == []


async def test_the_guard_can_be_switched_off(tmp_path: Path) -> None:
    """Then failures are only counted."""
    async with scene(tmp_path, guard={"enabled": False}) as stage:
        await canary(stage, 100)
        stage.script(2).model = raising
        for _ in range(50):
            assert (await stage.predict()).answered_by == ref(1)
        assert stage.recording.rollbacks == []


async def test_a_candidate_stays_when_the_known_good_fails_alike(tmp_path: Path) -> None:
    """An input that nobody can answer, or a machine that is overloaded: going back would help nobody. It is said once;
    when the known good is well again and the candidate is not, the candidate goes."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await canary(stage, 50, fallback=None)
        stage.script(1).model = raising
        # The known good is seen to fail first: nobody can tell a fault of both before both have shown it.
        while sum(interval.failed for interval in _guard(stage).evidence(MODEL, ref(1)).intervals) < 20:
            await stage.predict()
        stage.script(2).model = raising
        for _ in range(100):
            await stage.predict()
            clock.advance(0.01)
        assert stage.recording.rollbacks == []
        assert stage.arms() == {1: 50, 2: 50}
        await until(lambda: not _guard(stage)._notes)
        notes = await stage.audited("guard-no-target")
        assert any("fails alike" in note.reason for note in notes)
        stage.script(1).model = double
        clock.advance(6.0)
        for _ in range(100):
            await stage.predict()
            clock.advance(0.01)
        await rolled_back(stage)


def _guard(stage: Scene) -> Guard:
    assert stage.plane.guard is not None
    return stage.plane.guard
