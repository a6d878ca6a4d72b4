"""Desired state made actual: what is in force, what is loaded, what is retired, and what happens without a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.clock import ManualClock, Timer
from gateway.control.documents import ResidentDocument
from gateway.control.memory_store import MemoryStore
from gateway.control.replica import ReplicaAbsent
from gateway.control.route_control import RouteControl
from gateway.control.store import AuditEntry, Change, DocumentKey, Snapshot
from gateway.errors import Conflict, LoadError, TurnoutError, UnknownModel, UnknownVersion
from gateway.serving.handle import VersionState
from gateway.telemetry.metrics import Metrics
from gateway.web.standing import standings
from tests.control.scene import MODEL, Link, Scene, ref, scene, until


def loaded(scene: Scene) -> set[int]:
    return {found.number for found, handle in scene.fleet.handles.items() if handle.state is VersionState.ACTIVE}


async def test_a_route_brings_its_versions_up_and_is_put_in_force(tmp_path: Path) -> None:
    """Arms, also at weight 0, rules, fallback and known good are loaded; others are not."""
    async with scene(tmp_path) as stage:
        rules = [{"name": "r", "if": {"==": [{"var": "a"}, 1]}, "use": 4}]
        view = await stage.put({1: 90, 2: 0}, rules=rules, fallback=3, known_good=5)
        assert view["status"]["applied"] is True
        assert loaded(stage) == {1, 2, 3, 4, 5}
        assert stage.arms() == {1: 90}
        assert (await stage.predict()).answered_by == ref(1)
        assert (await stage.predict(context={"a": 1})).answered_by == ref(4)
        assert stage.dataplane.current.table.default_route == MODEL


async def test_a_change_waits_for_its_versions_while_the_old_state_serves(tmp_path: Path) -> None:
    """The new arm is visible to routing only when it is warm; another route's change is not held up meanwhile."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 100})
        gate = stage.script(2).load_gate = asyncio.Event()
        view = await stage.put({1: 50, 2: 50}, wait=False)
        assert view["status"]["applied"] is False
        assert view["status"]["pending"] == [2]
        assert stage.arms() == {1: 100}
        assert (await stage.put({3: 100}, name="other"))["status"]["applied"] is True
        assert stage.arms("other") == {3: 100}
        assert stage.arms() == {1: 100}
        gate.set()
        assert await stage.plane.routes.wait_applied(MODEL, view["revision"], timeout_s=60)
        assert stage.arms() == {1: 50, 2: 50}


async def test_what_takes_traffic_away_is_never_held_up(tmp_path: Path) -> None:
    """Less weight for a version is in force at once, whatever else is still loading or will never load."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 50, 2: 50})
        stage.script(3).every_load = LoadError("no such thing")
        await stage.put({1: 100, 2: 0, 3: 0}, wait=False)
        assert stage.arms() == {1: 100}


async def test_a_version_that_fails_to_load_leaves_the_old_state_in_force_and_is_tried_again(tmp_path: Path) -> None:
    """The status says why; tries come with growing pauses; when it loads at last, the change is put in force."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await stage.put({1: 100})
        stage.script(2).every_load = LoadError("the file is odd")
        view = await stage.put({1: 50, 2: 50})
        assert view["status"]["applied"] is False
        assert "the file is odd" in view["status"]["failed"]["2"]
        assert stage.arms() == {1: 100}
        tries = len(stage.script(2).engines)
        assert tries == 1
        for wait in (1.0, 2.0, 4.0):
            clock.advance(wait * 0.9)
            await until(lambda: not stage.plane.reconciler.statistics().loading)
            assert len(stage.script(2).engines) == tries
            clock.advance(wait * 0.2)
            tries += 1
            await until(lambda expected=tries: len(stage.script(2).engines) == expected)
            await until(lambda: not stage.plane.reconciler.statistics().loading)
        stage.script(2).every_load = None
        clock.advance(60)
        await until(lambda: stage.arms() == {1: 50, 2: 50})
        assert (await stage.plane.routes.get(MODEL))["status"]["applied"] is True


