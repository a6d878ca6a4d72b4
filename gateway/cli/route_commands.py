"""Routes: see them, change what answers, go back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, when_text

__all__ = ["RevisionOption", "commands", "show_change", "split_text"]

commands = typer.Typer()

RouteArgument = Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.")]
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
    show_change(output, view, f"route {route} is split {split_text(view)} (revision {view['revision']})")


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
    show_change(output, view, f"route {route} is back at {split_text(view)} ({where})")
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
    show_change(output, view, f"version {version} may serve route {route} again (revision {view['revision']})")


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
            "deleted" if entry.get("spec") is None else split_text(entry),
        )
        for entry in entries
    ]
    output.table(("REVISION", "WRITTEN", "SPLIT"), rows, empty=f"Route {route} has no history.")


def show_change(output: Output, view: Mapping[str, Any], sentence: str) -> None:
    if output.machine:
        output.json(view)
    else:
        output.line(sentence)


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
        split_text(view),
        status["known_good"],
        spec.get("fallback"),
        Text(", ".join(map(str, held)), style="red") if held else None,
        view["revision"],
    )


def split_text(view: Mapping[str, Any]) -> str:
    """The split in force (or, of a past document, the one it asked for): ``3=95 4=5``."""
    arms = (view.get("status") or view["spec"])["split"]
    return " ".join(f"{arm['version']}={arm['weight']}" for arm in arms)


def _quarantined(view: Mapping[str, Any]) -> list[int]:
    return sorted(int(number) for number in view["status"]["quarantined"])
