"""A control plane with everything real but the models: scripted engines, a memory store, a clock moved by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from gateway.clock import Clock, ManualClock
from gateway.control.memory_store import MemoryStore
from gateway.control.plane import ControlPlane
from gateway.control.store import AuditEntry, AuditRecord, Change, Document, DocumentKey, Fence, Snapshot, Store
from gateway.dataplane import Dataplane, Trail
from gateway.errors import StoreUnavailable, TurnoutError
from gateway.events.fan_out import FanOut
from gateway.events.observer import Observer, RecordingObserver
from gateway.events.records import RequestRecord
from gateway.messages import Arrays, InferRequest, Signature, VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import ModelDocument
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet
from gateway.serving.scripted_engine import Script, ScriptedEngines
from gateway.settings import Settings
from runtimes.base import LoadSpec

MODEL = "digits"


def ref(number: int) -> VersionRef:
    return VersionRef(MODEL, number)


def digest(number: int) -> str:
    return "sha256:" + f"{number:064x}"


WITHIN_S = 60.0
"""For what threads, disks and real servers have a part in: no machine that works is so slow."""


async def until(condition: Callable[[], object], *, clock: ManualClock | None = None, step_s: float = 1.0) -> None:
    """Lets the loop turn until the condition holds. ``clock``: moved on meanwhile, for what is tried again by it, and
    may have begun its pause only after the test moved it last."""
    limit, turn = time.monotonic() + WITHIN_S, 0
    while not condition():
        if time.monotonic() > limit:
            raise AssertionError(f"the condition did not come true within {WITHIN_S:g} s")
        turn += 1
        if clock is not None and turn % 50 == 0:
            clock.advance(step_s)
        await asyncio.sleep(0 if turn % 50 else 0.001)


async def threads_done() -> None:
    """What the loop's own thread was given (files, above all) has ended, on however slow a disk."""
    await asyncio.to_thread(lambda: None)


class Link:
    """One replica's line to a store that others reach too; it can be cut."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cut = asyncio.Event()

    def cut(self) -> None:
        self._cut.set()

    def mend(self) -> None:
        self._cut.clear()

    def _reach(self) -> None:
        if self._cut.is_set():
            raise StoreUnavailable("the line to the store is cut")

    async def snapshot(self) -> Snapshot:
        self._reach()
        return await self._store.snapshot()

    async def read(self, key: DocumentKey) -> Document | None:
        self._reach()
        return await self._store.read(key)

    async def commit(
        self, changes: Sequence[Change], entry: AuditEntry, *, at: int | None = None, fence: Fence | None = None
    ) -> int:
        self._reach()
        return await self._store.commit(changes, entry, at=at, fence=fence)

    async def history(self, key: DocumentKey, *, limit: int = 100) -> Sequence[Document]:
        self._reach()
        return await self._store.history(key, limit=limit)

    async def audit(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditRecord]:
        self._reach()
        return await self._store.audit(after=after, limit=limit)

    async def watch(self, after: int) -> AsyncIterator[int]:
        async for revision in self._store.watch(after):
            self._reach()
            yield revision

    async def close(self) -> None:
        """The store is another's to close."""


class Stores(Observer):
    """Keeps what the reconciler says of the store."""

    def __init__(self) -> None:
        self.up: list[bool] = []

    def store_reachable(self, up: bool) -> None:
        self.up.append(up)