async def test_a_version_whose_load_meets_the_unforeseen_is_tried_again_with_pauses_too(tmp_path: Path) -> None:
    """Not at once, and again at once: that would load for ever, at the cost of whatever serves."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await stage.put({1: 100})
        stage.script(2).every_load = RuntimeError("nobody foresaw this")  # type: ignore[assignment]
        view = await stage.put({1: 50, 2: 50})
        assert "nobody foresaw this" in view["status"]["failed"]["2"]
        assert stage.arms() == {1: 100}
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(stage.script(2).engines) == 1
        stage.script(2).every_load = None
        clock.advance(1.0)
        await until(lambda: stage.arms() == {1: 50, 2: 50})


class _Hasty(ManualClock):
    """Its timers ring a little before their time, as those of uvloop do: it counts whole milliseconds."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        return super().call_at(when - 0.0005, callback)


async def test_a_try_whose_timer_rings_a_little_early_is_made_all_the_same(tmp_path: Path) -> None:
    """Nobody would ask again: a version whose bytes came later stayed away for ever."""
    clock = _Hasty()
    async with scene(tmp_path, clock=clock) as stage:
        await stage.put({1: 100})
        stage.script(2).every_load = LoadError("the file is not there")
        await stage.put({1: 50, 2: 50})
        stage.script(2).every_load = None
        clock.advance(0.9996)
        await until(lambda: stage.arms() == {1: 50, 2: 50})


async def test_at_first_start_a_route_serves_with_what_can_run(tmp_path: Path) -> None:
    """The arm that fails is answered for by the fallback; the version is listed as failed, with the reason."""
    async with scene(tmp_path) as stage:
        stage.script(2).every_load = LoadError("the file is odd")
        await stage.put({1: 50, 2: 50}, fallback=1)
        for number in range(20):
            assert (await stage.predict(key=str(number))).answered_by == ref(1)
        rows = {row["version"]: row for row in await stage.plane.versions()}
        assert rows[2]["state"] == "failed"
        assert "the file is odd" in rows[2]["reason"]
        assert await stage.audited("rollback") == []
        assert all(standing.ready for standing in standings(stage.dataplane.current, stage.plane.whereabouts))


async def test_a_new_route_is_closed_until_it_is_known_what_can_answer(tmp_path: Path) -> None:
    """503, not 404 and not a share of the answers; a loaded fallback opens it at once, a failed version too."""
    async with scene(tmp_path) as stage:
        gate = stage.script(2).load_gate = asyncio.Event()
        view = await stage.put({1: 50, 2: 50}, wait=False)
        await until(lambda: ref(1) in stage.dataplane.current.handles)
        assert [(await stage.predict(key=key)).error for key in "abcdef"] == ["VersionUnavailable"] * 6
        assert not any(standing.ready for standing in standings(stage.dataplane.current))
        assert (await stage.plane.routes.get(MODEL))["status"]["applied"] is False
        await stage.put({1: 50, 2: 50}, wait=False, name="other", fallback=1)
        assert {(await stage.predict(key=key, route="other")).error for key in "abcdef"} == {None}
        # Its fallback answers, with other shares than the split's: who waits for readiness waits for those.
        assert not any(standing.ready for standing in standings(stage.dataplane.current, stage.plane.whereabouts))
        gate.set()
        assert await stage.plane.routes.wait_applied(MODEL, view["revision"], timeout_s=60)
        assert await stage.plane.routes.wait_applied("other", view["revision"], timeout_s=60)
        assert all(standing.ready for standing in standings(stage.dataplane.current, stage.plane.whereabouts))
        assert {(await stage.predict(key=key)).answered_by for key in "abcdefgh"} == {ref(1), ref(2)}
        stage.script(3).every_load = LoadError("odd")
        await stage.put({1: 50, 3: 50}, name="third")
        found = {(await stage.predict(key=key, route="third")).error for key in "abcdefgh"}
        assert found == {None, "VersionUnavailable"}


async def test_a_restart_serves_what_is_in_the_store(tmp_path: Path) -> None:
    """Another process on the same store comes up with the same routes and the same decisions."""
    store = MemoryStore()
    async with scene(tmp_path / "a", store=store) as stage:
        await stage.put({1: 50, 2: 50})
        before = {key: (await stage.predict(key=key)).answered_by for key in "abcdefgh"}
    async with scene(tmp_path / "b", store=store, versions=0) as stage:
        revision = (await store.snapshot()).revision
        assert await stage.plane.reconciler.wait_applied(revision, timeout_s=60)
        assert stage.arms() == {1: 50, 2: 50}
        assert {key: (await stage.predict(key=key)).answered_by for key in before} == before


