"""Keeps one engine of a version running: starts it, notices its death, starts another, with back-off.

Who asks while there is no engine waits only for a restart that is under way *at once* after a death.
A version that dies again before it has done any work backs off, and is refused at once meanwhile, so
that a fallback can answer. Deaths while one bad request is being found (``isolating``) are that
request's fault: they neither count nor wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any, TypeVar

from gateway.clock import Clock
from gateway.errors import LoadError, NotBegun, TurnoutError, VersionCrashed, VersionHung, VersionUnavailable
from gateway.events.observer import Observer
from gateway.messages import Arrays
from gateway.serving.counts import Counting
from gateway.serving.engine import BatchResult, Engine, EngineFactory, EngineInfo, VersionSpec

__all__ = ["Standing", "Supervisor", "backoff_s", "within"]

log = logging.getLogger("turnout.serving")

T = TypeVar("T")

Prove = Callable[[Engine, EngineInfo], Awaitable[None]]
"""Runs something on an engine just started; raises when it cannot be trusted with work."""

BACKOFF_FIRST_S = 0.1
BACKOFF_LONGEST_S = 10.0
GOOD_SPELL_S = 60.0


class Standing(StrEnum):
    DOWN = "down"
    UP = "up"
    RESTARTING = "restarting"
    BACKING_OFF = "backing off"
    CLOSED = "closed"


def backoff_s(failures: int) -> float:
    """Seconds before the next start after so many deaths in a row: none, then 0.1 doubling to 10."""
    if failures <= 1:
        return 0.0
    return min(BACKOFF_LONGEST_S, BACKOFF_FIRST_S * 2.0 ** min(failures - 2, 16))


async def within(clock: Clock, seconds: float, work: Coroutine[Any, Any, T]) -> T:
    """Awaits ``work``; past ``seconds`` cancels it and raises TimeoutError. Cancelling this cancels the work first."""
    task = asyncio.ensure_future(work)
    late = False

    def ring() -> None:
        nonlocal late
        late = not task.done()
        task.cancel()

    timer = clock.call_at(clock.monotonic() + seconds, ring)
    try:
        return await task
    except asyncio.CancelledError:
        current = asyncio.current_task()
        if late and not (current is not None and current.cancelling()):
            raise TimeoutError(f"not done within {seconds:g} s") from None
        raise
    finally:
        timer.cancel()


class Supervisor:
    """One engine at a time, under its version's name. Used from the event loop only."""

    def __init__(
        self,
        spec: VersionSpec,
        factory: EngineFactory,
        *,
        clock: Clock,
        observer: Observer,
        prove: Prove,
        changed: Callable[[], None],
    ) -> None:
        """``prove`` checks a restarted engine (kept short); ``changed`` is told of every new standing."""
        self._spec = spec
        self._factory = factory
        self._clock = clock
        self._observer = observer
        self._prove = prove
        self._watchers = [changed]
        self._standing = Standing.DOWN
        self._engine: Engine | None = None
        self._counting: Counting | None = None
        self._info: EngineInfo | None = None
        self._up_since = 0.0
        self._failures = 0
        self._cause = ""
        self._next_try = 0.0
        self._deaths = 0
        self._restarts = 0
        self._restart: asyncio.Task[None] | None = None
        self._decided = asyncio.Event()  # set while nobody need wait for a restart under way

    def __repr__(self) -> str:
        return f"<Supervisor {self._spec.ref} [{self._standing} | {self._restarts} restarts]>"

    @property
    def standing(self) -> Standing:
        return self._standing

    @property
    def info(self) -> EngineInfo | None:
        """What the engine that is up has loaded."""
        return None if self._engine is None else self._info

    @property
    def accepting(self) -> bool:
        """Work may be queued: an engine is up, or will be at once."""
        return self._standing in (Standing.UP, Standing.RESTARTING)

    @property
    def reason(self) -> str:
        """Why there is no engine, in words for an operator; empty when there is one."""
        if self._standing is Standing.RESTARTING:
            return f"restarting after {self._cause}"
        if self._standing is Standing.BACKING_OFF:
            wait = self._next_try - self._clock.monotonic()
            upcoming = f"next try in {wait:.1f} s" if wait > 0 else "trying again now"
            return f"restarting after {self._cause}, {upcoming}"
        return "" if self._standing is Standing.UP else f"engine is {self._standing}"

    @property
    def pause_s(self) -> float:
        """Until the next start; nothing while one is under way, or an engine is up."""
        waits = self._standing is Standing.BACKING_OFF
        return max(0.0, self._next_try - self._clock.monotonic()) if waits else 0.0

    @property
    def deaths(self) -> int:
        return self._deaths

    @property
    def restarts(self) -> int:
        return self._restarts

    def memory_bytes(self) -> int:
        engine = self._engine  # read once: another thread may be asking
        return 0 if engine is None else engine.memory_bytes()

    async def start(self, prove: Prove) -> None:
        """The first start; ``prove`` warms it up. Whatever it raises, and when cancelled, nothing is left behind."""
        await self._launch(self._spec, prove)

    async def run(self, parts: Sequence[Arrays], *, limit_s: float, isolating: bool = False) -> BatchResult:
        """One batch on the engine, waiting out a restart under way.

        Raises what ``Engine.run`` raises, with a new engine on its way after a death; and
        VersionUnavailable while backing off or closed. Cancelling it ends the engine.
        """
        engine = await self._alive()
        try:
            result = await engine.run(parts, limit_s=limit_s)
        except (VersionHung, VersionCrashed, NotBegun) as failure:
            self.failed(engine, failure, isolating=isolating)
            raise
        self._failures = 0
        return result

    @property
    def live(self) -> Engine | None:
        """The engine that is up, for who launches batches on it by itself: it tells what comes of them by
        ``succeeded`` and ``failed``."""
        return self._engine

    def succeeded(self) -> None:
        """A batch went through: deaths before it count no more."""
        self._failures = 0

    def failed(self, engine: Engine, failure: TurnoutError, *, isolating: bool = False) -> None:
        """A batch met this on the engine. When that means its end, another one is on its way when this returns."""
        if isinstance(failure, VersionHung):
            self._lost(engine, "hang", str(failure), isolating=isolating)
        elif isinstance(failure, VersionCrashed | NotBegun):
            self._lost(engine, "crash", str(failure), isolating=isolating)

    def watch(self, changed: Callable[[], None]) -> None:
        """Tells one more of every new standing."""
        self._watchers.append(changed)

    def count(self, counting: Counting) -> None:
        """From here on the engine counts what it runs, and so does each that comes after it, once it is proven."""
        self._counting = counting
        if self._engine is not None:
            self._engine.count(counting)

    async def engine(self) -> Engine:
        """The engine that is up, waiting out a restart under way. VersionUnavailable while backing off or closed."""
        return await self._alive()

    def forgive(self) -> None:
        """The last death counted was one request's fault, not the version's."""
        self._failures = max(0, self._failures - 1)

    async def close(self) -> None:
        """Ends restart and engine; returns when everything is given back. Safe to call again."""
        self._stand(Standing.CLOSED)
        restart, self._restart = self._restart, None
        if restart is not None:
            restart.cancel()
            await asyncio.wait({restart})
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()

    async def _alive(self) -> Engine:
        while self._standing is Standing.RESTARTING:
            await self._decided.wait()
        if self._engine is None:
            raise VersionUnavailable(f"{self._spec.ref} cannot answer now: {self.reason}")
        return self._engine

    def _stand(self, standing: Standing) -> None:
        if self._standing is Standing.CLOSED:
            return
        self._standing = standing
        if standing is Standing.RESTARTING:
            self._decided.clear()
        else:
            self._decided.set()
        for changed in tuple(self._watchers):
            changed()

    async def _launch(self, spec: VersionSpec, prove: Prove) -> None:
        """Starts and proves one engine within the version's time to load; then it is up."""
        exits: list[str] = []

        def exited(how: str) -> None:
            exits.append(how)
            self._lost(engine, "crash", how, isolating=False)

        async def bring_up() -> EngineInfo:
            info = await engine.start()
            await prove(engine, info)
            if exits:
                raise VersionCrashed(f"the child died right after its start: {exits[0]}")
            if self._standing is Standing.CLOSED:
                raise VersionUnavailable(f"{self._spec.ref} was closed while it started")
            return info

        engine = self._factory(spec, exited)
        try:
            self._info = await within(self._clock, self._spec.load_timeout_s, bring_up())
        except BaseException:
            # Cancelled or failed alike: the child must be gone before anybody hears of it.
            await asyncio.shield(asyncio.ensure_future(engine.close()))
            raise
        self._engine = engine
        if self._counting is not None:
            engine.count(self._counting)
        self._up_since = self._clock.monotonic()
        self._stand(Standing.UP)

    def _lost(self, engine: Engine, kind: str, how: str, *, isolating: bool) -> None:
        if self._engine is not engine or self._standing is Standing.CLOSED:
            return  # already noticed, or not up yet, or nobody's any more
        self._engine = None
        self._deaths += 1
        now = self._clock.monotonic()
        if now - self._up_since >= GOOD_SPELL_S:
            self._failures = 0
        if not isolating:
            self._failures += 1
        self._cause = f"{kind}: {how}"
        wait = 0.0 if isolating else backoff_s(self._failures)
        self._next_try = now + wait
        self._observer.version_crashed(self._spec.ref, kind, isolating)
        self._stand(Standing.BACKING_OFF if wait else Standing.RESTARTING)
        self._begin_restart(engine, wait)

    def _begin_restart(self, dead: Engine | None, wait: float) -> None:
        self._restart = asyncio.ensure_future(self._bring_back(dead, wait))
        self._restart.add_done_callback(self._restart_ended)

    def _restart_ended(self, restart: asyncio.Task[None]) -> None:
        """A fault of our own must not leave work waiting for a restart that nobody makes any more."""
        fault = None if restart.cancelled() else restart.exception()
        if fault is None or self._standing is Standing.CLOSED:
            return
        log.error("restarting %s went wrong", self._spec.ref, exc_info=fault)
        self._begin_restart(None, self._start_failed(fault))

    async def _bring_back(self, dead: Engine | None, wait: float) -> None:
        """Starts engines until one stays up. Only the first start, if it comes at once, is worth waiting for."""
        if dead is not None:
            await dead.close()
        while True:
            if wait:
                await self._clock.sleep(wait)
            self._restarts += 1
            try:
                await self._launch(replace(self._spec, awaited=True), self._prove)
            except (TurnoutError, TimeoutError, OSError) as failure:
                wait = self._start_failed(failure)
            else:
                return

    def _start_failed(self, failure: BaseException) -> float:
        self._deaths += 1
        self._failures = max(self._failures, 1) + 1
        wait = backoff_s(self._failures)
        self._next_try = self._clock.monotonic() + wait
        kind = "failed start" if isinstance(failure, LoadError) else "failed check"
        self._cause = f"{kind}: {failure}"
        self._observer.version_crashed(self._spec.ref, "load", False)
        self._stand(Standing.BACKING_OFF)
        return wait