class Scene:
    """``predict`` plays the web's part: it asks the data plane and tells the observers what became of it."""

    def __init__(self, store: Store, blobs: BlobStore, clock: Clock, settings: Settings) -> None:
        self.clock = clock
        self.store = store
        self.recording = RecordingObserver()
        self.stores = Stores()
        self.observer = FanOut(self.recording, self.stores)
        self.engines = ScriptedEngines(clock)
        self.fleet = Fleet(
            self.engines,
            clock=clock,
            observer=self.observer,
            loads_at_once=8,
            probe_interval_s=1e6,
            drain_timeout_s=1e6,
        )
        self.dataplane = Dataplane(observer=self.observer, clock=clock)
        self.assembled: list[VersionRef] = []
        self.plane = ControlPlane(
            store=store,
            blobs=blobs,
            fleet=self.fleet,
            dataplane=self.dataplane,
            settings=settings,
            clock=clock,
            observer=self.observer,
            assemble=self._assemble,
        )
        for watching in self.plane.observers:
            self.observer.add(watching)
        self._sent = 0

    def _assemble(self, version: VersionRef, digest: str) -> VersionSpec:
        self.assembled.append(version)
        return VersionSpec(version, digest, LoadSpec("echo", "", ()))

    def script(self, number: int) -> Script:
        return self.engines.script(ref(number))

    async def add_versions(self, *numbers: int) -> None:
        """Puts a catalogue with versions 1 to the greatest into the store."""
        key = DocumentKey("model", MODEL)
        found = await self.store.read(key)
        model = ModelDocument(MODEL) if found is None else ModelDocument.from_json(found.body)
        for number in range(model.next_number, max(numbers) + 1):
            model, _ = model.add_version(digest(number), created_at=0.0)
        entry = AuditEntry("test", "register", str(key))
        await self.store.commit([Change(key, model.to_json(), 0 if found is None else found.revision)], entry)

    async def put(self, split: Mapping[int, int], *, wait: bool = True, name: str = MODEL, **changes: Any) -> Any:
        arms = [{"version": version, "weight": weight} for version, weight in split.items()]
        view = await self.plane.routes.put(name, {"model": MODEL, "split": arms, **changes}, actor="olga")
        if wait:
            await self.plane.routes.wait_applied(name, view["revision"], timeout_s=60)
        return await self.plane.routes.get(name)

    def arms(self, name: str = MODEL) -> dict[int, int]:
        """The split in force here."""
        return {arm.version: arm.weight for arm in self.dataplane.current.table.routes[name].arms}

    async def audited(self, action: str) -> list[AuditEntry]:
        return [record.entry for record in await self.store.audit() if record.entry.action == action]

    async def predict(
        self,
        *,
        value: float = 1.0,
        key: str | None = None,
        timeout_s: float | None = 30.0,
        sending_s: float = 0.0,
        **facts: Any,
    ) -> RequestRecord:
        """``sending_s``: how long the client took to send it; the deadline counts from its beginning."""
        self._sent += 1
        began, trail, error = self.clock.monotonic() - sending_s, Trail(), None
        request = InferRequest(
            route=facts.pop("route", MODEL),
            request_id=str(self._sent),
            decision_id=str(self._sent),
            deadline=None if timeout_s is None else began + timeout_s,
            key=key if key is not None else f"key-{self._sent}",
            **facts,
        )
        try:
            await self.dataplane.infer(request, lambda signature: _decode(signature, value), trail)
        except TurnoutError as failure:
            error = type(failure).__name__
        record = RequestRecord(
            route=trail.route or "",
            request_id=request.request_id,
            decision_id=request.decision_id,
            decision=trail.decision,
            answered_by=trail.answered_by if error is None else None,
            code=200 if error is None else 500,
            chosen_failure=trail.chosen_failure,
            error=error,
            rows=trail.rows,
            queue_s=trail.queue_s,
            batch=trail.batch,
            batch_rows=trail.batch_rows,
            started_wall=0.0,
            duration_s=self.clock.monotonic() - began,
        )
        self.observer.request_finished(record)
        return record


def _decode(signature: Signature, value: float) -> tuple[Arrays, int]:
    return {signature.inputs[0].name: np.full((1, 2), value, np.float32)}, 1


@asynccontextmanager
async def scene(
    tmp_path: Path,
    *,
    store: Store | None = None,
    clock: Clock | None = None,
    versions: int = 6,
    start: bool = True,
    **changes: Any,
) -> AsyncIterator[Scene]:
    """The loop has one thread for its work, so that ``threads_done`` is behind all that was given to it before."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    clock = clock or ManualClock()
    settings = Settings(**{"home": tmp_path, **changes})
    made = Scene(store or MemoryStore(clock=clock), BlobStore(tmp_path), clock, settings)
    if versions:
        await made.add_versions(versions)
    if start:
        await made.plane.start()
    try:
        yield made
    finally:
        await made.plane.close()
        await made.fleet.close(abandon=True)
        await made.store.close()
