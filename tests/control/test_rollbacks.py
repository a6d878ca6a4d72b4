"""Going back: in force before it is durable, one winner, nothing of the bad version afterwards."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.control.memory_store import MemoryStore
from gateway.control.replica import ReplicaAbsent
from gateway.control.route_control import RouteControl
from gateway.control.sqlite_store import SqliteStore
from gateway.control.store import AuditEntry, Change, DocumentKey, Fence, Store
from gateway.errors import Conflict, LoadError, Quarantined, UnknownRoute
from gateway.serving.handle import VersionState
from tests.control.scene import MODEL, Link, Scene, ref, scene, until
from tests.small_disk import small_file_system

KEY = DocumentKey("route", MODEL)


async def back(stage: Scene, to: int | None = None) -> dict[str, object]:
    return await stage.plane.routes.rollback(MODEL, to=to, reason="it is bad", actor="olga")


async def test_after_a_rollback_no_request_reaches_the_bad_version_by_split_rule_or_pin(tmp_path: Path) -> None:
    """Durable, audited with before, after, actor and reason; its engine ends; a metric event is told."""
    async with scene(tmp_path) as stage:
        rules = [{"name": "two", "if": {"==": [{"var": "a"}, 1]}, "use": 2}]
        await stage.put({1: 50, 2: 50}, rules=rules, pin="allowed")
        view = await back(stage)
        assert (view["durable"], view["changed"]) == (True, True)
        for number in range(50):
            facts = {"context": {"a": 1}} if number % 2 else {}
            assert (await stage.predict(**facts)).answered_by == ref(1)
        assert (await stage.predict(pin=2)).error == "Quarantined"
        await until(lambda: ref(2) not in stage.fleet.handles)
        assert stage.script(2).alive == 0
        [record] = [found for found in await stage.store.audit() if found.entry.action == "rollback"]
        assert (record.entry.actor, record.entry.reason) == ("olga", "it is bad")
        assert record.before is not None
        assert record.after is not None
        assert record.before["route/digits"]["status"]["quarantined"] == {}
        assert list(record.after["route/digits"]["status"]["quarantined"]) == ["2"]
        [told] = stage.recording.rollbacks
        assert (told.trigger, told.target, told.quarantined, told.durable) == ("operator", 1, (2,), True)


async def test_a_reason_cannot_write_lines_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It stands there with its line breaks escaped, and in the audit as it was given."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 50, 2: 50})
        await stage.plane.routes.rollback(MODEL, to=None, reason="bad\nERROR turnout: all is lost", actor="olga")
        assert "bad\\nERROR turnout: all is lost" in caplog.text
        assert not any("\n" in record.getMessage() for record in caplog.records)
        [entry] = await stage.audited("rollback")
        assert entry.reason == "bad\nERROR turnout: all is lost"


async def test_a_rollback_needs_no_load(tmp_path: Path) -> None:
    """The known good is resident and warm: it is in force before the store has even been asked."""
    async with scene(tmp_path) as stage:
        await stage.put({1: 0, 2: 100}, known_good=1)
        assembled = list(stage.assembled)
        call = asyncio.ensure_future(back(stage))
        await asyncio.sleep(0)
        assert stage.arms() == {1: 100}
        await call
        assert stage.assembled == assembled


async def test_work_under_way_on_a_version_rolled_back_is_answered(tmp_path: Path) -> None:
    """What it can finish soon, it finishes; what it holds too long is decided anew and answered by the known good."""
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as stage:
        await stage.put({1: 0, 2: 100}, known_good=1)
        gate = stage.script(2).hold()
        quick = asyncio.ensure_future(stage.predict())
        await until(lambda: stage.script(2).running)
        await back(stage)
        gate.set()
        assert (await quick).answered_by == ref(2)
        await until(lambda: ref(2) not in stage.fleet.handles)

        await stage.plane.routes.lift(MODEL, 2, actor="olga")
        view = await stage.plane.routes.set_weights(MODEL, {"2": 100}, actor="olga")
        await stage.plane.routes.wait_applied(MODEL, view["revision"], timeout_s=60)
        stage.script(2).hold()
        slow = asyncio.ensure_future(stage.predict())
        await until(lambda: stage.script(2).running)
        await back(stage)
        await until(lambda: stage.fleet.handles[ref(2)].state is VersionState.DRAINING)
        clock.advance(0.5)
        await asyncio.sleep(0)
        assert not slow.done()
        clock.advance(0.6)
        record = await slow
        assert (record.answered_by, record.error, record.chosen_failure) == (ref(1), None, None)
        await until(lambda: ref(2) not in stage.fleet.handles)


async def test_without_the_store_a_rollback_applies_at_once_and_is_written_when_it_is_back(tmp_path: Path) -> None:
    """``durable`` false, and in force; then written, with its audit record, and the same in force."""
    clock, store = ManualClock(), MemoryStore()
    async with scene(tmp_path, clock=clock, store=store) as stage:
        await stage.put({1: 50, 2: 50})
        store.fail("the disk is full")
        view = await back(stage)
        assert view["durable"] is False
        assert stage.arms() == {1: 100}
        assert (await stage.predict(pin=2, pin_by_protocol=True)).error == "Quarantined"
        assert stage.recording.rollbacks[0].durable is False
        again = await back(stage)
        assert (again["durable"], again["changed"]) == (False, False)
        assert len(stage.recording.rollbacks) == 1
        shown = (await stage.plane.routes.get(MODEL))["status"]
        assert (shown["durable"], shown["split"]) == (False, [{"version": 1, "weight": 100}])

        store.fail(None)
        await until(lambda: not len(stage.plane.reconciler.overrides), clock=clock)
        found = await store.read(KEY)
        assert found is not None
        assert found.body is not None
        assert found.body["status"]["split"] == [{"version": 1, "weight": 100}]
        assert stage.arms() == {1: 100}
        assert len(await stage.audited("rollback")) == 1
        assert (await stage.plane.routes.get(MODEL))["status"]["durable"] is True


class SlowStore(Link):
    """Takes what is written once it is let."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.let = asyncio.Event()
        self.let.set()
        self.waiting = 0

    async def commit(
        self, changes: Sequence[Change], entry: AuditEntry, *, at: int | None = None, fence: Fence | None = None
    ) -> int:
        self.waiting += 1
        await self.let.wait()
        return await super().commit(changes, entry, at=at, fence=fence)


