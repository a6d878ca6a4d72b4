"""Keeping house: tokens, backups, and space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.backup import BackupReport, read_backup, write_backup
from gateway.cli.connection import local_home, perform
from gateway.cli.durations import seconds_of
from gateway.cli.failures import CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text, when_text
from gateway.control.store_access import last_state_path, store_path
from gateway.registry.blobs import BlobStore
from gateway.registry.opening import open_blobs
from gateway.settings import client_settings, load_settings

__all__ = ["commands"]

DAY_S = 86_400.0

commands = typer.Typer()
token_commands = typer.Typer(help="Create, list, rotate and revoke tokens.", no_args_is_help=True)
commands.add_typer(token_commands, name="tokens")


@token_commands.command("create")
def create_token(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; the audit log shows this name.")],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="predict, feedback, viewer, operator or admin.")
    ] = "viewer",
    route: Annotated[
        list[str] | None, typer.Option("--route", metavar="ROUTE", help="Only this route; may be given several times.")
    ] = None,
    expires_in_days: Annotated[
        float | None, typer.Option("--expires-in-days", metavar="DAYS", help="End it by itself; without it, never.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Create a token and print it. It is shown once; only its hash is kept."""
    output = Output.standard(machine=json)
    seconds = None if expires_in_days is None else expires_in_days * DAY_S
    made = perform(
        lambda backend: backend.create_token(name, role, routes=route or [], expires_in_s=seconds), creates=True
    )
    _secret(output, made)


@token_commands.command("rotate")
def rotate_token(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")],
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="The old secret stays good so long: 90s, 15m, 2h, 1d.")
    ] = "0s",
    json: JsonOption = False,
) -> None:
    """Give a token a new secret and print it; the old one ends, at once or after the grace."""
    output = Output.standard(machine=json)
    grace_s = seconds_of(grace, "--grace")
    made = perform(lambda backend: backend.rotate_token(name, grace_s=grace_s))
    _secret(output, made)
    if "old_until" in made and not json:
        output.note(f"The secret before it is good until {when_text(made['old_until'])}.")


def _secret(output: Output, made: Mapping[str, Any]) -> None:
    if output.machine:
        output.json(made)
        return
    output.line(made["token"])
    output.note(f"Token {made['name']!r} with role {made['role']}. It is not shown again.")


@token_commands.command("list")
def list_tokens(*, json: JsonOption = False) -> None:
    """List the tokens: names, roles and routes, never the secrets."""
    output = Output.standard(machine=json)
    found = perform(lambda backend: backend.tokens())
    if json:
        output.json(found)
        return
    rows = [
        (
            token["name"],
            token["role"],
            token["routes"] or "all",
            when_text(token["created_at"]),
            _expiry(token),
            _old(token),
        )
        for token in found
    ]
    output.table(("NAME", "ROLE", "ROUTES", "CREATED", "EXPIRES", "OLD SECRET UNTIL"), rows, empty="No tokens.")


def _old(token: Mapping[str, Any]) -> str | None:
    """Only while a rotation leaves it."""
    return when_text(token["old_until"]) if "old_until" in token else None


def _expiry(token: Mapping[str, Any]) -> str:
    return "never" if token.get("expires_at") is None else when_text(token["expires_at"])


@token_commands.command("revoke")
def revoke_token(
    *, name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")], json: JsonOption = False
) -> None:
    """Revoke a token; running gateways refuse it within a second."""
    output = Output.standard(machine=json)
    perform(lambda backend: backend.revoke_token(name))
    if json:
        output.json({"name": name, "revoked": True})
    else:
        output.line(f"token {name} revoked")


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
