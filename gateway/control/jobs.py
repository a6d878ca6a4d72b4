"""Long work that nobody waits at the line for: gate runs, imports, environments, batch scoring; each with its progress.

A job runs on this process's loop; what holds the processor goes to a child or a thread of the work's own. A few run at
once, those of a kind that says so one by one. A job belongs to the replica that was asked: nobody else goes on with it
when the gateway ends, its record says ``interrupted`` then.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.clock import Clock
from gateway.control.ending import ended
from gateway.control.job_records import MOST_KEPT, Job, JobFolder, JobState, Progress
from gateway.errors import Conflict, NotFound, Overloaded, ServiceDraining, TurnoutError

__all__ = ["Job", "JobProgress", "JobState", "Jobs", "Work"]

log = logging.getLogger("turnout.control")

AT_ONCE = 4
MOST_QUEUED = 100


class JobProgress:
    """Where the work of a job says how far it is; a thread of it may, too."""

    def __init__(self) -> None:
        self._now = Progress()
        self._stopped = False

    def __repr__(self) -> str:
        return f"<JobProgress {self._now.done} of {self._now.total} {self._now.unit}>"

    @property
    def now(self) -> Progress:
        return self._now

    @property
    def stopped(self) -> bool:
        """The job was cancelled: for work in a thread, which no cancellation reaches."""
        return self._stopped

    def tell(self, done: int, total: int | None = None, unit: str = "") -> None:
        """``total`` and ``unit`` stay what they were where they are left out."""
        before = self._now
        self._now = Progress(done, before.total if total is None else total, unit or before.unit)

    def stop(self) -> None:
        self._stopped = True


Work = Callable[[JobProgress], Awaitable[Mapping[str, Any]]]
"""Gives the result, which must be JSON. A TurnoutError becomes the job's problem. Must not wait for another job: call
that one's work instead, since the places for jobs are few."""


@dataclass(slots=True)
class _Entry:
    """``failure``: what the work raised, for who waits for the outcome. Written by ``Jobs`` alone."""

    job: Job
    work: Work
    progress: JobProgress
    one_by_one: bool
    over: asyncio.Event
    task: asyncio.Task[None] | None = None
    failure: TurnoutError | None = None
    cancelled: bool = False


