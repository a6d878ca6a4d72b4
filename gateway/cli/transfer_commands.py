"""Versions from one artifact store to another: push, pull, sync."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text
from gateway.cli.place import HOME, actor, home_settings, opened_control, opened_place
from gateway.cli.progress import stepwise
from gateway.control.local_control import LocalControl
from gateway.errors import IntegrityError, NotFound, TurnoutError
from gateway.registry.signing.signatures import Authors
from gateway.registry.transfer.ends import BlobEnd, End, Listing, RemoteEnd
from gateway.registry.transfer.records import AliasRecord, VersionRecord, choose
from gateway.registry.transfer.transfer import Progress, TransferReport, transfer
from gateway.settings import Settings

__all__ = ["commands"]

commands = typer.Typer()

StoreArgument = Annotated[
    str,
    typer.Argument(metavar="STORE", help="A name of registry.stores, a URL (s3://bucket/folder), or a folder (./x)."),
]
VersionsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[VERSION]...", help="fraud/3, fraud@champion, fraud@sha256:…, or fraud for all of it."),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every version of every model.")]
ParallelOption = Annotated[int, typer.Option("--parallel", metavar="N", min=1, max=64, help="Files at once.")]


@commands.command("push")
def push_versions(
    *,
    store: StoreArgument,
    versions: VersionsArgument = None,
    everything: AllOption = False,
    parallel: ParallelOption = 8,
    json: JsonOption = False,
) -> None:
    """Send versions from the home to another artifact store. What it has already is not sent; cut off, it goes on."""
    _check(versions, everything)
    output = Output.standard(machine=json)
    _report(output, _run(_Move(HOME, store, versions or None, parallel, output)), f"to {store}")


@commands.command("pull")
def pull_versions(
    *,
    store: StoreArgument,
    versions: VersionsArgument = None,
    everything: AllOption = False,
    parallel: ParallelOption = 8,
    json: JsonOption = False,
) -> None:
    """Take versions from another artifact store into the home and its catalogue. Aliases are not moved by it."""
    _check(versions, everything)
    output = Output.standard(machine=json)
    _report(output, _run(_Move(store, HOME, versions or None, parallel, output)), f"from {store}")


@commands.command("sync")
def sync_stores(
    *,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A store, as for push; home is the home's own.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="A store, as for push; home is the home's own.")],
    parallel: ParallelOption = 8,
    json: JsonOption = False,
) -> None:
    """Send a whole catalogue from one store to another. Nothing is removed at the target."""
    if source == target:
        raise CommandFailed(f"source and target are both {source}", status=USAGE)
    output = Output.standard(machine=json)
    _report(output, _run(_Move(source, target, None, parallel, output)), f"{source} to {target}")


def _check(versions: Sequence[str] | None, everything: bool) -> None:
    if bool(versions) == everything:
        raise CommandFailed("name versions, or give --all", status=USAGE)


@dataclass(frozen=True, slots=True)
class _Move:
    """What was asked: ``versions`` None is all; ``parallel`` files at once."""

    source: str
    target: str
    versions: Sequence[str] | None
    parallel: int
    output: Output


def _run(move: _Move) -> dict[str, Any]:
    settings = home_settings("moving versions between stores")
    registry = settings.registry.model_copy(update={"parallel": max(move.parallel, settings.registry.parallel)})
    began = time.monotonic()
    done = asyncio.run(_moved(move, settings.model_copy(update={"registry": registry})))
    return {**done, "seconds": round(time.monotonic() - began, 3)}


async def _moved(move: _Move, settings: Settings) -> dict[str, Any]:
    if move.target == HOME:
        return await _into_home(move, settings)
    with opened_place(move.target, settings) as there:
        if move.source == HOME:
            async with opened_control(settings) as control:
                listing = Listing(await control.artifacts.records(), await control.artifacts.aliases())
                return await _sent(move, BlobEnd(control.blobs), there, listing)
        with opened_place(move.source, settings) as here:
            listing = await asyncio.to_thread(here.listing)
            return await _sent(move, here, there, listing)


async def _sent(move: _Move, source: End, target: RemoteEnd, listing: Listing) -> dict[str, Any]:
    chosen, skipped = _chosen(listing, move, source.where)
    report = await _transferred(move, source, target, chosen, skipped)
    sent = [record for record in chosen if _full(record) not in skipped]
    digests = {(record.model, record.digest) for record in sent}
    for (model, alias), digest in sorted(listing.aliases.items()):
        if (model, digest) in digests:
            await asyncio.to_thread(target.note_alias, AliasRecord(model, alias, digest))
    return {**report.to_json(), "moved": [str(record) for record in sent], "skipped": skipped}


async def _into_home(move: _Move, settings: Settings) -> dict[str, Any]:
    async with opened_control(settings) as control:
        with opened_place(move.source, settings) as there:
            chosen, skipped = _chosen(await asyncio.to_thread(there.listing), move, there.where)
            signing = settings.registry.signing
            authors = Authors.of_settings(signing) if "pull" in signing.require else None
            arrived: list[VersionRecord] = []
            with control.blobs.registering():
                try:
                    report = await _transferred(move, there, BlobEnd(control.blobs, arrived.append), chosen, skipped)
                finally:
                    adopted = await _all_adopted(control, arrived, there.where, authors, skipped)
    moved = [f"{view['model']}/{view['version']}" for view in adopted]
    return {**report.to_json(), "moved": moved, "adopted": adopted, "skipped": skipped}


async def _all_adopted(
    control: LocalControl,
    arrived: Sequence[VersionRecord],
    origin: str,
    authors: Authors | None,
    skipped: dict[str, str],
) -> list[dict[str, Any]]:
    """What was adopted; ``skipped`` gets what each other one lacks, which keeps none out."""
    adopted = []
    for record in arrived:
        try:
            adopted.append(await _adopted(control, record, origin, authors))
        except IntegrityError as error:
            skipped[_full(record)] = str(error)
    return adopted


async def _adopted(
    control: LocalControl, record: VersionRecord, origin: str, authors: Authors | None
) -> dict[str, Any]:
    """IntegrityError, and it does not enter the catalogue, when the settings ask for a signature that it lacks."""
    if authors is not None:
        await asyncio.to_thread(authors.require, f"{record} of {origin}", record.entry, control.blobs)
    return await control.artifacts.adopt(record, origin=origin, actor=actor())


async def _transferred(
    move: _Move, source: End, target: End, chosen: Sequence[VersionRecord], skipped: dict[str, str]
) -> TransferReport:
    def refused(record: VersionRecord, error: TurnoutError) -> None:
        skipped[_full(record)] = str(error)

    with move.output.steps() as steps:
        told: Progress = stepwise(steps, "sending")
        stop = threading.Event()
        try:
            return await asyncio.to_thread(
                transfer, source, target, chosen, parallel=move.parallel, progress=told, stop=stop, refused=refused
            )
        finally:
            stop.set()  # interrupted: the threads would send the rest


def _chosen(listing: Listing, move: _Move, where: str) -> tuple[list[VersionRecord], dict[str, str]]:
    """Whose files are there; in order of model and number, each once; and what cannot be read of those models."""
    kept = [record for record in listing.records if record.entry.released is None]
    asked = move.versions
    unreadable = dict(listing.about(None if asked is None else {re.split("[@/]", text)[0] for text in asked}))
    try:
        picked = (
            kept if asked is None else [one for text in asked for one in choose(text, kept, listing.aliases, where)]
        )
    except NotFound as error:
        raise CommandFailed(f"{error}{_left_out(unreadable)}") from error
    once = {(record.model, record.digest): record for record in picked}
    return sorted(once.values(), key=lambda record: (record.model, record.entry.number)), unreadable


def _full(record: VersionRecord) -> str:
    """Two homes may have given one number to different versions."""
    return f"{record} {record.digest}"


def _left_out(skipped: Mapping[str, str]) -> str:
    return "".join(f"\n  not taken: {name}: {why}" for name, why in skipped.items())


def _report(output: Output, done: dict[str, Any], way: str) -> None:
    """CommandFailed, after all the rest was told, when something was left out."""
    if output.machine:
        output.json(done)
    else:
        _tell(output, done, way)
    if skipped := done["skipped"]:
        raise CommandFailed(f"{len(skipped)} could not be moved {way}; the others were:{_left_out(skipped)}")


def _tell(output: Output, done: dict[str, Any], way: str) -> None:
    for view in done.get("adopted", ()):
        renumbered = f" (there {view['number_there']})" if view["number_there"] != view["version"] else ""
        known = "" if view["changed"] else ", known already"
        output.line(f"{view['model']}/{view['version']}{renumbered}  {view['digest']}{known}")
    output.line(
        f"{done['versions']} versions {way}: {done['files']} files, {bytes_text(done['bytes'])} sent in "
        f"{done['seconds']:.1f} s; {done['files_there']} files, {bytes_text(done['bytes_there'])} were there"
    )
