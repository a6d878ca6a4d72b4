"""Routes out of a file: made so, or compared with what is in force."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from gateway.cli.backend import Backend
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output
from gateway.cli.route_commands import RevisionOption
from gateway.cli.route_files import read_route_file
from gateway.control.route_spec import RouteSpec
from gateway.errors import TurnoutError, UnknownRoute

__all__ = ["commands"]

commands = typer.Typer()

FileOption = Annotated[
    Path, typer.Option("--file", "-f", metavar="FILE", help="YAML with route documents; - reads standard input.")
]
_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


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


def _same(current: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    return _lines(current) == _lines(spec)


def _lines(spec: Mapping[str, Any]) -> list[str]:
    """A spec as YAML in one fixed form: what is only a default left out, keys in the order of RouteSpec."""
    body = RouteSpec.parse(spec).to_json()
    return yaml.safe_dump(body, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120).splitlines()