async def test_what_no_route_names_any_more_is_drained_and_gone(tmp_path: Path) -> None:
    """Work under way is answered first; then every engine of it has ended."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 0, 2: 100}, known_good=1)
        gate = stage.script(2).hold()
        running = asyncio.ensure_future(stage.predict())
        await until(lambda: stage.script(2).running)
        await stage.put({1: 100})
        assert stage.arms() == {1: 100}
        assert stage.script(2).alive == 1
        gate.set()
        assert (await running).answered_by == ref(2)
        await until(lambda: ref(2) not in stage.fleet.handles)
        assert stage.script(2).alive == 0


async def test_a_version_that_two_routes_name_stays_for_the_other(tmp_path: Path) -> None:
    """Quarantined and dropped on one, it serves on for the other."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 50, 2: 50})
        await stage.put({2: 100}, name="other")
        await stage.plane.routes.rollback(MODEL, to=None, reason="", actor="olga")
        assert loaded(stage) == {1, 2}
        assert (await stage.predict(route="other")).answered_by == ref(2)


async def test_a_lifted_version_is_loaded_again(tmp_path: Path) -> None:
    """In quarantine it is not kept; after the lift it is, and weights reach it."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 50, 2: 50})
        await stage.plane.routes.rollback(MODEL, to=None, reason="", actor="olga")
        await until(lambda: loaded(stage) == {1})
        await stage.plane.routes.lift(MODEL, 2, actor="olga")
        view = await stage.plane.routes.set_weights(MODEL, {"1": 50, "2": 50}, actor="olga")
        await stage.plane.routes.wait_applied(MODEL, view["revision"], timeout_s=60)
        assert stage.arms() == {1: 50, 2: 50}


async def test_a_deleted_route_is_gone_at_once(tmp_path: Path) -> None:
    """When the answer comes, no request finds it."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 100})
        await stage.plane.routes.delete(MODEL, actor="olga")
        assert MODEL not in stage.dataplane.current.table.routes
        await until(lambda: not stage.fleet.handles)


async def test_without_the_store_serving_goes_on_and_changes_come_when_it_is_back(tmp_path: Path) -> None:
    """Told once when it goes and once when it comes; reads answer what was known last."""
    clock, store = ManualClock(), MemoryStore()
    async with scene(tmp_path, clock=clock, store=store) as stage:
        await stage.put({1: 100})
        store.fail("unplugged")
        await until(lambda: stage.stores.up == [True, False])
        assert (await stage.predict()).answered_by == ref(1)
        assert (await stage.plane.routes.get(MODEL))["status"]["split"] == [{"version": 1, "weight": 100}]
        for _ in range(3):
            clock.advance(10)
            await until(lambda: True)
        assert stage.stores.up == [True, False]
        store.fail(None)
        found = await store.read(DocumentKey("route", MODEL))
        assert found is not None
        assert found.body is not None
        body = {**found.body, "status": {**found.body["status"], "split": [{"version": 2, "weight": 100}]}}
        body["spec"] = {**found.body["spec"], "split": [{"version": 2, "weight": 100}]}
        await store.commit([Change(found.key, body, found.revision)], AuditEntry("other", "weights", "route/digits"))
        await until(lambda: stage.arms() == {2: 100}, clock=clock)
        assert stage.stores.up == [True, False, True]


async def test_a_document_that_cannot_be_read_spoils_no_other(tmp_path: Path) -> None:
    """Written by a newer program: the route stays as it was, the others follow."""
    store = MemoryStore()
    async with scene(tmp_path, store=store) as stage:
        await stage.put({1: 100})
        found = await store.read(DocumentKey("route", MODEL))
        assert found is not None
        assert found.body is not None
        newer = {**found.body, "schema": 99}
        await store.commit([Change(found.key, newer, found.revision)], AuditEntry("other", "x", "route/digits"))
        await stage.put({2: 100}, name="other")
        assert stage.arms() == {1: 100}
        assert stage.arms("other") == {2: 100}
        assert (await stage.predict()).answered_by == ref(1)


