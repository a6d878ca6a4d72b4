"""The interface of an engine: something that holds one loaded version and runs batches in order.

Four kinds are meant: a child process, inline, remote (another Open Inference Protocol
server) and Ray. The batcher sees only this page.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from gateway.errors import TurnoutError
from gateway.messages import Arrays, Signature, VersionRef
from gateway.serving.counts import Counting, CountingPlan
from runtimes.base import FileRef, LoadSpec
from runtimes.counting import BUSY_SHARE

__all__ = ["BatchPolicy", "BatchResult", "Done", "Engine", "EngineFactory", "EngineInfo", "VersionSpec", "run_on"]


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """``max_rows`` a batch; ``queue_rows`` waiting before 429; ``hang_floor_ms``: a batch is given
    the larger of this and ten times its warm cost before its child counts as hung."""

    max_rows: int = 32
    queue_rows: int = 4096
    hang_floor_ms: int = 600


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """All that serving needs to run one version.

    ``digest`` is the manifest's. ``retry`` False means its effects must not repeat: a batch
    that was under way when the child died fails instead of running again. ``example`` is one
    request's inputs (one row if batched), used to warm and to prove readiness; None lets
    them be made from the signature. ``interpreter`` starts the child with another Python.
    ``load_timeout_s`` bounds load and warm-up together. ``instances`` engines run on each of
    ``devices``; where none is named, on the load's own. ``profile``: what its traffic is counted with,
    ``busy_share`` of the time while the processor is wanted elsewhere.
    ``files`` says, at each start of an engine, where the files are by then (a cache may have let go of them, and the
    interpreter's own packages are looked after); it may take minutes, and raises LoadError. Cancelled, what it began
    goes on. None: they stay where the load says.
    ``awaited``: an engine that takes the place of one that died, for which requests wait.
    """

    ref: VersionRef
    digest: str
    load: LoadSpec
    placement: str = "process"
    interpreter: str | None = None
    batch: BatchPolicy = field(default_factory=BatchPolicy)
    retry: bool = True
    example: Arrays | None = None
    load_timeout_s: float = 120.0
    instances: int = 1
    devices: tuple[str, ...] = ()
    profile: CountingPlan | None = None
    busy_share: float = BUSY_SHARE
    files: Callable[[], Awaitable[tuple[FileRef, ...]]] | None = field(default=None, compare=False)
    awaited: bool = field(default=False, compare=False)

    async def current_load(self) -> LoadSpec:
        """The load with its files where they are now."""
        if self.files is None:
            return self.load
        return replace(self.load, files=await self.files())


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was really loaded: ``loaded`` maps file name to the SHA-256 of the bytes read. ``device_memory_bytes``: by
    how much the free memory of a device of its own (a GPU) had shrunk after the load."""

    signature: Signature
    device: str
    pid: int | None
    loaded: Mapping[str, str]
    device_memory_bytes: int = 0


class BatchResult(NamedTuple):
    """Outputs of the whole batch, in the signature's order; arrays are the caller's to keep.

    ``compute_s`` is what the run took in which it was computed, and ``ran_rows`` that run's rows, which are more
    than the batch's when the child ran batches of several gateways together (0: the batch's own).
    """

    outputs: Arrays
    compute_s: float
    ran_rows: int = 0


Done = Callable[["BatchResult | TurnoutError"], None]
"""Told the outcome of one batch, once, on the loop; perhaps before ``launch`` returns. It must not raise."""


class Engine(Protocol):
    """One loaded version. Calls come from the event loop.

    ``start`` loads; raises LoadError or IntegrityError and leaves nothing behind; cancelling it
    ends the child. ``launch`` hands one batch over, joined along the first axis out of the items'
    inputs (a single part when the signature is not batched); the parts stay unchanged and valid
    until ``done``. At most ``depth`` batches are under way at once, and they are answered in the
    order of their launch. Outcomes: BatchResult; ModelError, InvalidInput, DeviceMemoryExhausted
    (engine still good); VersionCrashed, VersionHung (engine ended; start a new one), and then
    NotBegun for each batch behind it. ``limit_s`` counts from when a batch is the oldest under way;
    past it the child is killed. ``run`` is a launch and the wait for it, for warm-up and for finding what is at
    fault: it never shares the child with batches of other gateways. Cancelling it ends the engine.
    ``stage`` may copy a large item, unchanged from here on, to where its batch will lie; whether it is called, and
    whether that batch comes about, changes nothing but the time that its launch takes.
    ``close`` is idempotent and returns when every byte is back with the system. ``on_exit`` is
    called once, on the loop, if the child dies while nothing is under way. ``memory_bytes`` may be
    slow, and is asked from any thread. ``count`` has it count, from then on and after its answers are out, what it
    runs by ``launch``; who counts elsewhere does nothing. A profile that it cannot count with is logged.
    ``capture`` gives the JSON, unchecked, of a profile of twice so many of the rows to come; VersionUnavailable where
    it cannot.
    """

    @property
    def depth(self) -> int: ...

    async def start(self) -> EngineInfo: ...

    def launch(self, parts: Sequence[Arrays], *, limit_s: float, done: Done) -> None: ...

    def stage(self, inputs: Arrays) -> None: ...

    async def run(self, parts: Sequence[Arrays], *, limit_s: float) -> BatchResult: ...

    def count(self, counting: Counting) -> None: ...

    def capture(self, rows: int, seed: int) -> asyncio.Future[bytes]: ...

    async def close(self) -> None: ...

    def memory_bytes(self) -> int: ...


EngineFactory = Callable[[VersionSpec, Callable[[str], None]], Engine]
"""Makes an engine, not started: ``factory(spec, on_exit)``; ``on_exit`` gets how the child ended."""


class Launch(Protocol):
    def __call__(self, parts: Sequence[Arrays], *, limit_s: float, done: Done) -> None: ...


async def run_on(launch: Launch, parts: Sequence[Arrays], limit_s: float) -> BatchResult:
    """``Engine.run`` out of its ``launch``; what cancellation ends is the engine's own business."""
    answered: asyncio.Future[BatchResult | TurnoutError] = asyncio.get_running_loop().create_future()

    def done(outcome: BatchResult | TurnoutError) -> None:
        if not answered.done():
            answered.set_result(outcome)

    launch(parts, limit_s=limit_s, done=done)
    outcome = await answered
    if isinstance(outcome, TurnoutError):
        raise outcome
    return outcome
