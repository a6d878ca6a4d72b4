"""What is brought back: a past document of a route, or an archived version."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from gateway.cli.artifact_commands import VersionArgument, entry_of
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output
from gateway.cli.place import actor, home_settings, opened_control
from gateway.cli.route_commands import show_change, split_text
from gateway.settings import Settings

__all__ = ["commands"]

commands = typer.Typer()


@commands.command("restore")
def restore_revision(
    *,
    route: Annotated[str, typer.Argument(metavar="ROUTE|MODEL/3", help="A route, or an archived version.")],
    revision: Annotated[
        int | None, typer.Argument(metavar="[REVISION]", min=1, help="A revision that history lists.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Go back to a past document of a route, as a new revision; or bring an archived version back (MODEL/3)."""
    output = Output.standard(machine=json)
    if revision is None:
        if "/" not in route:
            raise CommandFailed(f"which revision of route {route}? turnout history {route} lists them", status=USAGE)
        _restore_version(route, output)
        return
    view = perform(lambda backend: backend.restore(route, revision))
    show_change(
        output, view, f"route {route} is as in revision {revision}: {split_text(view)} (revision {view['revision']})"
    )


@commands.command("unarchive")
def unarchive_version(*, version: VersionArgument, json: JsonOption = False) -> None:
    """Bring an archived version back: routable again, once every file of it is here and sound."""
    _restore_version(version, Output.standard(machine=json))


def _restore_version(version: str, output: Output) -> None:
    done = asyncio.run(_restored(version, home_settings("restoring a version")))
    if output.machine:
        output.json(done)
    else:
        output.line(f"{done['model']}/{done['version']} is back: every file of it was hashed, and it can be routed to")


async def _restored(version: str, settings: Settings) -> dict[str, Any]:
    async with opened_control(settings) as control:
        model, entry = await entry_of(control, version)
        return await control.artifacts.restore(model, entry.number, actor=actor())
