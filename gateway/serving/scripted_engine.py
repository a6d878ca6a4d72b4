"""An engine that does what its script says: delays, failures, crashes, hangs. Shipped for tests; runs no model.

A ``Script`` outlives the engines of its version, as a model's files outlive its processes: it says
how loads and runs go, and records what happened. Time is the clock's, so a ``ManualClock`` moves it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gateway.clock import Clock, Timer
from gateway.errors import (
    LoadError,
    ModelError,
    NotBegun,
    TurnoutError,
    VersionCrashed,
    VersionHung,
    VersionUnavailable,
)
from gateway.messages import Arrays, Signature, TensorSpec, VersionRef
from gateway.serving.counts import Counting
from gateway.serving.engine import BatchResult, Done, EngineInfo, VersionSpec, run_on

__all__ = ["DOUBLING", "Script", "ScriptedEngine", "ScriptedEngines", "double"]

DOUBLING = Signature(
    inputs=(TensorSpec("x", "FP32", ("batch", "width")),),
    outputs=(TensorSpec("y", "FP32", ("batch", "width")),),
)


def double(inputs: Arrays) -> Arrays:
    """``y = 2 x``: a batch's neighbours can be told apart by their answers."""
    return {"y": np.asarray(inputs["x"]) * 2}


class _Launch(NamedTuple):
    parts: Sequence[Arrays]
    limit_s: float
    done: Done


@dataclass(slots=True, eq=False)
class Script:
    """How a version behaves, and what it was asked.

    ``model`` answers a joined batch, or raises: ModelError, InvalidInput and DeviceMemoryExhausted
    leave the engine good, VersionCrashed and VersionHung end it. ``loads`` are the outcomes of the
    next starts (None: loads); an exception under ``every_load`` fails all of them. ``gate`` holds
    runs until it is set, ``end_gate`` the end of an engine cancelled at work, as a device's driver
    does that gives memory back. ``delay_s`` is what a run of so many rows takes on the clock;
    ``depth`` how many batches an engine takes at once. ``staged`` holds the rows of items that were offered early,
    ``countings`` what was to be counted with.
    """

    signature: Signature = DOUBLING
    model: Callable[[Arrays], Arrays] = double
    delay_s: Callable[[int], float] | None = None
    load_s: float = 0.0
    loads: deque[TurnoutError | None] = field(default_factory=deque)
    every_load: TurnoutError | None = None
    gate: asyncio.Event | None = None
    load_gate: asyncio.Event | None = None
    end_gate: asyncio.Event | None = None
    memory_bytes: int = 1 << 20
    depth: int = 1
    device: str = "cpu"
    runs: list[tuple[int, ...]] = field(default_factory=list)
    staged: list[int] = field(default_factory=list)
    countings: list[Counting] = field(default_factory=list)
    limits_s: list[float] = field(default_factory=list)
    engines: list[ScriptedEngine] = field(default_factory=list)

    @property
    def alive(self) -> int:
        """Engines that hold something."""
        return sum(engine.alive for engine in self.engines)

    @property
    def running(self) -> bool:
        return any(engine.running for engine in self.engines)

    def hold(self) -> asyncio.Event:
        """From now on every run waits until the event given back is set."""
        self.gate = asyncio.Event()
        return self.gate

    def kill(self, how: str = "signal 9") -> None:
        """Ends every living engine, as ``kill -9`` ends a child."""
        for engine in self.engines:
            if engine.alive:
                engine.die(how)


