"""A home in one file, and out of it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.backup import BackupReport, read_backup, write_backup
from gateway.cli.connection import local_home
from gateway.cli.failures import CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text
from gateway.control.store_access import last_state_path, store_path
from gateway.environment import client_settings
from gateway.registry.blobs import BlobStore
from gateway.registry.opening import open_blobs
from gateway.settings import load_settings

__all__ = ["commands"]

commands = typer.Typer()


@commands.command("backup")
def back_up(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write; a file there is replaced.")],
    without_decisions: Annotated[
        bool, typer.Option("--without-decisions", help="Leave the decision log out, which may be large.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Save the home (store, artifacts, labels, decisions) as one archive, also while a gateway runs on it."""
    output = Output.standard(machine=json)
    home = local_home("backup")
    _refuse_shared(home)
    with output.steps() as steps:
        report = write_backup(
            store_path(home), _artifacts(home, output), file, steps, home=home, decisions=not without_decisions
        )
    held = f"{report.artifacts} artifacts, {report.records} files of labels and decisions"
    _report(output, report, f"{report.file}: {held}, {bytes_text(report.size_bytes)}")


def _artifacts(home: Path, output: Output) -> BlobStore:
    """What goes into the archive, in plain; a store at a URL keeps its own."""
    settings = load_settings(overrides={"home": home})
    registry = settings.registry
    if registry.url is not None:
        output.note(f"Artifacts are at {registry.url} and not in the archive: turnout sync home STORE makes a copy.")
        return BlobStore(home)
    if registry.encryption.key is not None:
        output.note("The archive holds the artifacts in plain: keep it as you keep the key.")
    return open_blobs(settings)


def _refuse_shared(home: Path) -> None:
    """A backup of this home would have no desired state in it."""
    settings = load_settings(overrides={"home": home})
    if settings.store.url is None and not last_state_path(home).exists():
        return
    blobs = settings.registry.blobs or home
    raise CommandFailed(
        f"desired state is in Redis, not in {home}: save that Redis by its own means (its append-only files, or BGSAVE "
        f"and its dump.rdb) and then the folder {blobs / 'blobs'}, whose files never change. A Redis put back from an "
        "older copy is not believed by replicas that have seen more: see turnout store"
    )


@commands.command("restore-backup")
def restore_backup(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An archive that backup wrote.")],
    json: JsonOption = False,
) -> None:
    """Make a fresh home out of an archive: checked byte by byte, whole or not at all."""
    output = Output.standard(machine=json)
    home = client_settings().home
    with output.steps() as steps:
        report = read_backup(file, home, store_path(home).relative_to(home), steps)
    _report(output, report, f"{home}: {report.artifacts} artifacts restored from {file}")


def _report(output: Output, report: BackupReport, sentence: str) -> None:
    if output.machine:
        output.json(report.to_json())
    else:
        output.line(sentence)
