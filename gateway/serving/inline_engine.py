"""A trusted, tiny version inside the gateway: one thread, no process, and no protection from its faults.

A crash of the model is a crash of the gateway, and a batch that hangs keeps its thread for ever;
that is the price of saving the 0.1 ms that a child costs. The thread is a daemon, so that one that
hangs cannot keep the gateway from ending.

The way to the thread and back costs some 60 µs, several times what a tiny model takes. So a batch that
is known to be brief runs on the event loop itself, when the thread has nothing to do: of compiled
graphs only, since Python code may do anything, and for as long as batches of its size have lately taken
less than ``_BRIEF_S``, which is what the loop spends on a large request anyway.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gateway.errors import (
    InvalidInput,
    LoadError,
    ModelError,
    NotBegun,
    TurnoutError,
    VersionCrashed,
    VersionHung,
    VersionUnavailable,
)
from gateway.messages import Arrays, Signature
from gateway.serving.counts import Counting
from gateway.serving.engine import BatchResult, Done, EngineInfo, VersionSpec, run_on
from gateway.serving.failures import failure_of
from gateway.serving.hang_watch import HangWatch
from gateway.serving.inline_counting import InlineCounting
from gateway.serving.work_thread import WorkThread
from runtimes import execution
from runtimes.base import RuntimeFailure

__all__ = ["Brevity", "InlineEngine"]

log = logging.getLogger("turnout.serving")

_DEPTH = 2
_COMPILED = frozenset({"onnx"})
_BRIEF_S = 0.0002
_TIMED_OF = 8  # batches on the loop: the thread's clock is two calls of the system
_FORGET = 0.98  # of the longest time, a batch: after two of 1 ms, eighty brief ones go by the thread
_LONG_S = 0.002  # once is enough: the loop stood still so long
_CLOSE_GRACE_S = 2.0


@dataclass(slots=True, eq=False)
class _Work:
    """A batch under way. ``outcome`` is set by the thread that knows it, and read by the loop after that."""

    done: Done
    limit_s: float
    inputs: Arrays
    rows: int | None
    outcome: BatchResult | TurnoutError | None = None
    counting: InlineCounting | None = None


class Brevity:
    """The longest that batches took lately, by their size to the next power of two. A single one that is somewhat too
    long may be the machine's doing; two in a row are the model's."""

    def __init__(self) -> None:
        self._longest_s: dict[int, float] = {}
        self._doubted = False

    def took(self, rows: int | None, seconds: float) -> None:
        size = (rows or 1).bit_length()
        doubted, self._doubted = self._doubted, seconds >= _BRIEF_S
        if _BRIEF_S <= seconds < _LONG_S and not doubted and size in self._longest_s:
            return
        self._longest_s[size] = max(seconds, self._longest_s.get(size, 0.0) * _FORGET)

    def expects_brief(self, rows: int | None) -> bool:
        """False for a size that has not been seen."""
        return self._longest_s.get((rows or 1).bit_length(), _BRIEF_S) < _BRIEF_S


class InlineEngine:
    """See ``gateway.serving.engine.Engine``. ``on_exit`` is never called: there is no process to die."""

    def __init__(self, spec: VersionSpec) -> None:
        self._spec = spec
        self._runner: WorkThread[_Work] | None = None
        self._loaded: execution.Loaded | None = None
        self._underway: deque[_Work] = deque()
        self._watch: HangWatch | None = None
        # Written by whoever runs a batch, of whom there is one at a time.
        self._brevity = Brevity()
        self.ran_on_loop = 0
        self._counting: InlineCounting | None = None

    def __repr__(self) -> str:
        state = "closed" if self._loaded is None else "loaded"
        return f"<InlineEngine {self._spec.ref} [{state} | {self.ran_on_loop} batches on the loop]>"

    @property
    def depth(self) -> int:
        return _DEPTH

    async def start(self) -> EngineInfo:
        """Loads in the engine's own thread. Cancelled, the thread ends as soon as the load returns."""
        if self._runner is not None:
            raise LoadError(f"{self._spec.ref}: this engine was started before; make a new one")
        thread = self._runner = WorkThread(f"inline {self._spec.ref}", self._execute, self._advance)
        loaded: execution.Loaded | None = None
        failure: BaseException | None = None
        try:
            async with asyncio.timeout(self._spec.load_timeout_s):
                load = await self._spec.current_load()
                loaded = await thread.call(lambda: execution.load(load))
        except RuntimeFailure as error:
            failure = failure_of(self._spec.ref, error.kind, error)
            failure.__cause__ = error
        except TimeoutError:
            failure = LoadError(f"{self._spec.ref}: not loaded within {self._spec.load_timeout_s:g} s")
        except BaseException as fault:  # noqa: BLE001 - raised below, once the thread has ended
            failure = fault
        if failure is not None or loaded is None:  # out here: see docs/architecture.md, "The short way"
            try:
                await self.close()
                raise failure or LoadError(f"{self._spec.ref}: nothing was loaded")
            finally:
                failure = None  # it knows this frame
        self._loaded = loaded
        self._watch = HangWatch(asyncio.get_running_loop(), self._advance, self._on_hang)
        return EngineInfo(loaded.runtime.signature, loaded.runtime.device, None, dict(loaded.digests))

    def launch(self, parts: Sequence[Arrays], *, limit_s: float, done: Done, counted: bool = True) -> None:
        """One batch, as the interface says; on an engine that has ended it is not begun."""
        loop = asyncio.get_running_loop()
        if self._runner is None or self._loaded is None:
            gone = NotBegun(f"{self._spec.ref}: this engine is closed; start a new one")
            loop.call_soon(done, gone)
            return
        if len(self._underway) >= _DEPTH:
            raise ValueError(f"{self._spec.ref}: {_DEPTH} batches are under way; an engine takes no more")
        try:
            work = _Work(done, limit_s, *self._joined(parts, self._loaded.runtime.signature))
        except InvalidInput as error:
            work = _Work(done, limit_s, {}, None, error)
            loop.call_soon(self._advance)
        else:
            counting = self._counting
            if counting is not None and counted and parts[0] is not counting.probe:
                work.counting = counting
            if self._runs_here(work):
                self.ran_on_loop += 1
                self._execute(work, timed=self.ran_on_loop % _TIMED_OF == 0)
                if not self._underway and work.outcome is not None:
                    done(work.outcome)
                    return
                loop.call_soon(self._advance)
            else:
                self._runner.put(work)
        self._underway.append(work)
        if len(self._underway) == 1 and work.outcome is None:
            self._watch_next()

    def stage(self, inputs: Arrays) -> None:
        """Nothing to copy to."""

    def count(self, counting: Counting) -> None:
        """Counted here, in the loop's spare moments, a slice at a time."""
        previous, self._counting = self._counting, None
        if previous is not None:
            previous.stop()
        try:
            self._counting = InlineCounting(counting, asyncio.get_running_loop())
        except ValueError as error:
            log.warning("%s is not counted: %s", self._spec.ref, error)

    def capture(self, rows: int, seed: int) -> asyncio.Future[bytes]:
        """Not here."""
        raise VersionUnavailable(
            f"{self._spec.ref} runs inside the gateway, where no profile of live rows is made; use placement process"
        )

    async def run(self, parts: Sequence[Arrays], *, limit_s: float) -> BatchResult:
        """One batch and the wait for it. Past the limit or cancelled, the engine is given up with its thread."""
        try:
            return await run_on(partial(self.launch, counted=False), parts, limit_s)
        except asyncio.CancelledError:
            self._give_up(VersionCrashed(f"{self._spec.ref}: a batch on it was cancelled; its thread was given up"))
            raise

    async def close(self) -> None:
        """Lets the thread close the runtime and end, for two seconds; one that was given up has nothing to wait for."""
        thread, self._runner = self._runner, None
        loaded, self._loaded = self._loaded, None
        if self._counting is not None:
            self._counting.stop()
        if thread is None:
            return
        self._settle(thread, VersionCrashed(f"{self._spec.ref}: its engine was closed"))
        if loaded is not None:
            await self._closed(thread, loaded)
        thread.stop()

    def memory_bytes(self) -> int:
        """Nothing that could be told apart from the gateway's own."""
        return 0

    async def _closed(self, thread: WorkThread[_Work], loaded: execution.Loaded) -> None:
        """The runtime's own end is model code as well: it may raise, or never return."""
        ending = asyncio.ensure_future(thread.call(loaded.runtime.close))
        await asyncio.wait({ending}, timeout=_CLOSE_GRACE_S)
        if not ending.done():
            ending.cancel()
            log.warning("%s did not close within %g s; its thread was given up", self._spec.ref, _CLOSE_GRACE_S)
        elif (fault := ending.exception()) is not None:
            log.warning("%s raised while it closed: %s: %s", self._spec.ref, type(fault).__name__, fault)

    def _joined(self, parts: Sequence[Arrays], signature: Signature) -> tuple[Arrays, int | None]:
        names = [spec.name for spec in signature.inputs]
        try:
            rows = sum(len(part[names[0]]) for part in parts) if signature.batched else None
            if len(parts) == 1:
                return {name: parts[0][name] for name in names}, rows
            return {name: np.concatenate([part[name] for part in parts]) for name in names}, rows
        except KeyError as error:
            raise InvalidInput(f"{self._spec.ref}: input {error.args[0]!r} is missing") from error
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{self._spec.ref}: {error}") from error

    def _runs_here(self, work: _Work) -> bool:
        rests = all(earlier.outcome is not None for earlier in self._underway)
        return rests and self._spec.load.format in _COMPILED and self._brevity.expects_brief(work.rows)

    def _execute(self, work: _Work, *, timed: bool = True) -> None:
        """In the thread, or on the loop while the thread rests."""
        loaded = self._loaded
        if loaded is None:
            work.outcome = NotBegun(f"{self._spec.ref}: its engine was closed")
            return
        began = time.perf_counter()
        busy = time.thread_time() if timed else 0.0
        try:
            outputs = execution.execute(loaded.runtime, work.inputs, work.rows)
            seconds = time.perf_counter() - began
            if timed:
                # Of the processor, since a thread that comes back waits for the interpreter's lock.
                self._brevity.took(work.rows, time.thread_time() - busy)
            # A model may answer with its input, or with memory of its own that the next batch writes over.
            work.outcome = BatchResult({name: array.copy() for name, array in outputs.items()}, seconds)
            if work.counting is not None:
                work.counting.note(work.inputs, outputs, work.rows)
        except RuntimeFailure as error:
            work.outcome = failure_of(self._spec.ref, error.kind, error)
        except MemoryError as error:
            work.outcome = ModelError(f"{self._spec.ref}: no memory for the answer: {error}")

    def _advance(self) -> bool:
        """Tells all that are known, in order; True if any was."""
        told = False
        while self._underway and (outcome := self._underway[0].outcome) is not None:
            work = self._underway.popleft()
            self._watch_next()
            work.done(outcome)
            told = True
        return told

    def _watch_next(self) -> None:
        if self._watch is None:
            return
        if self._underway:
            self._watch.begin(self._underway[0].limit_s)
        else:
            self._watch.rest()

    def _on_hang(self, limit_s: float) -> None:
        self._give_up(VersionHung(f"{self._spec.ref}: no answer within {limit_s:.3g} s; its thread was given up"))

    def _give_up(self, verdict: TurnoutError) -> None:
        thread, self._runner = self._runner, None
        self._loaded = None
        if thread is not None:
            self._settle(thread, verdict)
            thread.stop()

    def _settle(self, thread: WorkThread[_Work], verdict: TurnoutError) -> None:
        """Whoever waits is told; what the thread has not taken up will never run."""
        if self._watch is not None:
            self._watch.cancel()
        withdrawn = set(map(id, thread.withdraw()))
        left, self._underway = self._underway, deque()
        for work in left:
            if work.outcome is not None:
                work.done(work.outcome)
            elif id(work) in withdrawn:
                work.done(NotBegun(f"{self._spec.ref}: its engine ended before this batch was begun: {verdict}"))
            else:
                work.done(verdict)
