"""``turnout jobs``: long work of a gateway."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.output import JsonOption, Output, when_text

__all__ = ["commands"]

commands = typer.Typer()


@commands.command("jobs")
def show_jobs(
    *,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job, by its id.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", metavar="KIND", help="Jobs of one kind, like batch.")] = None,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job.")] = False,
    json: JsonOption = False,
) -> None:
    """List the jobs of a gateway, newest first; show or --cancel one."""
    output = Output.standard(machine=json)
    if job is not None:
        found = perform(lambda backend: backend.cancel_job(job) if cancel else backend.job(job))
        if json:
            output.json(found)
        else:
            output.fields([(name, value) for name, value in found.items() if value not in (None, "", {})])
        return
    jobs = perform(lambda backend: backend.jobs(kind))
    if json:
        output.json(jobs)
        return
    columns = ("JOB", "KIND", "TITLE", "STATE", "DONE", "ASKED", "ACTOR")
    output.table(columns, [_row(one) for one in jobs], empty="No jobs.")


def _row(job: Mapping[str, Any]) -> tuple[object, ...]:
    facts = (job["id"], job["kind"], job["title"], job["state"])
    return *facts, _done(job["progress"]), when_text(job["asked_at"]), job["actor"]


def _done(progress: Mapping[str, Any]) -> str:
    total = "" if progress["total"] is None else f" of {progress['total']}"
    return f"{progress['done']}{total} {progress['unit']}".strip()
