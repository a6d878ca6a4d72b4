"""Brings versions to work: one load a version, failures kept with their reason and tried again with back-off."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from gateway.clock import Clock, Timer
from gateway.control.memory_budget import MemoryBudget
from gateway.errors import LoadError, ServiceDraining, TurnoutError
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet

__all__ = ["Failure", "Loads", "retry_after_s"]

log = logging.getLogger("turnout.control")

FIRST_RETRY_S = 1.0
LONGEST_RETRY_S = 60.0
ASSEMBLED_AT_ONCE = 16
"""In threads of their own: one may wait minutes for its environment to be built, and the few that everybody shares, six
on two cores, are what the store and large bodies need."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A version that did not come up: of which digest, why, how often in a row, and its next try (monotonic)."""

    digest: str
    reason: str
    attempts: int
    retry_at: float


def retry_after_s(attempts: int) -> float:
    return float(min(LONGEST_RETRY_S, FIRST_RETRY_S * 2 ** min(attempts - 1, 16)))


class Loads:
    """``assemble`` blocks and may raise TurnoutError; ``changed`` is told when a load ended or may be tried again."""

    def __init__(
        self,
        fleet: Fleet,
        assemble: Callable[[VersionRef, str], VersionSpec],
        *,
        clock: Clock,
        observer: Observer,
        changed: Callable[[], None],
        budget: MemoryBudget,
    ) -> None:
        self._fleet = fleet
        self._assemble = assemble
        self._clock = clock
        self._observer = observer
        self._changed = changed
        self._budget = budget
        self._threads = ThreadPoolExecutor(ASSEMBLED_AT_ONCE, thread_name_prefix="turnout-load")
        self._tasks: dict[VersionRef, asyncio.Task[None]] = {}
        self._failures: dict[VersionRef, Failure] = {}
        self._retries: dict[VersionRef, Timer] = {}

    def __repr__(self) -> str:
        return f"<Loads [{len(self._tasks)} under way | {len(self._failures)} failed]>"

    @property
    def failures(self) -> Mapping[VersionRef, Failure]:
        return self._failures

    @property
    def under_way(self) -> frozenset[VersionRef]:
        return frozenset(self._tasks)

    def want(self, ref: VersionRef, digest: str) -> None:
        """Starts loading the version unless that is under way, or it failed and its next try is not due."""
        failure = self._failures.get(ref)
        waits = failure is not None and failure.digest == digest and failure.retry_at > self._clock.monotonic()
        if ref in self._tasks or waits:
            return
        task = asyncio.ensure_future(self._load(ref, digest))
        self._tasks[ref] = task
        task.add_done_callback(lambda done: self._ended(ref, digest, done))

    def refuse(self, ref: VersionRef, reason: str) -> None:
        """The version cannot even be tried: desired state does not know it."""
        self._fail(ref, "", reason)

    def forget(self, keep: frozenset[VersionRef]) -> None:
        """Stops loading, and remembering failures of, all but ``keep``."""
        for ref in [ref for ref in self._tasks if ref not in keep]:
            self._tasks.pop(ref).cancel()
        for ref in [ref for ref in self._failures if ref not in keep]:
            self._recovered(ref)
            if ref not in self._fleet.handles:  # nothing of it is here that could say so when it goes
                self._observer.version_retired(ref)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self.forget(frozenset())
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _load(self, ref: VersionRef, digest: str) -> None:
        try:
            spec = await asyncio.get_running_loop().run_in_executor(self._threads, self._assemble, ref, digest)
            await self._ensure(spec)
        except ServiceDraining as error:
            self._fail(ref, digest, str(error), told=True)
        except TurnoutError as error:
            told = isinstance(error, LoadError) and ref in self._fleet.handles
            self._fail(ref, digest, str(error), told=told)
        else:
            self._recovered(ref)

    async def _ensure(self, spec: VersionSpec) -> None:
        """Loads it where memory is left, or can be made free."""
        if not await self._budget.admit(spec):
            return
        began, took = self._clock.monotonic(), None
        try:
            await self._fleet.ensure(spec)
            took = self._clock.monotonic() - began
        finally:
            self._budget.loaded(spec.ref, took)

    def _ended(self, ref: VersionRef, digest: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(ref) is task:
            del self._tasks[ref]
        if task.cancelled():
            return
        fault = task.exception()
        if fault is not None:
            log.error("loading %s went wrong", ref, exc_info=fault)
            self._fail(ref, digest, f"{type(fault).__name__}: {fault}")
        self._changed()

    def _fail(self, ref: VersionRef, digest: str, reason: str, *, told: bool = False) -> None:
        """``told``: its handle has already told the observer."""
        before = self._failures.get(ref)
        attempts = 1 if before is None or before.digest != digest else before.attempts + 1
        retry_at = self._clock.monotonic() + retry_after_s(attempts)
        self._failures[ref] = Failure(digest, reason, attempts, retry_at)
        if before is None or before.reason != reason:
            log.warning("%s is not loaded (try %d): %s", ref, attempts, reason)
        if not told:
            self._observer.version_state(ref, "failed", reason)
        self._cancel_retry(ref)
        self._retries[ref] = self._clock.call_at(retry_at, lambda: self._retry(ref))

    def _retry(self, ref: VersionRef) -> None:
        """Due, since its timer says so: those of a loop may ring a millisecond early, and nobody would ask again."""
        del self._retries[ref]
        self._failures[ref] = replace(self._failures[ref], retry_at=-math.inf)
        self._changed()

    def _recovered(self, ref: VersionRef) -> None:
        self._failures.pop(ref, None)
        self._cancel_retry(ref)

    def _cancel_retry(self, ref: VersionRef) -> None:
        timer = self._retries.pop(ref, None)
        if timer is not None:
            timer.cancel()
