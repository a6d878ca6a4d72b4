"""Batches as operators ask for them: a version and two files become a plan, and the plan a job, or a command's work.

A batch runs in a process of its own rather than through a resident version's queue, although that holds the model
already. A queue gives spare work the gaps, but a batch that runs cannot be stopped: whoever comes meanwhile waits for
its end. A process in the scheduler's idle class gives way at once (measured: docs/benchmarks.md, ``batch``). It also
needs no resident version, leaves guard, drift and leases alone, and what it crashes is nobody's. The price is the
model's memory a second time, while the batch runs; and where versions share a GPU, they take turns with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from gateway.batch.elsewhere import Told, scored_elsewhere
from gateway.batch.plan import BatchOptions, BatchPlan, plan_for
from gateway.control.batch_records import BATCH, BatchRecords
from gateway.control.jobs import Job, JobProgress, Jobs
from gateway.errors import Forbidden, InvalidInput, RegistryError
from gateway.messages import VersionRef
from gateway.registry.names import split_reference
from gateway.serving.engine import VersionSpec
from gateway.settings import BatchSettings

__all__ = ["Batch", "BatchControl", "BatchScoring"]

ASSEMBLED_AT_ONCE = 2

Assemble = Callable[[VersionRef, str], VersionSpec]


class Versions(Protocol):
    """``gateway.control.model_control``, as far as this needs it."""

    async def version(self, name: str, selector: str) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What is asked: a version by number, alias or digest, the file of rows, and the file for the answers."""

    version: str
    source: Path
    target: Path
    options: BatchOptions


class BatchScoring:
    """Straight on a home. ``assemble`` blocks, for minutes where an environment is built: in threads of its own."""

    def __init__(self, versions: Versions, assemble: Assemble, settings: BatchSettings) -> None:
        self._versions = versions
        self._assemble = assemble
        self._threads = ThreadPoolExecutor(ASSEMBLED_AT_ONCE, thread_name_prefix="turnout-batch")
        self._settings = settings

    async def plan(self, batch: Batch, *, told: bool = False) -> tuple[VersionRef, BatchPlan]:
        """An alias means the version that it points at now. Raises InvalidInput, UnknownModel, UnknownVersion,
        IntegrityError, RegistryError or LoadError."""
        try:
            model, selector = split_reference(batch.version)
        except RegistryError as error:
            raise InvalidInput(str(error)) from None
        found = await self._versions.version(model, selector)
        ref = VersionRef(model, int(found["version"]))
        loop = asyncio.get_running_loop()
        spec = await loop.run_in_executor(self._threads, self._assemble, ref, str(found["digest"]))
        plan = plan_for(spec, batch.source, batch.target, batch.options, told=told, timeout_s=self._settings.timeout_s)
        return ref, replace(plan, priority=self._settings.priority)

    async def score(self, batch: Batch, told: Told) -> Mapping[str, Any]:
        """The receipt. Nothing of it stands in a decision log: nobody who writes one is here."""
        _, plan = await self.plan(batch)
        return await scored_elsewhere(plan, told)


class BatchControl:
    """In a gateway: batches are jobs, one at a time, on files in folders that the settings allow."""

    def __init__(
        self, scoring: BatchScoring, jobs: Jobs, settings: BatchSettings, *, records: BatchRecords | None = None
    ) -> None:
        """Without ``records`` a batch's receipt says all that is kept of it."""
        self._scoring = scoring
        self._jobs = jobs
        self._settings = settings
        self._records = records

    async def start(self, batch: Batch, *, actor: str) -> Job:
        """What is wrong with the question is said now, what is wrong with a row is the job's problem. The same again,
        after whatever end, goes on from the parts that were finished."""
        source, target = self._allowed(batch.source), self._allowed(batch.target)
        resolved = Batch(batch.version, source, target, batch.options)
        ref, plan = await self._scoring.plan(resolved, told=self._records is not None)
        names: list[str] = []

        async def work(progress: JobProgress) -> Mapping[str, Any]:
            async def record(records: Sequence[Sequence[Any]]) -> None:
                if self._records is not None:
                    await self._records.take(ref, names[0], records)

            return await scored_elsewhere(plan, lambda done, total: progress.tell(done, total, "rows"), record)

        job = self._jobs.start(BATCH, actor, work, title=f"{ref}: {source.name} to {target.name}", one_by_one=True)
        names.append(job.id)
        return job

    def _allowed(self, path: Path) -> Path:
        """With its links followed, inside a folder that the settings allow. Raises Forbidden."""
        try:
            real = path.resolve()
            allowed = path.is_absolute() and any(
                real.is_relative_to(folder.resolve()) for folder in self._settings.directories
            )
        except (OSError, RuntimeError, ValueError):
            real, allowed = path, False
        if not allowed:
            raise Forbidden(
                f"{str(path)[:200]} is in no folder that batches may read and write; add its folder to "
                "batch.directories in the settings, or run turnout predict on the gateway's machine, with TURNOUT_URL "
                "unset and TURNOUT_HOME set to the gateway's home"
            )
        return real
