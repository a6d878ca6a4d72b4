"""A trusted, tiny version inside the gateway: one thread, no process, and no protection from its faults.

A crash of the model is a crash of the gateway, and a batch that hangs keeps its thread for ever;
that is the price of saving the 0.1 ms that a child costs. The thread is a daemon, so that one that
hangs cannot keep the gateway from ending.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from gateway.errors import InvalidInput, LoadError, ModelError, VersionCrashed, VersionHung
from gateway.messages import Arrays, Signature
from gateway.serving.engine import BatchResult, EngineInfo, VersionSpec
from gateway.serving.process_engine import FAILURES
from runtimes import execution
from runtimes.base import RuntimeFailure

__all__ = ["InlineEngine"]

log = logging.getLogger("turnout.serving")

T = TypeVar("T")

_CLOSE_GRACE_S = 2.0


class InlineEngine:
    """See ``gateway.serving.engine.Engine``. ``on_exit`` is never called: there is no process to die."""

    def __init__(self, spec: VersionSpec) -> None:
        self._spec = spec
        self._thread: _Worker | None = None
        self._loaded: execution.Loaded | None = None

    def __repr__(self) -> str:
        return f"<InlineEngine {self._spec.ref} [{'closed' if self._loaded is None else 'loaded'}]>"

    async def start(self) -> EngineInfo:
        """Loads in the engine's own thread. Cancelled, the thread ends as soon as the load returns."""
        if self._thread is not None:
            raise LoadError(f"{self._spec.ref}: this engine was started before; make a new one")
        self._thread = _Worker(f"inline {self._spec.ref}")
        try:
            async with asyncio.timeout(self._spec.load_timeout_s):
                loaded = await self._thread.call(lambda: execution.load(self._spec.load))
        except RuntimeFailure as error:
            await self.close()
            raise FAILURES[error.kind](f"{self._spec.ref}: {error}") from error
        except TimeoutError:
            await self.close()
            raise LoadError(f"{self._spec.ref}: not loaded within {self._spec.load_timeout_s:g} s") from None
        except BaseException:
            await self.close()
            raise
        self._loaded = loaded
        return EngineInfo(loaded.runtime.signature, loaded.runtime.device, None, dict(loaded.digests))

    async def run(self, parts: Sequence[Arrays], *, limit_s: float) -> BatchResult:
        """One batch. Past the limit or cancelled, the engine is given up with its thread."""
        if self._thread is None or self._loaded is None:
            raise VersionCrashed(f"{self._spec.ref}: this engine is closed; start a new one")
        runtime = self._loaded.runtime
        inputs, rows = self._joined(parts, runtime.signature)

        def work() -> BatchResult:
            began = time.perf_counter()
            outputs = execution.execute(runtime, inputs, rows)
            seconds = time.perf_counter() - began
            # A model may answer with its input, or with memory of its own that the next batch writes over.
            return BatchResult({name: array.copy() for name, array in outputs.items()}, seconds)

        try:
            async with asyncio.timeout(limit_s):
                return await self._thread.call(work)
        except RuntimeFailure as error:
            raise FAILURES.get(error.kind, ModelError)(f"{self._spec.ref}: {error}") from error
        except TimeoutError:
            self._give_up()
            raise VersionHung(f"{self._spec.ref}: no answer within {limit_s:.3g} s; its thread was given up") from None
        except asyncio.CancelledError:
            self._give_up()
            raise

    async def close(self) -> None:
        """Lets the thread close the runtime and end, for two seconds; one that was given up has nothing to wait for."""
        thread, self._thread = self._thread, None
        loaded, self._loaded = self._loaded, None
        if thread is None:
            return
        if loaded is not None:
            await self._closed(thread, loaded)
        thread.stop()

    async def _closed(self, thread: _Worker, loaded: execution.Loaded) -> None:
        """The runtime's own end is model code as well: it may raise, or never return."""
        ending = asyncio.ensure_future(thread.call(loaded.runtime.close))
        await asyncio.wait({ending}, timeout=_CLOSE_GRACE_S)
        if not ending.done():
            ending.cancel()
            log.warning("%s did not close within %g s; its thread was given up", self._spec.ref, _CLOSE_GRACE_S)
        elif (fault := ending.exception()) is not None:
            log.warning("%s raised while it closed: %s: %s", self._spec.ref, type(fault).__name__, fault)

    def memory_bytes(self) -> int:
        """Nothing that could be told apart from the gateway's own."""
        return 0

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

    def _give_up(self) -> None:
        thread, self._thread = self._thread, None
        self._loaded = None
        if thread is not None:
            thread.stop()


class _Worker:
    """A daemon thread that runs calls in order and hands results to the loop."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    async def call(self, function: Callable[[], T]) -> T:
        """The call's result or exception. Cancelled, the call runs on and its result is dropped."""
        result: asyncio.Future[T] = self._loop.create_future()

        def work() -> None:
            try:
                value = function()
            except Exception as error:  # noqa: BLE001 - the batch boundary: carried over to whoever waits
                self._tell(result, error=error)
            else:
                self._tell(result, value=value)

        self._calls.put(work)
        return await result

    def stop(self) -> None:
        """After the calls already made."""
        self._calls.put(None)

    def _serve(self) -> None:
        while (work := self._calls.get()) is not None:
            work()

    def _tell(self, result: asyncio.Future[T], *, value: T | None = None, error: Exception | None = None) -> None:
        def settle() -> None:
            if result.done():
                return
            if error is not None:
                result.set_exception(error)
            else:
                result.set_result(value)  # type: ignore[arg-type]

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:
            return  # the loop is closed: nobody waits