async def test_a_version_that_could_never_be_tried_leaves_nothing_in_the_metrics(tmp_path: Path) -> None:
    """While it is wanted it is failed; afterwards no alert goes on about it."""
    async with scene(tmp_path) as stage:
        metrics = Metrics(table=lambda: stage.dataplane.current.table)
        stage.observer.add(metrics)
        wanted, entry = ResidentDocument(MODEL, 99), AuditEntry("other", "load", "resident/digits/99")
        revision = await stage.store.commit([Change(wanted.key, wanted.to_json(), 0)], entry)
        await until(lambda: metrics.statistics().versions == 1)
        assert stage.plane.whereabouts(ref(99))[0] == "failed"
        await stage.store.commit([Change(wanted.key, None, revision)], entry)
        await until(lambda: metrics.statistics().versions == 0)


async def test_a_version_that_becomes_unwanted_while_it_loads_is_given_up(tmp_path: Path) -> None:
    """Its load is cancelled, and nothing of it is left."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 100})
        stage.script(2).load_gate = asyncio.Event()
        await stage.put({1: 50, 2: 50}, wait=False)
        await until(lambda: stage.script(2).alive == 1)
        await stage.put({1: 100})
        await until(lambda: ref(2) not in stage.fleet.handles)
        assert stage.script(2).alive == 0


async def test_the_default_route_is_the_one_that_is_set_or_the_only_one(tmp_path: Path) -> None:
    """Two routes and no setting: none."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 100})
        assert stage.dataplane.current.table.default_route == MODEL
        await stage.put({1: 100}, name="other")
        assert stage.dataplane.current.table.default_route is None
    async with scene(tmp_path / "set", default_route="other") as stage:
        await stage.put({1: 100})
        await stage.put({1: 100}, name="other")
        assert stage.dataplane.current.table.default_route == "other"


async def test_versions_loaded_by_name_stay_until_unloaded(tmp_path: Path) -> None:
    """Load returns when it is warm; unload when it is gone; a version that a route uses is a conflict."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 100})
        residents = stage.plane.residents
        assert await residents.load(f"{MODEL}/3", actor="olga") == ref(3)
        assert await residents.load(MODEL, actor="olga") == ref(6)
        assert loaded(stage) == {1, 3, 6}
        await residents.unload(f"{MODEL}/3", actor="olga")
        assert loaded(stage) == {1, 6}
        states = {row.ref.number: row.state for row in await residents.index()}
        assert states == {1: "active", 2: "registered", 3: "registered", 4: "registered", 5: "registered", 6: "active"}
        refused: list[tuple[str, type[TurnoutError]]]
        refused = [(f"{MODEL}/1", Conflict), (MODEL, Conflict), ("x", UnknownModel)]
        for reference, error in refused:
            with pytest.raises(error):
                await residents.unload(reference, actor="olga")
        stage.script(4).every_load = LoadError("odd")
        refused = [(f"{MODEL}/4", LoadError), (f"{MODEL}/99", UnknownVersion)]
        for reference, error in refused:
            with pytest.raises(error):
                await residents.load(reference, actor="olga")
        await until(lambda: ref(4) not in stage.fleet.handles)
        assert stage.script(4).alive == 0


class Faulty(Link):
    """A line over which a fault comes that nobody thought of, once."""

    fault: Exception | None = None

    async def snapshot(self) -> Snapshot:
        fault, self.fault = self.fault, None
        if fault is not None:
            raise fault
        return await super().snapshot()


async def test_a_fault_that_nobody_thought_of_does_not_end_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with its trace, and the store is asked again: the next change is taken."""
    clock, store = ManualClock(), MemoryStore()
    line = Faulty(store)
    async with scene(tmp_path, clock=clock, store=line) as stage:
        await stage.put({1: 100, 2: 0})
        line.fault = RuntimeError("the handler is closed")
        await RouteControl(store, ReplicaAbsent(store, clock)).set_weights(MODEL, {"2": 100}, actor="otto")
        await until(lambda: "the handler is closed" in caplog.text)
        await until(lambda: stage.arms() == {2: 100}, clock=clock)
