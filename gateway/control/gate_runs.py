"""Runs of gates: one for all who ask the same at once, its report signed and kept before the catalogue names it.

Runs are jobs where a gateway runs, one by one, so that none disturbs another's times; elsewhere they go on in the
foreground of who asks.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from gateway.checkpoints import SigningKey
from gateway.control.changes import Changes, Decision
from gateway.control.gate_asking import Question, model_of
from gateway.control.gate_run import GateRunner
from gateway.control.jobs import Job, JobProgress, Jobs
from gateway.control.store import AuditEntry, DocumentKey, Snapshot
from gateway.errors import Conflict
from gateway.messages import VersionRef
from gateway.registry.gates.records import GATES, keep_record, read_record
from gateway.registry.gates.report import Report
from gateway.registry.gates.running import GateProgress

__all__ = ["GateRuns"]

View = dict[str, Any]
KIND = "gates"
_MAX_REASON = 1000


class GateRuns:
    """``home``: where the key of the records is. ``jobs``: None where nothing is served; ``progress`` is told of the
    runs in the foreground, and may be set."""

    def __init__(self, changes: Changes, runner: GateRunner, *, home: Path, jobs: Jobs | None) -> None:
        self._changes = changes
        self._runner = runner
        self._blobs = runner.blobs
        self._home = home
        self._jobs = jobs
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="turnout-gates")
        self._under_way: dict[tuple[VersionRef, str], asyncio.Task[View]] = {}
        self._key: SigningKey | None = None
        # By model and outcome, of this process.
        self.ended: Counter[tuple[str, str]] = Counter()
        self.progress: GateProgress = _untold

    def __repr__(self) -> str:
        return f"<GateRuns [{len(self._under_way)} under way]>"

    async def close(self) -> None:
        """Ends runs that go on in the foreground; the jobs end theirs."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def outcome(self, asked: Question, purpose: str, actor: str) -> View:
        """One run for all who ask the same at once. Who stops waiting leaves it going on for the others."""
        place = (asked.ref, asked.basis)
        running = self._under_way.get(place)
        if running is None:
            running = asyncio.ensure_future(self._through(asked, purpose, actor))
            self._under_way[place] = running
            running.add_done_callback(partial(self._over, place))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if self._jobs is None:
                running.cancel()
            raise

    def job(self, asked: Question, purpose: str, actor: str) -> Job:
        """One more run, begun. Conflict where there are no jobs."""
        if self._jobs is None:
            raise Conflict("jobs are of a running gateway; here the gates run in the foreground: turnout gate")

        async def work(progress: JobProgress) -> View:
            def tell(stage: str, done: int, total: int | None) -> None:
                progress.tell(done, total, f"rows of {stage}" if done else stage)

            stop = _Stopped(lambda: progress.stopped)
            return await self._looked(asked, purpose, actor, tell, stop)

        return self._jobs.start(KIND, actor, work, title=f"gates of {asked.ref}", one_by_one=True)

    async def note(self, asked: Question, result: View, entry: AuditEntry) -> None:
        """Into the catalogue, with its audit record."""

        def decide(snapshot: Snapshot) -> Decision:
            return Decision(model_of(snapshot, asked.model.name).with_gate(asked.entry.number, result).to_json(), entry)

        await self._changes.write(_key(asked), decide)

    def read(self, digest: str) -> View:
        """A report that this home signed. Blocks; IntegrityError for any other."""
        return dict(read_record(digest, self._signing().public, self._blobs))

    def _over(self, place: tuple[VersionRef, str], ended: asyncio.Task[View]) -> None:
        self._under_way.pop(place, None)
        if not ended.cancelled():
            ended.exception()  # told to all who still wait; perhaps nobody does

    async def _through(self, asked: Question, purpose: str, actor: str) -> View:
        if self._jobs is None:
            return await self._looked(asked, purpose, actor, self.progress, threading.Event())
        return dict(await self._jobs.outcome(self.job(asked, purpose, actor)))

    async def _looked(
        self, asked: Question, purpose: str, actor: str, progress: GateProgress, stop: threading.Event | _Stopped
    ) -> View:
        loop = asyncio.get_running_loop()
        work = partial(self._runner.run, asked, purpose, progress=progress, stopped=stop.is_set)
        try:
            report = await loop.run_in_executor(self._threads, work)
        except asyncio.CancelledError:
            stop.set()
            raise
        return await self._kept(asked, report, purpose, actor)

    async def _kept(self, asked: Question, report: Report, purpose: str, actor: str) -> View:
        """The record is stored before the catalogue names it. An archived or changed model keeps it all the same."""
        body = report.to_json()
        with self._blobs.registering():
            stored = await asyncio.to_thread(self._keep, body)
            result = {
                "record": stored.digest,
                "size_bytes": stored.size_bytes,
                "passed": report.passed,
                "failed": list(report.failed),
                "at": report.ended_at,
                "took_s": round(report.ended_at - report.started_at, 3),
                "basis": report.basis,
                "declaration": report.declaration,
                "against": None if report.against is None else report.against["version"],
                "purpose": purpose,
                "by": actor,
            }
            told = {"version": asked.entry.number, "passed": report.passed, "failed": list(report.failed)}
            told |= {"record": stored.digest, "purpose": purpose}
            why = report.sentence()[:_MAX_REASON]
            await self.note(asked, result, AuditEntry(actor, "gates", str(_key(asked)), why, told))
        self.ended[asked.model.name, "passed" if report.passed else "failed"] += 1
        return {
            "model": asked.model.name,
            "version": asked.entry.number,
            "passed": report.passed,
            "failed": list(report.failed),
            "why": report.sentence(),
            "record": stored.digest,
            "report": body,
        }

    def _signing(self) -> SigningKey:
        if self._key is None:
            self._key = SigningKey.of(self._home, GATES)
        return self._key

    def _keep(self, body: View) -> Any:
        return keep_record(body, self._signing(), self._blobs)


class _Stopped:
    """The job's word, or our own."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set or self._asked()


def _untold(_stage: str, _done: int, _total: int | None) -> None:
    """Nobody watches."""


def _key(asked: Question) -> DocumentKey:
    return DocumentKey("model", asked.model.name)
