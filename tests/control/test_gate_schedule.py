"""Versions in service are looked at in their time, by one replica; one that fails raises an alarm until it passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.clock import ManualClock
from gateway.control.desired import Desired
from gateway.control.gate_schedule import due, in_service, standing
from gateway.control.notification_events import notice_of
from gateway.control.store import AuditEntry, Change, DocumentKey
from gateway.messages import VersionRef
from gateway.registry.catalogue import ModelDocument
from tests.control.scene import MODEL, Scene, scene
from tests.registry.builders import stored_manifest

HOUR = 3600.0
PASSES: Mapping[str, Any] = {"kind": "environment"}
FAILS: Mapping[str, Any] = {"kind": "environment", "required": True}
"""Of a version without an environment of its own; nothing needs to be loaded for it."""


@dataclass(frozen=True)
class Watched:
    """A gateway with version 1 in service, whose gates are run once a day."""

    stage: Scene
    clock: ManualClock

    async def ask(self, gate: Mapping[str, Any], **more: Any) -> None:
        body = {"revalidate_h": 24.0, "gates": [gate], **more}
        await self.stage.plane.gates.declare(MODEL, body, actor="anna")

    async def alarms(self) -> list[Mapping[str, Any]]:
        return [one for one in await self.stage.plane.alarms.standing() if one["kind"] == "gates"]

    async def runs(self) -> list[Mapping[str, Any]]:
        (model,) = await self.stage.plane.models.list()
        return list(model["versions"][0]["gates"])

    async def until(self, holds: Any) -> None:
        """Seconds of the gateway's clock go by; a look itself is a real process."""
        async with asyncio.timeout(100):
            while not await holds():
                self.clock.advance(1.0)
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[Watched]:
    clock = ManualClock()
    async with scene(folder / "home", versions=0, clock=clock) as stage:
        manifests = [stored_manifest(stage.plane.blobs, content, MODEL) for content in (b"{}", b'{"delay_ms": 1}')]
        model = ModelDocument(MODEL)
        for manifest in manifests:
            model, _ = model.add_version(manifest.digest, created_at=0.0)
        key = DocumentKey("model", MODEL)
        await stage.store.commit([Change(key, model.to_json(), 0)], AuditEntry("test", "register", str(key)))
        await stage.put({1: 100})
        yield Watched(stage, clock)


async def test_a_version_in_service_that_fails_raises_an_alarm_until_it_passes(tmp_path: Path) -> None:
    """Run at once, since it never was, then each day; told once each way; it goes on answering."""
    async with watched(tmp_path) as w:
        await w.ask(PASSES)
        await w.until(lambda: _count(w, 1))
        assert await w.alarms() == []
        await w.ask(FAILS)
        w.clock.advance(23 * HOUR)
        assert len(await w.runs()) == 1
        w.clock.advance(2 * HOUR)

        async def raised() -> bool:
            return bool(await w.alarms())

        await w.until(raised)
        (alarm,) = await w.alarms()
        assert alarm["name"] == f"gates/{MODEL}/1"
        assert "names no environment of its own" in alarm["reason"]
        assert (await w.stage.predict()).code == 200
        notices = [notice_of(record) for record in await w.stage.store.audit()]
        (told,) = [one for one in notices if one is not None and one.event == "gates"]
        assert (told.model, told.title) == (MODEL, f"In service, and not through its gates: model {MODEL}/1")
        assert standing(w.stage.plane.reconciler.desired) == {VersionRef(MODEL, 1): False}
        assert w.stage.plane.gates.statistics().runs == {(MODEL, "passed"): 1, (MODEL, "failed"): 1}
        await w.ask(PASSES)
        w.clock.advance(25 * HOUR)

        async def over() -> bool:
            return not await w.alarms()

        await w.until(over)
        assert [entry.action for entry in await w.stage.audited("alarm-cleared")] == ["alarm-cleared"]