class ScriptedEngine:
    """One life of a scripted version. See ``gateway.serving.engine.Engine`` for what callers may rely on."""

    def __init__(self, script: Script, on_exit: Callable[[str], None], *, clock: Clock, pid: int) -> None:
        self._script = script
        self._on_exit = on_exit
        self._clock = clock
        self._pid = pid
        self._death: asyncio.Future[str] | None = None
        self._launched: deque[_Launch] = deque()
        self._work: asyncio.Task[None] | None = None
        self.alive = False
        self.running = False

    def __repr__(self) -> str:
        state = "running" if self.running else "alive" if self.alive else "ended"
        return f"<ScriptedEngine {self._pid} [{state}]>"

    async def start(self) -> EngineInfo:
        script = self._script
        self.alive = True
        self._death = asyncio.get_running_loop().create_future()
        try:
            if script.load_gate is not None:
                await script.load_gate.wait()
            if script.load_s:
                await self._clock.sleep(script.load_s)
            outcome = script.loads.popleft() if script.loads else script.every_load
            if outcome is not None:
                raise outcome
            if self._death.done():
                raise LoadError(f"the child died while loading: {self._death.result()}")
        except BaseException:
            self.alive = False
            raise
        return EngineInfo(script.signature, script.device, self._pid, {"model": "0" * 64})

    @property
    def depth(self) -> int:
        return self._script.depth

    def launch(self, parts: Sequence[Arrays], *, limit_s: float, done: Done) -> None:
        """A batch begins when those before it are answered; ``runs`` and ``limits_s`` tell of it then."""
        self._launched.append(_Launch(parts, limit_s, done))
        if self._work is None:
            self._work = asyncio.ensure_future(self._serve())

    def stage(self, inputs: Arrays) -> None:
        """There is nothing to copy to; that it was asked for is kept."""
        self._script.staged.append(sum(len(array) for array in inputs.values()))

    def count(self, counting: Counting) -> None:
        """Nothing is counted; that it was asked for is kept."""
        self._script.countings.append(counting)

    def capture(self, rows: int, seed: int) -> asyncio.Future[bytes]:
        """Not here."""
        raise VersionUnavailable("a scripted version makes no profile of live rows; register it with placement process")

    async def run(self, parts: Sequence[Arrays], *, limit_s: float) -> BatchResult:
        try:
            return await run_on(self.launch, parts, limit_s)
        except asyncio.CancelledError:
            await self._end_at_work()
            raise

    async def _serve(self) -> None:
        """Answers what was launched, in order; after the end of the engine nothing more begins."""
        while self._launched:
            launched = self._launched[0]
            outcome: BatchResult | TurnoutError
            try:
                outcome = await self._answered(launched)
            except TurnoutError as failure:
                outcome = failure
            except Exception as fault:  # noqa: BLE001 - the batch boundary, as in every engine
                outcome = ModelError(f"the model raised {type(fault).__name__}: {fault}")
                outcome.__cause__ = fault
            if isinstance(outcome, VersionCrashed | VersionHung):
                self.alive = False
            self._launched.popleft()
            launched.done(outcome)
            while not self.alive and self._launched:
                self._launched.popleft().done(NotBegun("the child ended under an earlier batch"))
        self._work = None

    async def _answered(self, launched: _Launch) -> BatchResult:
        if not self.alive or self._death is None:
            raise VersionCrashed("the child is dead")
        script = self._script
        rows = tuple(len(next(iter(part.values()))) for part in launched.parts)
        script.runs.append(rows)
        script.limits_s.append(launched.limit_s)
        began = self._clock.monotonic()
        self.running = True
        try:
            await self._hold(self._death, sum(rows), launched.limit_s)
            outputs = script.model(self._joined(launched.parts))
        finally:
            self.running = False
        return BatchResult(outputs, self._clock.monotonic() - began)

    async def _end_at_work(self) -> None:
        """Gives up what is under way, of which nobody hears any more."""
        self.alive = False
        work, self._work = self._work, None
        if work is None:
            return
        self._launched.clear()
        work.cancel()
        await asyncio.wait({work})
        if self._script.end_gate is not None:
            await self._script.end_gate.wait()

    async def _hold(self, death: asyncio.Future[str], rows: int, limit_s: float) -> None:
        """Passes the scripted time, unless the child is killed or found hung meanwhile."""
        script = self._script
        delay_s = 0.0 if script.delay_s is None else script.delay_s(rows)
        gate = script.gate
        if delay_s <= 0 and (gate is None or gate.is_set()):
            return
        # Timers stand before anything is awaited, so that a test may advance the clock as soon as a run has begun.
        hung, hang_timer = self._future_after(limit_s)
        slept, sleep_timer = self._future_after(delay_s)
        opened = asyncio.ensure_future(gate.wait()) if gate is not None else None
        work = asyncio.gather(slept, *([opened] if opened is not None else []))
        ends: set[asyncio.Future[Any]] = {work, death, hung}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                raise VersionCrashed(f"the child died: {death.result()}")
            if not work.done():
                raise VersionHung(f"no answer within {limit_s:.3g} s; the child was killed")
        finally:
            hang_timer.cancel()
            sleep_timer.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _future_after(self, seconds: float) -> tuple[asyncio.Future[None], Timer]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if seconds <= 0:
            future.set_result(None)

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        return future, self._clock.call_at(self._clock.monotonic() + seconds, resolve)

    def _joined(self, parts: Sequence[Arrays]) -> Arrays:
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def die(self, how: str) -> None:
        """The child is gone: a run under way raises VersionCrashed, an idle engine calls ``on_exit``."""
        if not self.alive or self._death is None:
            return
        self.alive = False
        if not self._death.done():
            self._death.set_result(how)
        if not self.running:
            self._on_exit(how)

    async def close(self) -> None:
        await self._end_at_work()

    def memory_bytes(self) -> int:
        return self._script.memory_bytes if self.alive else 0


class ScriptedEngines:
    """An ``EngineFactory`` that keeps one script a version."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scripts: dict[VersionRef, Script] = {}
        self._pid = 1000

    def script(self, ref: VersionRef) -> Script:
        """The version's script, made at the first ask."""
        return self._scripts.setdefault(ref, Script())

    def __call__(self, spec: VersionSpec, on_exit: Callable[[str], None]) -> ScriptedEngine:
        script = self.script(spec.ref)
        self._pid += 1
        engine = ScriptedEngine(script, on_exit, clock=self._clock, pid=self._pid)
        script.engines.append(engine)
        return engine
