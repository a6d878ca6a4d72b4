"""Proving stored bytes: every one of a version, of the home, or of another store, is hashed again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.failures import FAILED, USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, Steps
from gateway.cli.place import home_settings, opened_control, opened_place
from gateway.cli.progress import stepwise
from gateway.registry.blob_records import BlobCheck
from gateway.registry.transfer.ends import Listing
from gateway.registry.transfer.records import VersionRecord, choose
from gateway.registry.verify import Provable, VerifyReport, verify
from gateway.settings import Settings

__all__ = ["commands"]

commands = typer.Typer()


@commands.command("verify")
def verify_versions(
    *,
    version: Annotated[
        str | None, typer.Argument(metavar="[MODEL/3]", help="One version, or MODEL for all its own.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every version in the store (also without MODEL/3).")
    ] = False,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", metavar="STORE", help="Not the home's: a name of registry.stores, a URL, or a folder (./x)."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Hash every stored byte of a version again, over the network where the store is there. Exit status 1 when one is
    not what the manifest names."""
    output = Output.standard(machine=json)
    if version is not None and everything:
        raise CommandFailed("give MODEL/3 or --all, not both", status=USAGE)
    settings = home_settings("verify")
    found, unreadable = asyncio.run(_verified(version, store, settings, output))
    if json:
        output.json([_view(record, report) for record, report in found])
    for record, report in () if json else found:
        freed = "  (its files were given up by gc)" if record.entry.released is not None else ""
        output.line(f"{record}  {'ok' if report.ok else 'DAMAGED'}  {report.digest}{freed}")
        for finding in report.findings:
            if not finding.ok:
                output.line(f"  {finding}")
    if unreadable:
        said = "".join(f"\n  {name}: {why}" for name, why in unreadable.items())
        raise CommandFailed(f"{len(unreadable)} records of versions and aliases in {store} cannot be read:{said}")
    if not all(report.ok for _, report in found):
        raise typer.Exit(FAILED)


async def _verified(
    version: str | None, store: str | None, settings: Settings, output: Output
) -> tuple[list[tuple[VersionRecord, VerifyReport]], Mapping[str, str]]:
    """What was proved, and what could not be read."""
    if store is not None:
        with opened_place(store, settings) as end:
            listing = await asyncio.to_thread(end.listing)
            chosen = _chosen(version, listing, end.where)
            unreadable = listing.about(None if version is None else {chosen[0].model})
            with output.steps() as steps:
                return await asyncio.to_thread(_proved, chosen, end.remote, steps), unreadable
    async with opened_control(settings) as control:
        listing = Listing(await control.artifacts.records(), await control.artifacts.aliases())
        chosen = _chosen(version, listing, "the home")
        with output.steps() as steps:
            return await asyncio.to_thread(_proved, chosen, control.blobs, steps), {}


def _chosen(version: str | None, listing: Listing, where: str) -> Sequence[VersionRecord]:
    """Archived versions included."""
    return listing.records if version is None else choose(version, listing.records, listing.aliases, where)


def _proved(
    records: Sequence[VersionRecord], blobs: Provable, steps: Steps
) -> list[tuple[VersionRecord, VerifyReport]]:
    """What versions share is hashed once."""
    known: dict[str, BlobCheck] = {}
    return [
        (
            record,
            verify(
                record.digest,
                blobs,
                stepwise(steps, f"hashing {record}"),
                known=known,
                files=record.entry.released is None,
                beside=sorted(record.beside),
            ),
        )
        for record in records
    ]


def _view(record: VersionRecord, report: VerifyReport) -> dict[str, Any]:
    return {"version": str(record), **report.to_json()}
