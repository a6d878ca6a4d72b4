"""Routes: see them, change them, go back."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from gateway.cli.artifact_commands import restore_version
from gateway.cli.backend import Backend
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, when_text
from gateway.cli.route_files import read_route_file
from gateway.control.documents import RouteSpec
from gateway.errors import TurnoutError, UnknownRoute

__all__ = ["commands"]

commands = typer.Typer()

RouteArgument = Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.")]
FileOption = Annotated[
    Path, typer.Option("--file", "-f", metavar="FILE", help="YAML with route documents; - reads standard input.")
]
RevisionOption = Annotated[
    int | None,
    typer.Option(
        "--if-match",
        metavar="REVISION",
        min=0,
        help="Refuse unless the route stands at this revision (0: does not exist).",
    ),
]
_WEIGHT = re.compile(r"(\d+)=(\d+)")
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


@commands.command("routes")
def list_routes(*, json: JsonOption = False) -> None:
    """List the routes, what answers them, and what is in quarantine."""
    output = Output.standard(machine=json)
    views = perform(lambda backend: backend.routes())
    if json:
        output.json(views)
        return
    rows = [_summary(view) for view in views]
    output.table(
        ("ROUTE", "MODEL", "SPLIT", "KNOWN GOOD", "FALLBACK", "QUARANTINED", "REVISION"),
        rows,
        empty="No routes yet. Make one with: turnout apply -f FILE",
    )


@commands.command("apply")
def apply_file(*, file: FileOption, if_match: RevisionOption = None, json: JsonOption = False) -> None:
    """Make the routes in a file so. Routes that are not in the file stay as they are."""
    output = Output.standard(machine=json)
    specs = read_route_file(file)
    if if_match is not None and len(specs) != 1:
        raise CommandFailed(f"--if-match is for one route; {file} has {len(specs)}", status=USAGE)

    async def work(backend: Backend) -> list[dict[str, Any]]:
        return [await _apply_one(backend, name, spec, if_match) for name, spec in specs.items()]

    results = perform(work, creates=True)
    if json:
        output.json(results)
        return
    for result in results:
        output.line(f"route {result['route']} {result['change']} (revision {result['revision']})")


async def _apply_one(backend: Backend, name: str, spec: Mapping[str, Any], expected: int | None) -> dict[str, Any]:
    current = await _current(backend, name)
    if expected is None and current is not None and _same(current["spec"], spec):
        return {"route": name, "change": "unchanged", "revision": current["revision"]}
    if expected is None:
        expected = 0 if current is None else int(current["revision"])
    written = await backend.put_route(name, spec, expected=expected)
    return {"route": name, "change": "created" if current is None else "changed", "revision": written["revision"]}


@commands.command("diff")
def diff_file(*, file: FileOption, json: JsonOption = False) -> None:
    """Show what apply would change. Exit status 0: nothing; 1: something; 2: could not tell."""
    output = Output.standard(machine=json)
    try:
        specs = read_route_file(file)
        found = perform(lambda backend: _differences(backend, specs))
    except TurnoutError as error:
        raise CommandFailed(str(error), problems=getattr(error, "problems", ()), status=USAGE) from None
    if json:
        output.json([{"route": name, "diff": lines} for name, lines in found.items()])
    for line in () if json else [line for lines in found.values() for line in lines]:
        output.line(Text(line, style=_DIFF_STYLES.get(line[:1], "")))
    if found:
        raise typer.Exit(1)


async def _differences(backend: Backend, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    found = {}
    for name, spec in specs.items():
        current = await _current(backend, name)
        before = [] if current is None else _lines(current["spec"])
        lines = difflib.unified_diff(before, _lines(spec), f"{name} (in force)", f"{name} (file)", lineterm="")
        if text := list(lines):
            found[name] = text
    return found


async def _current(backend: Backend, name: str) -> Mapping[str, Any] | None:
    try:
        return await backend.route(name)
    except UnknownRoute:
        return None


@commands.command("weights")
def set_weights(
    *,
    route: RouteArgument,
    weights: Annotated[
        list[str], typer.Argument(metavar="VERSION=WEIGHT...", help="The whole split: 3=95 4=5. Others get 0.")
    ],
    if_match: RevisionOption = None,
    json: JsonOption = False,
) -> None:
    """Set the whole split of a route; versions not named get 0."""
    output = Output.standard(machine=json)
    split = _parse_weights(weights)
    view = perform(lambda backend: backend.weights(route, split, expected=if_match))
    _changed(output, view, f"route {route} is split {_split_text(view)} (revision {view['revision']})")


@commands.command("rollback")
def roll_back(
    *,
    route: RouteArgument,
    to: Annotated[
        int | None, typer.Option("--to", metavar="VERSION", min=1, help="Go to this version instead of the known good.")
    ] = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")] = "",
    local: Annotated[
        bool, typer.Option("--local", help="On this replica at once; the store is told as soon as it answers.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Send everything to the known good at once and quarantine the route's other versions."""
    output = Output.standard(machine=json)
    view = perform(lambda backend: backend.rollback(route, to=to, reason=reason, local=local))
    durable = view.get("durable", True)
    late = "in force on this replica, the store is told next" if local else "in force, NOT durable: the store is away"
    where = f"revision {view['revision']}" if durable else late
    _changed(output, view, f"route {route} is back at {_split_text(view)} ({where})")
    if not json and (held := _quarantined(view)):
        output.note(f"Quarantined: {', '.join(map(str, held))}. End one with: turnout lift {route} VERSION")


