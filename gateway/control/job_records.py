"""A job as it is shown and kept: who asked for what, how far it is, how it ended; and the folder that keeps it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from gateway.registry.disk import write_whole

__all__ = ["ENDED_STATES", "Job", "JobFolder", "JobState", "Progress"]

log = logging.getLogger("turnout.control")

MOST_KEPT = 200
"""Ended jobs; the oldest go first."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The gateway ended under it. What it had finished stays; asking for the same again goes on from there where the
    kind of job can."""


ENDED_STATES = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED, JobState.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class Progress:
    """``done`` of ``total`` (None: not known), counted in ``unit``."""

    done: int = 0
    total: int | None = None
    unit: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"done": self.done, "total": self.total, "unit": self.unit}


@dataclass(frozen=True, slots=True)
class Job:
    """Times in seconds since the epoch; 0 for not yet. ``problem``: ``{"kind", "detail"}`` of one that failed."""

    id: str
    kind: str
    title: str
    actor: str
    state: JobState = JobState.QUEUED
    progress: Progress = field(default_factory=Progress)
    result: Mapping[str, Any] | None = None
    problem: Mapping[str, Any] | None = None
    asked_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def ended(self) -> bool:
        return self.state in ENDED_STATES

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "kind": self.kind,
            "title": self.title,
            "actor": self.actor,
            "state": str(self.state),
            "progress": self.progress.to_json(),
            "result": None if self.result is None else dict(self.result),
            "problem": None if self.problem is None else dict(self.problem),
            "asked_at": self.asked_at,
            "started_at": self.started_at or None,
            "ended_at": self.ended_at or None,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Job:
        """Raises KeyError, TypeError or ValueError."""
        progress = body["progress"]
        return cls(
            id=str(body["id"]),
            kind=str(body["kind"]),
            title=str(body["title"]),
            actor=str(body["actor"]),
            state=JobState(body["state"]),
            progress=Progress(int(progress["done"]), progress["total"], str(progress["unit"])),
            result=body["result"],
            problem=body["problem"],
            asked_at=float(body["asked_at"]),
            started_at=float(body["started_at"] or 0),
            ended_at=float(body["ended_at"] or 0),
        )


class JobFolder:
    """One file a job, written whole. Disk trouble is told in the log and changes no job."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()
        self._over: set[str] = set()

    def __repr__(self) -> str:
        return f"<JobFolder {self._folder}>"

    def write(self, job: Job) -> None:
        """From any thread; that a job began is not written over that it has ended."""
        with self._turn:
            if job.ended:
                self._over.add(job.id)
            elif job.id in self._over:
                return
            self._write(job)

    def _write(self, job: Job) -> None:
        try:
            write_whole(self._folder / f"{job.id}.json", json.dumps(job.to_json()).encode())
        except (OSError, TypeError, ValueError) as error:
            log.error("job %s (%s) cannot be kept, a restart will not know it: %s", job.id, job.kind, error)

    def remove(self, job_id: str) -> None:
        self._over.discard(job_id)
        try:
            (self._folder / f"{job_id}.json").unlink(missing_ok=True)
        except OSError as error:
            log.error("the record of job %s cannot be removed: %s", job_id, error)

    def read(self, *, now: float) -> list[Job]:
        """Oldest first. One that was under way when the gateway ended is interrupted, as of ``now``, and kept so."""
        found = []
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            try:
                job = Job.from_json(json.loads(path.read_bytes()))
            except (OSError, ValueError, KeyError, TypeError) as error:
                log.error("%s: a job's record cannot be read and is left out: %s", path, error)
                continue
            if not job.ended:
                job = replace(job, state=JobState.INTERRUPTED, ended_at=now)
                self.write(job)
            found.append(job)
        for job in found[:-MOST_KEPT]:
            self.remove(job.id)
        return found[-MOST_KEPT:]
