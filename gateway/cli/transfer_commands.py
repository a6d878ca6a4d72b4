"""Versions from one artifact store to another: push, pull, sync."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text
from gateway.cli.place import HOME, actor, home_settings, opened_control, opened_place
from gateway.cli.progress import stepwise
from gateway.control.local_control import LocalControl
from gateway.errors import IntegrityError, TurnoutError
from gateway.registry.signing.signatures import Authors
from gateway.registry.transfer.ends import BlobEnd, End, RemoteEnd
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
                aliases = await control.artifacts.aliases()
                chosen = _chosen(await control.artifacts.records(), aliases, move, "the home")
                return await _sent(move, BlobEnd(control.blobs), there, chosen, aliases)
        with opened_place(move.source, settings) as here:
            records, aliases = await asyncio.to_thread(here.records), await asyncio.to_thread(here.aliases)
            return await _sent(move, here, there, _chosen(records, aliases, move, here.where), aliases)


async def _sent(
    move: _Move, source: End, target: RemoteEnd, chosen: Sequence[VersionRecord], aliases: dict[tuple[str, str], str]
) -> dict[str, Any]:
    report = await _transferred(move, source, target, chosen)
    sent = {(record.model, record.digest) for record in chosen}
    for (model, alias), digest in sorted(aliases.items()):
        if (model, digest) in sent:
            await asyncio.to_thread(target.note_alias, AliasRecord(model, alias, digest))
    return {**report.to_json(), "moved": [str(record) for record in chosen]}


async def _into_home(move: _Move, settings: Settings) -> dict[str, Any]:
    async with opened_control(settings) as control:
        with opened_place(move.source, settings) as there:
            records, aliases = await asyncio.to_thread(there.records), await asyncio.to_thread(there.aliases)
            chosen = _chosen(records, aliases, move, there.where)
            signing = settings.registry.signing
            authors = Authors.of_settings(signing) if "pull" in signing.require else None
            arrived: list[VersionRecord] = []
            with control.blobs.registering():
                try:
                    report = await _transferred(move, there, BlobEnd(control.blobs, arrived.append), chosen)
                finally:
                    adopted, refused = await _all_adopted(control, arrived, there.where, authors)
    if refused:
        raise CommandFailed("; ".join(map(str, refused)))
    return {**report.to_json(), "moved": [f"{view['model']}/{view['version']}" for view in adopted], "adopted": adopted}


async def _all_adopted(
    control: LocalControl, arrived: Sequence[VersionRecord], origin: str, authors: Authors | None
) -> tuple[list[dict[str, Any]], list[TurnoutError]]:
    """What was adopted, and what each refused one lacks: it keeps no other out."""
    adopted, refused = [], list[TurnoutError]()
    for record in arrived:
        try:
            adopted.append(await _adopted(control, record, origin, authors))
        except IntegrityError as error:
            refused.append(error)
    return adopted, refused


async def _adopted(
    control: LocalControl, record: VersionRecord, origin: str, authors: Authors | None
) -> dict[str, Any]:
    """IntegrityError, and it does not enter the catalogue, when the settings ask for a signature that it lacks."""
    if authors is not None:
        await asyncio.to_thread(authors.require, f"{record} of {origin}", record.entry, control.blobs)
    return await control.artifacts.adopt(record, origin=origin, actor=actor())


async def _transferred(move: _Move, source: End, target: End, chosen: Sequence[VersionRecord]) -> TransferReport:
    with move.output.steps() as steps:
        told: Progress = stepwise(steps, "sending")
        stop = threading.Event()
        try:
            return await asyncio.to_thread(
                transfer, source, target, chosen, parallel=move.parallel, progress=told, stop=stop
            )
        finally:
            stop.set()  # interrupted: the threads would send the rest


def _chosen(
    records: Sequence[VersionRecord], aliases: dict[tuple[str, str], str], move: _Move, where: str
) -> list[VersionRecord]:
    """Whose files are there; in order of model and number, each once."""
    kept = [record for record in records if record.entry.released is None]
    asked = move.versions
    picked = kept if asked is None else [one for text in asked for one in choose(text, kept, aliases, where)]
    once = {(record.model, record.digest): record for record in picked}
    return sorted(once.values(), key=lambda record: (record.model, record.entry.number))


def _report(output: Output, done: dict[str, Any], way: str) -> None:
    if output.machine:
        output.json(done)
        return
    for view in done.get("adopted", ()):
        renumbered = f" (there {view['number_there']})" if view["number_there"] != view["version"] else ""
        known = "" if view["changed"] else ", known already"
        output.line(f"{view['model']}/{view['version']}{renumbered}  {view['digest']}{known}")
    output.line(
        f"{done['versions']} versions {way}: {done['files']} files, {bytes_text(done['bytes'])} sent in "
        f"{done['seconds']:.1f} s; {done['files_there']} files, {bytes_text(done['bytes_there'])} were there"
    )