@commands.command("lift")
def lift_quarantine(
    *,
    route: RouteArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version to let back.")],
    json: JsonOption = False,
) -> None:
    """End a version's quarantine on a route. It gets traffic again only when weights say so."""
    output = Output.standard(machine=json)
    view = perform(lambda backend: backend.lift(route, version))
    _changed(output, view, f"version {version} may serve route {route} again (revision {view['revision']})")


@commands.command("history")
def show_history(*, route: RouteArgument, json: JsonOption = False) -> None:
    """List every past document of a route, newest first."""
    output = Output.standard(machine=json)
    entries = perform(lambda backend: backend.history(route))
    if json:
        output.json(entries)
        return
    rows = [
        (
            entry["revision"],
            when_text(entry.get("written_at")),
            "deleted" if entry.get("spec") is None else _split_text(entry),
        )
        for entry in entries
    ]
    output.table(("REVISION", "WRITTEN", "SPLIT"), rows, empty=f"Route {route} has no history.")


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
        restore_version(route, output)
        return
    view = perform(lambda backend: backend.restore(route, revision))
    _changed(
        output, view, f"route {route} is as in revision {revision}: {_split_text(view)} (revision {view['revision']})"
    )


def _changed(output: Output, view: Mapping[str, Any], sentence: str) -> None:
    if output.machine:
        output.json(view)
    else:
        output.line(sentence)


def _same(current: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    return _lines(current) == _lines(spec)


def _lines(spec: Mapping[str, Any]) -> list[str]:
    """A spec as YAML in one fixed form: what is only a default left out, keys in the order of RouteSpec."""
    body = RouteSpec.parse(spec).to_json()
    return yaml.safe_dump(body, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120).splitlines()


def _parse_weights(pairs: list[str]) -> dict[int, int]:
    weights: dict[int, int] = {}
    for pair in pairs:
        match = _WEIGHT.fullmatch(pair)
        if match is None:
            raise CommandFailed(f"{pair!r}: expected VERSION=WEIGHT in whole numbers, like 3=95", status=USAGE)
        version, weight = int(match[1]), int(match[2])
        if version in weights:
            raise CommandFailed(f"version {version} is there twice; give it one weight", status=USAGE)
        weights[version] = weight
    return weights


def _summary(view: Mapping[str, Any]) -> tuple[object, ...]:
    spec, status = view["spec"], view["status"]
    held = _quarantined(view)
    return (
        view["route"],
        spec["model"],
        _split_text(view),
        status["known_good"],
        spec.get("fallback"),
        Text(", ".join(map(str, held)), style="red") if held else None,
        view["revision"],
    )


def _split_text(view: Mapping[str, Any]) -> str:
    """The split in force (or, of a past document, the one it asked for): ``3=95 4=5``."""
    arms = (view.get("status") or view["spec"])["split"]
    return " ".join(f"{arm['version']}={arm['weight']}" for arm in arms)


def _quarantined(view: Mapping[str, Any]) -> list[int]:
    return sorted(int(number) for number in view["status"]["quarantined"])
