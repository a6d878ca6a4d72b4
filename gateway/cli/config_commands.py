"""The configuration: is it sound, does a secret stand in it, and which secrets does a gateway go by now?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.config_check import check_settings, check_text
from gateway.cli.connection import perform
from gateway.cli.failures import FAILED
from gateway.cli.output import JsonOption, Output, when_text

__all__ = ["commands"]

commands = typer.Typer()
config_commands = typer.Typer(help="Check the configuration; see the secrets in force.", no_args_is_help=True)
commands.add_typer(config_commands, name="config")


@config_commands.command("check")
def check_config(
    *,
    others: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Other files in which no secret may stand.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="The settings; without it, the environment's.")
    ] = None,
    read: Annotated[
        bool, typer.Option("--read", help="Read every secret as a gateway here would; runs the commands.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check the settings, and find secrets that stand in configuration text. Exit status 1 when anything is found."""
    output = Output.standard(machine=json)
    faults = [fault for path in (*([config] if config else []), *(others or ())) for fault in check_text(path)]
    unread = {fault.file for fault in faults if fault.kind == "settings"}
    if config is None or str(config) not in unread:
        faults += check_settings(config, read=read)
    if json:
        output.json({"ok": not faults, "faults": [fault.to_json() for fault in faults]})
    else:
        for fault in faults:
            output.line(str(fault))
        if not faults:
            what = "the environment" if config is None else str(config)
            output.line(f"{what}: sound, and no secret stands in it")
    if faults:
        raise typer.Exit(FAILED)


@config_commands.command("secrets")
def show_secrets(
    *,
    refresh: Annotated[bool, typer.Option("--refresh", help="Read all of them again first, now.")] = False,
    json: JsonOption = False,
) -> None:
    """Show where the gateway reads each secret, and when it changed last; never a secret. Exit status 1 on trouble."""
    output = Output.standard(machine=json)
    rotated: list[str] = []
    if refresh:
        done = perform(lambda backend: backend.refresh_secrets())
        found, rotated = done["secrets"], list(done["rotated"])
    else:
        found = perform(lambda backend: backend.secrets())
    if json:
        output.json({"rotated": rotated, "secrets": found} if refresh else found)
    else:
        rows = [
            (
                row["place"],
                row["source"],
                when_text(row["read_at"]),
                when_text(row["changed_at"]),
                row["rotations"] or None,
                row["trouble"] or None,
            )
            for row in found
        ]
        head = ("SECRET", "FROM", "READ", "CHANGED", "ROTATIONS", "TROUBLE")
        output.table(head, rows, empty="The settings name no secrets.")
        for place in rotated:
            output.note(f"{place} is another now.")
    if any(row["trouble"] for row in found):
        raise typer.Exit(FAILED)