async def test_an_alarm_ends_when_the_version_leaves_service_or_nothing_is_asked(tmp_path: Path) -> None:
    async with watched(tmp_path) as w:
        await w.ask(FAILS)

        async def raised() -> bool:
            return bool(await w.alarms())

        await w.until(raised)
        await w.stage.plane.gates.declare(MODEL, None, actor="anna")

        async def over() -> bool:
            return not await w.alarms()

        await w.until(over)
        (cleared,) = await w.stage.audited("alarm-cleared")
        assert "nothing is asked of it" in cleared.reason


async def test_a_result_that_is_too_old_or_of_the_future_is_not_gone_by(tmp_path: Path) -> None:
    """``fresh_h`` by the wall clock; a clock that was wrong makes nothing fresh for ever."""
    async with watched(tmp_path) as w:
        gates = w.stage.plane.gates
        await gates.declare(MODEL, {"fresh_h": 2.0, "gates": [PASSES]}, actor="anna")

        async def required() -> int:
            await gates.require(MODEL, 2, purpose="alias:a", actor="olga")
            (model,) = await w.stage.plane.models.list()
            return len(model["versions"][1]["gates"])

        assert await required() == 1
        w.clock.advance(1.9 * HOUR)
        assert await required() == 1
        w.clock.advance(0.2 * HOUR)
        assert await required() == 2
        w.clock.jump_wall(-10 * HOUR)
        assert await required() == 3


async def test_a_job_of_gates_can_be_cancelled_and_refuses_who_waits(tmp_path: Path) -> None:
    """Nothing is written of it."""
    async with watched(tmp_path) as w:
        await w.stage.plane.gates.declare(MODEL, {"gates": [PASSES]}, actor="anna")
        job = await w.stage.plane.gates.start(MODEL, "2", actor="olga")
        w.stage.plane.jobs.cancel(job["id"])
        ended = await w.stage.plane.jobs.ended(job["id"])
        assert ended.state == "cancelled"
        (model,) = await w.stage.plane.models.list()
        assert model["versions"][1]["gates"] == []


async def test_what_is_due_is_in_service_asked_of_and_not_looked_at_for_so_long(tmp_path: Path) -> None:
    """Pure: by the desired state and the wall clock."""
    async with watched(tmp_path) as w:
        desired = w.stage.plane.reconciler.desired
        model = desired.models[MODEL]
        ran = {"record": "sha256:" + "0" * 64, "at": 100 * HOUR, "passed": True}

        def of(document: ModelDocument) -> Desired:
            return replace(desired, models={MODEL: document})

        assert in_service(desired) == {VersionRef(MODEL, 1)}
        assert list(due(of(model), 100 * HOUR)) == []
        asked = model.with_gates({"revalidate_h": 24.0, "gates": [PASSES]})
        assert list(due(of(asked), 100 * HOUR)) == [VersionRef(MODEL, 1)]
        looked = asked.with_gate(1, ran)
        assert list(due(of(looked), 123 * HOUR)) == []
        assert list(due(of(looked), 124 * HOUR)) == [VersionRef(MODEL, 1)]
        assert list(due(of(looked), 90 * HOUR)) == [VersionRef(MODEL, 1)]
        assert list(due(of(asked.with_gate(1, {"overridden": "x", "at": 1e9, "passed": False})), 1e9)) != []
        elsewhere = model.with_gates({"revalidate_h": 24.0, "gates": [{**PASSES, "for": ["target:production"]}]})
        assert list(due(of(elsewhere), 100 * HOUR)) == []
        (route,) = desired.routes
        here = model.with_gates({"revalidate_h": 24.0, "gates": [{**PASSES, "for": [f"rollout:{route}"]}]})
        assert list(due(of(here), 100 * HOUR)) == [VersionRef(MODEL, 1)]


async def _count(w: Watched, runs: int) -> bool:
    return len(await w.runs()) >= runs
