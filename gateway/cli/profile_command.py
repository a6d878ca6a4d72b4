"""``turnout profile``: what a version's traffic is counted with, and a new profile out of live rows."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.backend import Backend
from gateway.cli.connection import perform
from gateway.cli.failures import CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text, when_text
from gateway.registry.names import split_reference

__all__ = ["commands", "profile_lines"]

commands = typer.Typer()

LOOK_S = 1.0
MANIFEST = "manifest"
_SHOWN = 12


@commands.command("profile")
def profile(
    *,
    version: Annotated[str, typer.Argument(metavar="MODEL/VERSION")],
    from_traffic: Annotated[
        str | None, typer.Option("--from-traffic", metavar="ROUTE", help="Make one of live rows of this route.")
    ] = None,
    rows: Annotated[
        int, typer.Option("--rows", metavar="N", min=100, help="Rows for the bins, and as many more to count.")
    ] = 10_000,
    use: Annotated[
        str | None,
        typer.Option("--use", metavar="DIGEST", help="Count with this captured profile; manifest: with the first one."),
    ] = None,
    use_it: Annotated[bool, typer.Option("--and-use", help="Count with the profile that is made here.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a version's traffic is counted with for drift, or make a new profile of live rows.

    Only sums leave the version's process, never a row. The version stays what it is: the profile is kept beside it.
    """
    output = Output.standard(machine=json)
    model, selector = split_reference(version)
    if from_traffic is not None and use is not None:
        raise CommandFailed("--from-traffic makes a profile and --use takes one that is there: say one of them")
    if use is not None:
        digest = None if use == MANIFEST else use
        found = perform(lambda backend: backend.use_profile(model, selector, digest))
    elif from_traffic is not None:
        route = from_traffic
        found = perform(lambda backend: _capture(backend, (model, selector), route, rows, use=use_it))
    else:
        found = perform(lambda backend: backend.profiles(model, selector))
    if json:
        output.json(found)
        return
    _show(output, found)


async def _capture(
    backend: Backend, version: tuple[str, str], route: str, rows: int, *, use: bool
) -> Mapping[str, Any]:
    """Until it is there; whoever stops waiting leaves it going on."""
    found = await backend.capture_profile(*version, route=route, rows=rows, use=use)
    while found["capture"]["state"] == "running":
        await asyncio.sleep(LOOK_S)
        found = await backend.profiles(*version)
    if found["capture"]["problem"]:
        raise CommandFailed(f"no profile was made: {found['capture']['problem']}")
    return found


def _show(output: Output, found: Mapping[str, Any]) -> None:
    output.fields(
        [
            ("version", f"{found['model']}/{found['version']}"),
            ("counted with", found["counted"] or "nothing: it has no profile"),
            ("chosen", found["used"] or "the manifest's"),
        ]
    )
    for line in profile_lines(found["profile"]):
        output.line(line)
    captured = [
        (held["digest"], held["route"], held["rows"], when_text(held["captured_at"]), bytes_text(held["size_bytes"]))
        for held in found["captured"]
    ]
    if captured:
        output.table(("CAPTURED", "ROUTE", "ROWS", "SINCE", "SIZE"), captured, empty="")


def profile_lines(told: Mapping[str, Any] | None) -> Sequence[str]:
    """A profile for people, in a few lines."""
    if told is None:
        return []
    if "problem" in told:
        return [f"profile {told['digest'][:19]} cannot be read: {told['problem']}"]
    sampled = "" if told["exact"] else f", bins of a sample of {told['sampled_rows']:,}"
    lines = [f"profile {told['digest'][:19]}  {told['rows']:,} rows{sampled}"]
    features = told["features"]
    for feature in features[:_SHOWN]:
        span = f"{feature['lowest']:.6g} … {feature['highest']:.6g}" if "lowest" in feature else "text"
        gone = f", {feature['missing']:,} missing" if feature["missing"] else ""
        what = f"{feature['kind']}, {feature['bins']} bins, {span}{gone}"
        lines.append(f"  {feature['side']:<6} {feature['name']}  {what}")
    if len(features) > _SHOWN:
        lines.append(f"  … and {len(features) - _SHOWN} more (--json shows all)")
    lines += [
        f"  {block['name']} together: {block['columns']} columns as {block['dimensions']} dimensions"
        for block in told["blocks"]
    ]
    lines += [f"  {name} is not counted: {why}" for name, why in told["skipped"].items()]
    return lines