async def test_a_rollback_while_the_same_one_is_on_its_way_to_the_store_is_durable(tmp_path: Path) -> None:
    """The guard, or another operator, was a moment earlier: the second one waits for the store as well, and finds it
    done there. One audit record."""
    store = SlowStore(MemoryStore())
    async with scene(tmp_path, store=store) as stage:
        await stage.put({1: 50, 2: 50})
        store.let.clear()
        store.waiting = 0
        first = asyncio.ensure_future(back(stage))
        await until(lambda: store.waiting == 1)
        second = asyncio.ensure_future(back(stage))
        await until(lambda: store.waiting == 2)
        assert stage.arms() == {1: 100}
        store.let.set()
        views = [await first, await second]
        assert [(view["durable"], view["changed"]) for view in views] == [(True, True), (True, False)]
        assert views[1]["revision"] == views[0]["revision"]
        assert len(await stage.audited("rollback")) == 1


async def test_a_rollback_that_is_not_durable_yet_holds_over_changes_made_elsewhere(tmp_path: Path) -> None:
    """Another replica wrote weights meanwhile: here the bad version stays off, and the rollback is written on top."""
    clock, store = ManualClock(), MemoryStore()
    link = Link(store)
    async with scene(tmp_path / "a", clock=clock, store=link) as stage:
        await stage.put({1: 50, 2: 50})
        async with scene(tmp_path / "b", store=store, versions=0) as other:
            assert await other.plane.reconciler.wait_applied((await store.snapshot()).revision, timeout_s=60)
            link.cut()
            assert (await back(stage))["durable"] is False
            await other.plane.routes.set_weights(MODEL, {"2": 100}, actor="otto")
            assert other.arms() == {2: 100}
            link.mend()
            await until(lambda: not len(stage.plane.reconciler.overrides), clock=clock)
            await until(lambda: other.arms() == {1: 100})
            assert stage.arms() == {1: 100}
            assert stage.recording.revisions == sorted(stage.recording.revisions)


async def test_of_two_rollbacks_at_once_on_two_replicas_one_is_written(tmp_path: Path) -> None:
    """Compare-and-set decides; the second finds it done: one audit record, both serve the known good."""
    store = MemoryStore()
    async with scene(tmp_path / "a", store=store) as one:
        await one.put({1: 50, 2: 50})
        async with scene(tmp_path / "b", store=store, versions=0) as two:
            revision = (await store.snapshot()).revision
            assert await two.plane.reconciler.wait_applied(revision, timeout_s=60)
            await asyncio.gather(back(one), back(two))
            assert one.arms() == two.arms() == {1: 100}
            assert len(await one.audited("rollback")) == 1
            view = await back(one)
            assert (view["changed"], view["durable"]) == (False, True)
            assert len(await one.audited("rollback")) == 1


async def test_two_rollbacks_to_different_versions_leave_one_truth(tmp_path: Path) -> None:
    """Whoever is written first wins; the other's target is quarantined by then, and its replica follows the store."""
    store = MemoryStore()
    async with scene(tmp_path / "a", store=store) as one:
        await one.put({1: 40, 2: 30, 3: 30})
        async with scene(tmp_path / "b", store=store, versions=0) as two:
            assert await two.plane.reconciler.wait_applied((await store.snapshot()).revision, timeout_s=60)
            results = await asyncio.gather(back(one, 1), back(two, 2), return_exceptions=True)
            assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
            found = await store.read(KEY)
            assert found is not None
            assert found.body is not None
            target = found.body["status"]["split"][0]["version"]
            await until(lambda: one.arms() == two.arms() == {target: 100})


