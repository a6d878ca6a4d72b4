"""Artifacts at rest: who signed a version, and which key they are sealed with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text, when_text
from gateway.cli.place import actor, home_settings, opened_control
from gateway.cli.progress import stepwise
from gateway.control.local_control import LocalControl
from gateway.errors import IntegrityError
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.sealing.rekey import RekeyReport, rekey
from gateway.registry.signing.signatures import Authors, sign_manifest
from gateway.registry.transfer.records import choose
from gateway.settings import Settings

__all__ = ["VersionArgument", "commands", "entry_of"]

UNKNOWN = "unknown"
"""By whom, where the settings name no key that fits."""

commands = typer.Typer()

VersionArgument = Annotated[str, typer.Argument(metavar="MODEL/3", help="A version: fraud/3, fraud@champion.")]


@commands.command("sign")
def sign_version(
    *,
    version: VersionArgument,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help="Your private key: PEM, elliptic curve (prime256v1).")
    ],
    json: JsonOption = False,
) -> None:
    """Sign a version (its manifest, and so every byte of it) with model-signing. Signatures go where it goes."""
    output = Output.standard(machine=json)
    made = asyncio.run(_signed(version, key, home_settings("sign")))
    if json:
        output.json(made)
        return
    output.line(f"{made['model']}/{made['version']} signed by {made['by']}: {made['signature']}")
    if made["by"] == UNKNOWN:
        output.note("No key under registry.signing.keys fits: gateways will not count this signature.")


async def _signed(version: str, key: Path, settings: Settings) -> dict[str, Any]:
    authors = Authors.of_settings(settings.registry.signing)
    async with opened_control(settings) as control:
        model, entry = await entry_of(control, version)
        manifest = await asyncio.to_thread(control.blobs.read, entry.digest)
        bundle = await asyncio.to_thread(sign_manifest, manifest, key)
        who = await asyncio.to_thread(authors.of, manifest, bundle)
        return await control.artifacts.add_signature(model, entry.number, bundle, by=who or UNKNOWN, actor=actor())


@commands.command("signatures")
def list_signatures(*, version: VersionArgument, json: JsonOption = False) -> None:
    """List a version's signatures, each checked with the keys of registry.signing. Exit status 1 when none counts."""
    output = Output.standard(machine=json)
    found = asyncio.run(_signatures(version, home_settings("signatures")))
    if json:
        output.json(found)
    else:
        rows = [(row["by"] or "nobody known", when_text(row["at"]), row["digest"]) for row in found]
        output.table(("BY", "SIGNED", "SIGNATURE"), rows, empty=f"{version} has no signature.")
    if not any(row["by"] for row in found):
        raise typer.Exit(1)


async def _signatures(version: str, settings: Settings) -> list[dict[str, Any]]:
    authors = Authors.of_settings(settings.registry.signing)
    async with opened_control(settings) as control:
        _, entry = await entry_of(control, version)
        manifest = await asyncio.to_thread(control.blobs.read, entry.digest)
        found = []
        for record in entry.signatures:
            bundle = await asyncio.to_thread(control.blobs.read, record["digest"])
            who = await asyncio.to_thread(authors.of, manifest, bundle)
            found.append({"by": who, "at": record["at"], "digest": record["digest"]})
        return found


@commands.command("rekey")
def seal_anew(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sealed anew.")] = False,
    json: JsonOption = False,
) -> None:
    """Seal anew what is plain, or sealed with a key of registry.encryption.previous. Cut off, it goes on;
    gateways keep serving."""
    output = Output.standard(machine=json)
    report = asyncio.run(_resealed(home_settings("rekey"), output, dry_run=dry_run))
    if json:
        output.json({**report.to_json(), "dry_run": dry_run})
        return
    verb = "to be sealed" if dry_run else "sealed"
    output.line(f"{report.files} files, {bytes_text(report.bytes)} {verb}; {report.kept} are sealed with this key")


async def _resealed(settings: Settings, output: Output, *, dry_run: bool) -> RekeyReport:
    async with opened_control(settings) as control:
        with output.steps() as steps:
            try:
                return await asyncio.to_thread(rekey, control.blobs, stepwise(steps, "sealing"), dry_run=dry_run)
            except IntegrityError as error:
                raise CommandFailed(f"{error} What was sealed until then stays sealed; run rekey again.") from error


async def entry_of(control: LocalControl, version: str) -> tuple[str, CatalogueEntry]:
    if not {"/", "@"} & set(version):
        raise CommandFailed(f"{version!r} names no version; write {version}/3 or {version}@alias", status=USAGE)
    (record,) = choose(version, await control.artifacts.records(), await control.artifacts.aliases(), "the home")
    return record.model, record.entry
