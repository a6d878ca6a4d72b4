"""``turnout rollout``: begins a rollout, watches it, steers it, and prints what was written of one that has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.live import Live

from gateway.cli.backend import Backend
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output
from gateway.cli.rollout_view import picture, sentence
from gateway.cli.target_commands import OverrideOption
from gateway.control.rollout_report_text import report_text
from gateway.errors import NotFound
from gateway.yaml_reading import read_yaml

__all__ = ["commands"]

commands = typer.Typer()

Json = Mapping[str, Any]
LOOK_EVERY_S = 0.5
REPORT_S = 15.0


@commands.command("rollout")
def rollout(
    *,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.")],
    version: Annotated[int | None, typer.Argument(metavar="[VERSION]", min=1, help="The candidate.")] = None,
    steps: Annotated[
        str | None, typer.Option("--steps", metavar="PERCENTS", help="Weights to climb: 1,5,25,50,100.")
    ] = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="YAML with a plan; - reads standard input.")
    ] = None,
    preset: Annotated[str | None, typer.Option("--preset", metavar="NAME", help="careful, or blue-green.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show how it goes until it ends.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Show the rollout that runs, or the last one.")] = False,
    promote: Annotated[bool, typer.Option("--promote", help="Go on to the next step now.")] = False,
    full: Annotated[bool, typer.Option("--full", help="With --promote: to the bake at once.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Stay at this step; harm still ends it.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a pause.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Go back to the weights before it.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Print the report of the last that has ended.")] = False,
    override: OverrideOption = None,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, with --pause and --abort.")] = "",
    if_match: Annotated[
        int | None,
        typer.Option("--if-match", metavar="REVISION", min=0, help="Refuse unless the route stands at this revision."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Move weight to a version step by step, judged by evidence. Exit status with --watch: 0 promoted, 1 otherwise."""
    output = Output.standard(machine=json)
    chosen = [name for name, on in (("promote", promote), ("pause", pause), ("resume", resume)) if on]
    chosen += [name for name, on in (("abort", abort), ("report", report), ("status", status)) if on]
    if len(chosen) > 1:
        raise CommandFailed(f"--{chosen[0]} and --{chosen[1]} at once; give one of them", status=USAGE)
    _meant(chosen, begins=version is not None or plan is not None, steps=steps, preset=preset, full=full, reason=reason)
    if version is not None or plan is not None:
        if chosen:
            raise CommandFailed(f"--{chosen[0]} is for a rollout that runs; leave version and plan out", status=USAGE)
        body = _plan(version, steps, plan, preset)
        view = perform(lambda backend: backend.start_rollout(route, body, expected=if_match, override=override))
        _told(output, view, began=True, quiet=watch)
    elif override is not None:
        raise CommandFailed("--override is for a rollout that begins; name its version too", status=USAGE)
    elif "report" in chosen:
        found = perform(lambda backend: backend.rollout_report(route, "last"))
        output.json(found) if json else output.line(report_text(found).rstrip("\n"))
        return
    elif chosen and chosen != ["status"]:
        verb = chosen[0]
        view = perform(lambda backend: _steer(backend, route, verb, full=full, reason=reason, expected=if_match))
        _told(output, view, quiet=watch)
    elif not watch:
        _told(output, perform(lambda backend: backend.rollout(route)))
    if watch:
        _watch(output, route)


def _meant(chosen: list[str], *, begins: bool, steps: str | None, preset: str | None, full: bool, reason: str) -> None:
    """No option is passed over in silence."""
    for name, given in (("--steps", steps), ("--preset", preset)):
        if given is not None and not begins:
            raise CommandFailed(f"{name} is for a rollout that begins; name its version too", status=USAGE)
    if full and chosen != ["promote"]:
        raise CommandFailed("--full goes with --promote", status=USAGE)
    if reason and chosen not in (["pause"], ["abort"]):
        raise CommandFailed("--reason goes with --pause or --abort", status=USAGE)


def _plan(version: int | None, steps: str | None, path: Path | None, preset: str | None) -> dict[str, Any]:
    """Options over the file's words."""
    body = {} if path is None else _read(path)
    if version is not None:
        body["candidate"] = version
    if preset is not None:
        body["preset"] = preset
    if steps is not None:
        try:
            body["steps"] = [float(part) for part in steps.split(",")]
        except ValueError:
            raise CommandFailed(f"--steps {steps!r}: expected percents like 1,5,25,50,100", status=USAGE) from None
    return body


def _read(path: Path) -> dict[str, Any]:
    try:
        text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text(encoding="utf-8")
        body = read_yaml(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{path}: not valid YAML: {' '.join(str(error).split())}", status=USAGE) from None
    if not isinstance(body, dict):
        raise CommandFailed(f"{path}: expected a plan with a candidate, got {type(body).__name__}", status=USAGE)
    return {str(name): value for name, value in body.items()}


async def _steer(backend: Backend, route: str, verb: str, *, full: bool, reason: str, expected: int | None) -> Json:
    verbs: Mapping[str, Callable[[], Awaitable[Json]]] = {
        "promote": lambda: backend.promote_rollout(route, full=full, expected=expected),
        "pause": lambda: backend.pause_rollout(route, reason=reason, expected=expected),
        "resume": lambda: backend.resume_rollout(route, expected=expected),
        "abort": lambda: backend.abort_rollout(route, reason=reason, expected=expected),
    }
    return await verbs[verb]()


def _told(output: Output, view: Json, *, began: bool = False, quiet: bool = False) -> None:
    if output.machine:
        if not quiet:
            output.json(view)
        return
    if began or quiet:
        output.line(sentence(view))
    else:
        output.results.print(picture(view))
    if began and not quiet:
        output.note(f"Watch it with: turnout rollout {view['route']} --watch")


def _watch(output: Output, route: str) -> None:
    """Until it ends; then its report. Leaving the watch leaves the rollout alone."""

    async def look(backend: Backend) -> tuple[Json, Json | None]:
        view = await backend.rollout(route)
        moving = output.results.is_terminal and not output.machine
        told = ""
        with Live(
            picture(view), console=output.results, refresh_per_second=4, transient=True, auto_refresh=moving
        ) as live:
            while view["running"]:
                await asyncio.sleep(LOOK_EVERY_S)
                view = await backend.rollout(route)
                if moving:
                    live.update(picture(view))
                elif not output.machine and (now := sentence(view)) != told:
                    told = now
                    output.line(now)
        return view, await _written(backend, route, str(view["rollout"]["id"]))

    view, report = perform(look)
    if output.machine:
        output.json(report or view)
    else:
        output.line(sentence(view) if report is None else report_text(report).rstrip("\n"))
    if view["rollout"]["phase"] != "promoted":
        raise typer.Exit(1)


async def _written(backend: Backend, route: str, rollout_id: str) -> Json | None:
    """The report, once the driver has written it."""
    for _ in range(int(REPORT_S / LOOK_EVERY_S)):
        try:
            return await backend.rollout_report(route, rollout_id)
        except NotFound:
            await asyncio.sleep(LOOK_EVERY_S)
    return None
