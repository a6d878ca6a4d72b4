"""Where the serving tests play: a manual clock, scripted engines, an observer that remembers, and short words."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Self

import numpy as np

from gateway.clock import ManualClock
from gateway.events.observer import RecordingObserver
from gateway.messages import Array, Arrays, VersionRef
from gateway.serving.batcher import Batcher
from gateway.serving.cost import CostCurve
from gateway.serving.devices import Devices
from gateway.serving.engine import BatchPolicy, Engine, EngineInfo, VersionSpec
from gateway.serving.handle import Handle
from gateway.serving.instances import specs_of
from gateway.serving.scripted_engine import Script, ScriptedEngines
from gateway.serving.supervision import Supervisor
from runtimes.base import LoadSpec

DIGITS = VersionRef("digits", 3)


def spec(ref: VersionRef = DIGITS, **fields: object) -> VersionSpec:
    """A version to serve; ``fields`` are those of VersionSpec."""
    fields.setdefault("load", LoadSpec(format="echo", entry="model", files=()))
    digest = "sha256:" + hashlib.sha256(str(ref).encode()).hexdigest()
    return VersionSpec(ref=ref, digest=digest, **fields)  # type: ignore[arg-type]


def rows(*values: float, width: int = 2) -> dict[str, Array]:
    """One request's inputs: a row for each value, filled with it."""
    return {"x": np.repeat(np.array(values, dtype=np.float32)[:, None], width, axis=1)}


def first_column(outputs: Arrays) -> list[float]:
    return [float(value) for value in outputs["y"][:, 0]]


async def until(condition: Callable[[], object]) -> None:
    """Lets the loop turn until ``condition`` holds; fails after a thousand turns. Time stands still meanwhile."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never came to hold")


async def turns(count: int = 30) -> None:
    """Lets everything that can go on go on."""
    for _ in range(count):
        await asyncio.sleep(0)


class Remembering(RecordingObserver):
    """Keeps queue depths, retirements and starts too."""

    def __init__(self) -> None:
        super().__init__()
        self.depths: list[int] = []
        self.retired: list[VersionRef] = []
        self.started: list[str] = []

    def queue_changed(self, version: VersionRef, rows: int) -> None:
        self.depths.append(rows)

    def version_retired(self, version: VersionRef) -> None:
        self.retired.append(version)

    def request_started(self, route: str) -> None:
        self.started.append(route)


class Stage:
    """Everything a version needs around it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.observer = Remembering()
        self.engines = ScriptedEngines(self.clock)
        self.supervisor: Supervisor | None = None
        self.successes = 0
        self._batchers: list[Batcher] = []
        self._supervisors: list[Supervisor] = []
        self._handles: list[Handle] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for batcher in self._batchers:
            await batcher.close("the test is over")
        for supervisor in self._supervisors:
            await supervisor.close()
        for handle in self._handles:
            await handle.kill()

    def script(self, ref: VersionRef = DIGITS) -> Script:
        return self.engines.script(ref)

    async def batcher(
        self, *, curve: CostCurve | None = None, devices: Devices | None = None, **fields: object
    ) -> Batcher:
        """A queue on running engines, as many as ``instances`` says, without a handle around it."""
        policy = fields.setdefault("batch", BatchPolicy())
        assert isinstance(policy, BatchPolicy)
        version = spec(**fields)  # type: ignore[arg-type]
        supervisors = [
            Supervisor(
                own, self.engines, clock=self.clock, observer=self.observer, prove=_nothing, changed=lambda: None
            )
            for own in specs_of(version)
        ]
        self.supervisor = supervisors[0]
        for supervisor in supervisors:
            await supervisor.start(_nothing)
        self._supervisors += supervisors
        batcher = Batcher(
            version,
            supervisors,
            signature=self.script(version.ref).signature,
            max_rows=policy.max_rows,
            curve=curve or CostCurve(),
            clock=self.clock,
            observer=self.observer,
            succeeded=self._count,
            devices=devices,
        )
        self._batchers.append(batcher)
        return batcher

    def handle(self, ref: VersionRef = DIGITS, **fields: object) -> Handle:
        handle = Handle(spec(ref, **fields), self.engines, clock=self.clock, observer=self.observer)
        self._handles.append(handle)
        return handle

    async def active(self, ref: VersionRef = DIGITS, **fields: object) -> Handle:
        """A version that serves; what its warm-up ran is forgotten."""
        handle = self.handle(ref, **fields)
        await handle.start()
        script = self.script(ref)
        script.runs.clear()
        script.limits_s.clear()
        self.observer.batches.clear()
        return handle

    def _count(self) -> None:
        self.successes += 1


async def _nothing(engine: Engine, info: EngineInfo) -> None:
    pass


def ask(
    batcher: Batcher | Handle, *values: float, deadline: float | None = None, width: int = 2
) -> asyncio.Task[list[float]]:
    """A client: its task ends with the first column of its answer."""

    async def client() -> list[float]:
        inputs = rows(*values, width=width)
        if isinstance(batcher, Handle):
            answer = await batcher.infer(inputs, len(values), deadline)
        else:
            answer = await batcher.infer(inputs, len(values), deadline)
        return first_column(answer.outputs)

    return asyncio.ensure_future(client())
