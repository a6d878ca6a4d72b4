"""Making room: what would go is said before it goes."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from gateway.cli.failures import CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text
from gateway.cli.place import actor, home_settings, opened_control
from gateway.cli.progress import stepwise
from gateway.control.artifact_control import GarbagePlan
from gateway.registry.collect import GRACE_S
from gateway.settings import Settings

__all__ = ["commands"]

_SHOWN = 20

commands = typer.Typer()


@commands.command("gc")
def collect_garbage(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be freed.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    older_than_s: Annotated[
        float,
        typer.Option(
            "--older-than", metavar="SECONDS", min=0, help="Leave younger files: they may be on their way in."
        ),
    ] = GRACE_S,
    json: JsonOption = False,
) -> None:
    """Free artifact files that nothing needs. Archived versions are kept, unless the rules of registry.retention let go
    of versions that no alias, route, target, rollout or report uses."""
    output = Output.standard(machine=json)
    settings = home_settings("gc")
    done = asyncio.run(_collected(settings, output, dry_run=dry_run, yes=yes, grace_s=older_than_s))
    if json:
        output.json(done)


async def _collected(settings: Settings, output: Output, *, dry_run: bool, yes: bool, grace_s: float) -> dict[str, Any]:
    async with opened_control(settings) as control:
        found = await control.artifacts.garbage(grace_s=grace_s)
        if not output.machine:
            for line in _plan_lines(found):
                output.line(line)
        freed = 0
        if not found.empty and not dry_run:
            _confirm(found, yes=yes)
            with output.steps() as steps:
                freed = await control.artifacts.free(found, actor=actor(), progress=stepwise(steps, "freeing"))
            if not output.machine:
                output.line(f"Freed {bytes_text(freed)}.")
        return {**found.to_json(), "dry_run": dry_run, "freed_bytes": freed}


def _plan_lines(plan: GarbagePlan) -> list[str]:
    found = plan.found
    young = f"; {len(found.recent)} more are too young to go" if found.recent else ""
    if plan.empty:
        return [f"Nothing to free: {found.kept} files are in use{young}."]
    lines = []
    if plan.releasing:
        shown = ", ".join(plan.released[:_SHOWN])
        more = len(plan.released) - _SHOWN
        beyond = f" and {more} more" if more > 0 else ""
        lines.append(f"Used by nothing and kept by no rule, so their files go: {shown}{beyond}. Their manifests stay.")
    if plan.environments:
        size = sum(entry.size_bytes for entry in plan.environments)
        lines.append(f"{len(plan.environments)} environments, {bytes_text(size)}, are needed by no version.")
    lines.append(f"{len(found.free)} files, {bytes_text(found.free_bytes)}, belong to no version that is kept{young}.")
    return lines


def _confirm(plan: GarbagePlan, *, yes: bool) -> None:
    if yes:
        return
    try:
        agreed = typer.confirm(f"Free {bytes_text(plan.free_bytes)} for good?", err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise CommandFailed("nothing was removed; say --yes to remove without being asked")