async def test_a_rollback_with_nowhere_to_go_changes_nothing(tmp_path: Path) -> None:
    """No such route, a quarantined target, one that is not named, one that is not loaded: said, and nothing moves."""
    async with scene(tmp_path) as stage:
        with pytest.raises(UnknownRoute):
            await back(stage)
        stage.script(1).every_load = LoadError("odd")
        await stage.put({1: 10, 2: 90}, known_good=1)
        with pytest.raises(Conflict, match=r"cannot take over.*odd"):
            await back(stage)
        with pytest.raises(Conflict, match="does not name version 5"):
            await back(stage, 5)
        assert stage.arms() == {1: 10, 2: 90}
        await back(stage, 2)
        with pytest.raises(Quarantined):
            await back(stage, 1)
        assert stage.arms() == {2: 100}


async def test_a_deleted_route_ends_its_rollback(tmp_path: Path) -> None:
    """Deleted in the store while this replica could not write: what the store says counts."""
    clock, store = ManualClock(), MemoryStore()
    link = Link(store)
    async with scene(tmp_path, clock=clock, store=link) as stage:
        await stage.put({1: 50, 2: 50})
        link.cut()
        await back(stage)
        await RouteControl(store, ReplicaAbsent(store, clock)).delete(MODEL, actor="otto")
        link.mend()
        await until(lambda: MODEL not in stage.dataplane.current.table.routes, clock=clock)
        await until(lambda: not len(stage.plane.reconciler.overrides), clock=clock)
        await until(lambda: not (tmp_path / "rollbacks-not-stored").exists(), clock=clock)


async def test_a_rollback_that_comes_late_spares_what_came_since(tmp_path: Path) -> None:
    """Made while this replica was cut off, against version 2. Meanwhile others replaced that by version 3, which nobody
    has judged: it stays, here too, and nothing of the rollback is left to come back with a restart."""
    clock, store = ManualClock(), MemoryStore()
    link = Link(store)
    async with scene(tmp_path / "a", clock=clock, store=link) as stage:
        await stage.put({1: 50, 2: 50})
        async with scene(tmp_path / "b", store=store, versions=0) as other:
            assert await other.plane.reconciler.wait_applied((await store.snapshot()).revision, timeout_s=60)
            link.cut()
            view = await stage.plane.routes.rollback(MODEL, to=None, reason="it errs", actor="olga", local=True)
            assert view["durable"] is False
            assert (tmp_path / "a" / "rollbacks-not-stored").exists()
            spec = {"model": MODEL, "split": [{"version": 1, "weight": 0}, {"version": 3, "weight": 100}]}
            await other.plane.routes.put(MODEL, spec, actor="otto")
            await until(lambda: other.arms() == {3: 100})
            link.mend()
            await until(lambda: not len(stage.plane.reconciler.overrides), clock=clock)
            await until(lambda: stage.arms() == {3: 100}, clock=clock)
            await until(lambda: not (tmp_path / "a" / "rollbacks-not-stored").exists(), clock=clock)
            assert other.arms() == {3: 100}
            assert (await other.plane.routes.get(MODEL))["status"]["quarantined"] == {}
            assert await stage.audited("rollback") == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with small_file_system(tmp_path / "small", size="2m") as disk:
        yield disk


async def test_on_a_full_disk_a_rollback_applies_at_once_and_is_written_once_there_is_space(
    small_disk: Path, tmp_path: Path
) -> None:
    """The real store, the disk really full: in force, not durable; freed: durable, and a restart serves it."""
    clock = ManualClock()
    store = SqliteStore(small_disk / "store.sqlite3")
    async with scene(tmp_path, clock=clock, store=store) as stage:
        await stage.put({1: 50, 2: 50})
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        # The log's last page may still have room: notes fill it, until the store says that it cannot.
        with contextlib.suppress(Exception):
            for number in range(500):
                await stage.plane.tokens.create(f"t{number}", "viewer", actor="olga")
        view = await back(stage)
        assert view["durable"] is False
        assert stage.arms() == {1: 100}
        assert (await stage.predict()).answered_by == ref(1)
        filler.unlink()
        await until(lambda: not len(stage.plane.reconciler.overrides), clock=clock)
        assert len(await stage.audited("rollback")) == 1
    again = SqliteStore(small_disk / "store.sqlite3")
    found = await again.read(KEY)
    assert found is not None
    assert found.body is not None
    assert list(found.body["status"]["quarantined"]) == ["2"]
    await again.close()