class Jobs:
    """Used from the event loop only. ``open`` before the first ``start``, ``close`` before what the work uses goes."""

    def __init__(self, folder: Path, *, clock: Clock, at_once: int = AT_ONCE) -> None:
        self._folder = JobFolder(folder)
        self._clock = clock
        self._at_once = at_once
        self._past: dict[str, Job] = {}
        self._entries: dict[str, _Entry] = {}
        self._closed = False
        self._number = 0

    def __repr__(self) -> str:
        running = sum(entry.task is not None for entry in self._entries.values())
        return f"<Jobs [{len(self._entries) - running} queued | {running} running | {len(self._past)} ended]>"

    async def open(self) -> None:
        """Reads what was kept; jobs that the gateway ended under are interrupted from now on."""
        for job in await asyncio.to_thread(self._folder.read, now=self._clock.wall()):
            self._past.setdefault(job.id, job)

    async def close(self) -> None:
        """Ends what is under way, as interrupted, and returns when all of it has ended."""
        self._closed = True
        await asyncio.sleep(0)  # a task that is cancelled before it began never runs, and could tell nobody of its end
        for entry in list(self._entries.values()):
            entry.progress.stop()
            if entry.task is None:
                self._end(entry, JobState.INTERRUPTED)
                await asyncio.to_thread(self._folder.write, entry.job)
                entry.over.set()
        for entry in list(self._entries.values()):
            await ended(entry.task)

    def start(self, kind: str, actor: str, work: Work, *, title: str = "", one_by_one: bool = False) -> Job:
        """Queues the work and returns at once. ``one_by_one``: not beside another job of its kind.

        Raises Overloaded when too many wait, ServiceDraining when the gateway ends.
        """
        if self._closed:
            raise ServiceDraining("the gateway is shutting down and takes no new jobs; ask again when it is back")
        waiting = sum(entry.task is None for entry in self._entries.values())
        if waiting >= MOST_QUEUED:
            raise Overloaded(f"{waiting} jobs wait already; wait for some, or cancel some", retry_after_s=10.0)
        now = self._clock.wall()
        self._number = max(int(now * 1000), self._number + 1)  # ids rise, also within a millisecond
        job = Job(f"{self._number:012x}-{secrets.token_hex(4)}", kind, title, actor, asked_at=now)
        self._entries[job.id] = _Entry(job, work, JobProgress(), one_by_one, asyncio.Event())
        self._launch()
        return self.get(job.id)

    def get(self, job_id: str) -> Job:
        """Raises NotFound."""
        entry = self._entries.get(job_id)
        if entry is not None:
            return replace(entry.job, progress=entry.progress.now)
        if job_id not in self._past:
            raise NotFound(f"no job {job_id[:60]!r} is known here; jobs belong to the replica that was asked for them")
        return self._past[job_id]

    def list(self, *, kind: str | None = None) -> Sequence[Job]:
        """Newest first."""
        found = [*(self.get(job_id) for job_id in self._entries), *self._past.values()]
        return sorted((job for job in found if kind in (None, job.kind)), key=lambda job: job.id, reverse=True)

    def cancel(self, job_id: str) -> Job:
        """Asks the job to end: it is ``cancelled`` once its work has. Raises NotFound; Conflict when it has ended."""
        entry = self._entries.get(job_id)
        if entry is None:
            raise Conflict(f"job {job_id} has ended ({self.get(job_id).state}); there is nothing to cancel")
        if entry.job.ended:
            return self.get(job_id)
        entry.cancelled = True
        entry.progress.stop()
        if entry.task is None:
            self._end(entry, JobState.CANCELLED)
            entry.task = asyncio.create_task(self._keep(entry))
        elif entry.job.state is JobState.RUNNING:
            entry.task.cancel()
        return self.get(job_id)

    async def ended(self, job_id: str) -> Job:
        """Returns when the job has ended, however. Cancelling who waits leaves the job alone. Raises NotFound."""
        entry = self._entries.get(job_id)
        if entry is not None:
            await entry.over.wait()
        return self.get(job_id)

    async def outcome(self, job: Job) -> Mapping[str, Any]:
        """The result, once there is one; raises what the work raised, or Conflict where it did not come to its end."""
        entry = self._entries.get(job.id)
        last = await self.ended(job.id)
        if entry is not None and entry.failure is not None:
            raise entry.failure
        if last.result is None:
            detail = (last.problem or {}).get("detail", "")
            raise Conflict(f"job {job.id} ({last.kind}) is {last.state} and has no result{detail and ': '}{detail}")
        return last.result

    def _launch(self) -> None:
        """Starts what may start, in the order it came."""
        running = [entry for entry in self._entries.values() if entry.task is not None]
        free, alone = self._at_once - len(running), {entry.job.kind for entry in running if entry.one_by_one}
        for entry in list(self._entries.values()):
            if free <= 0 or self._closed:
                return
            if entry.task is None and not (entry.one_by_one and entry.job.kind in alone):
                entry.task = asyncio.create_task(self._run(entry), name=f"job {entry.job.kind} {entry.job.id}")
                free -= 1
                if entry.one_by_one:
                    alone.add(entry.job.kind)

    async def _run(self, entry: _Entry) -> None:
        try:
            if entry.progress.stopped:
                raise asyncio.CancelledError
            entry.job = replace(entry.job, state=JobState.RUNNING, started_at=self._clock.wall())
            await asyncio.to_thread(self._folder.write, entry.job)
            result = await entry.work(entry.progress)
        except asyncio.CancelledError:
            # Nobody cancels this task but ``cancel`` and ``close``, and both say so before.
            self._end(entry, JobState.CANCELLED if entry.cancelled else JobState.INTERRUPTED)
        except TurnoutError as failure:
            entry.failure = failure
            self._end(entry, JobState.FAILED, problem=_problem(failure))
        except Exception as fault:
            # The outermost boundary of the work: whatever it did must not end the gateway, and must be seen.
            log.exception("job %s (%s) met a fault of the gateway's own", entry.job.id, entry.job.kind)
            detail = f"a fault of the gateway's own, the log has it: {type(fault).__name__}: {fault}"
            entry.failure = TurnoutError(detail)
            self._end(entry, JobState.FAILED, problem=_problem(entry.failure))
        else:
            self._end(entry, JobState.DONE, result=result)
        await self._keep(entry)

    def _end(
        self,
        entry: _Entry,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        problem: Mapping[str, Any] | None = None,
    ) -> None:
        now = self._clock.wall()
        last = replace(entry.job, state=state, result=result, problem=problem, ended_at=now)
        entry.job = replace(last, progress=entry.progress.now)

    async def _keep(self, entry: _Entry) -> None:
        """Who waits for the end is told when it is on disk, so that a restart cannot take it back."""
        kept = asyncio.ensure_future(asyncio.to_thread(self._folder.write, entry.job))
        while not kept.done():
            try:
                await asyncio.shield(kept)
            except asyncio.CancelledError:
                continue  # it ends by itself, in the time of one write
        del self._entries[entry.job.id]
        self._past[entry.job.id] = entry.job
        for oldest in sorted(self._past)[: max(0, len(self._past) - MOST_KEPT)]:
            del self._past[oldest]
            self._folder.remove(oldest)
        entry.over.set()
        self._launch()


def _problem(failure: TurnoutError) -> dict[str, Any]:
    """In the words of the problem types: ``InvalidInput`` is ``invalid-input``."""
    name = type(failure).__name__
    kind = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).removeprefix("-")
    return {"kind": kind, "detail": str(failure)}
