"""Writes to MLflow what became of its versions here, where the settings want it: one replica, in its own time.

What was told stands in a document of its own, so that a new leader goes on from there, and the audit log has each
write. While MLflow does not answer nothing else waits for it: what shall stand there is told when it is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.control.changes import Changes, Decision
from gateway.control.coordination import Coordination
from gateway.control.desired import Desired
from gateway.control.ending import ended
from gateway.control.mlflow_standing import Facts, Naming, standing_of, writes_between
from gateway.control.reconcile import Reconciler
from gateway.control.store import AuditEntry, DocumentKey, Fence, Snapshot, Store
from gateway.errors import Fenced, RegistryError, StoreUnavailable

__all__ = ["POST", "MlflowWriter", "MlflowWriterStatistics", "Tell"]

log = logging.getLogger("turnout.mlflow")

POST = "mlflow"
ACTOR = "mlflow"
TICK_S = 1.0
_TOLD = DocumentKey("mlflow", "told")

Tell = Callable[[Sequence[Mapping[str, Any]]], Awaitable[Sequence[str]]]
"""Makes the writes in MLflow, and gives what MLflow refused of them, in its words: a model that was deleted there is
not asked for again. Raises RegistryError: SourceUnavailable where it did not answer."""


@dataclass(frozen=True, slots=True)
class MlflowWriterStatistics:
    """``waiting``: registered models of which something is still to be told; ``problem``: why it was not."""

    waiting: int
    problem: str


class MlflowWriter:
    """``tick`` is all of it; ``start`` has it called each second. ``tell`` None: nothing is ever written."""

    def __init__(
        self,
        *,
        store: Store,
        coordination: Coordination,
        reconciler: Reconciler,
        naming: Naming,
        tell: Tell | None,
        clock: Clock,
        retry_s: float,
    ) -> None:
        self._store = store
        self._coordination = coordination
        self._reconciler = reconciler
        self._naming = naming
        self._tell = tell
        self._clock = clock
        self._retry_s = retry_s
        self._seen: Desired | None = None
        self._not_before = 0.0
        self._waiting = 0
        self._problem = ""
        self._ticking: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<MlflowWriter [{'off' if self._tell is None else f'{self._waiting} waiting'}]>"

    def statistics(self) -> MlflowWriterStatistics:
        return MlflowWriterStatistics(self._waiting, self._problem)

    def start(self) -> None:
        if self._tell is not None:
            self._ticking = asyncio.ensure_future(self._tick_on())

    async def close(self) -> None:
        await ended(self._ticking)
        self._ticking = None

    async def _tick_on(self) -> None:
        while True:
            (failure,) = await asyncio.gather(self.tick(), return_exceptions=True)
            if isinstance(failure, Exception):
                self._failed(failure)
            await self._clock.sleep(TICK_S)

    async def tick(self) -> None:
        """Tells what has changed since it was told last. Where nothing has, this costs a comparison."""
        desired = self._reconciler.desired
        if self._tell is None or desired is self._seen or self._clock.monotonic() < self._not_before:
            return
        try:
            term = await self._coordination.lead(POST)
            if term is None:
                return
            await self._write(self._tell, desired, Fence(POST, term))
        except (Fenced, StoreUnavailable) as error:
            log.info("what MLflow shall say of versions is told later: %s", error)
        except RegistryError as error:
            self._failed(error)

    async def _write(self, tell: Tell, desired: Desired, fence: Fence) -> None:
        told = _told(await self._store.snapshot())
        standing = standing_of(desired, self._naming)
        writes = writes_between(told, standing)
        self._waiting = len(writes)
        if writes:
            refused = list(await tell(writes))
            if refused:
                log.warning("MLflow did not take all that it was told: %s", "; ".join(refused))
            detail = {"writes": writes, **({"refused": refused} if refused else {})}
            entry = AuditEntry(ACTOR, "mlflow-told", str(_TOLD), "", detail)
            await Changes(self._store).write(_TOLD, lambda _: Decision({"facts": dict(standing)}, entry), fence=fence)
        self._seen, self._waiting, self._problem = desired, 0, ""

    def _failed(self, failure: Exception) -> None:
        self._not_before = self._clock.monotonic() + self._retry_s
        text = f"{type(failure).__name__}: {failure}"
        if text != self._problem:
            self._problem = text
            log.warning(
                "MLflow was not told what became of its versions; tried again every %g s: %s", self._retry_s, text
            )


def _told(snapshot: Snapshot) -> Facts:
    found = snapshot.documents.get(_TOLD)
    body = None if found is None else found.body
    facts = body.get("facts") if isinstance(body, Mapping) else None
    return {str(place): str(value) for place, value in facts.items()} if isinstance(facts, Mapping) else {}
