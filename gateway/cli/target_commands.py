"""Targets: promote along the path, demote, and see what stands where."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gateway.cli.backend import Backend, TargetMove
from gateway.cli.connection import perform
from gateway.cli.failures import FAILED
from gateway.cli.output import JsonOption, Output, when_text
from gateway.cli.references import numbered, reference

__all__ = ["ConfigOption", "OverrideOption", "ReasonOption", "commands", "promote_to"]

commands = typer.Typer()

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the history and the audit.")]
OverrideOption = Annotated[
    str | None,
    typer.Option("--override", metavar="TEXT", help="Pass gates that refuse, and why (role admin; audited)."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="On a home: the settings whose targets and gates are meant."),
]


def promote_to(output: Output, move: TargetMove, selector: str, config: Path | None) -> None:
    """``turnout promote MODEL/3 --to TARGET``. Exit status 1 also when a rollout that should begin did not."""

    async def work(backend: Backend) -> Mapping[str, Any]:
        number = int((await backend.version(move.model, selector))["version"])
        return await backend.promote_to(TargetMove(move.model, number, move.target, move.reason, move.override))

    found = perform(work, config=config)
    if output.machine:
        output.json(found)
    else:
        _say_promoted(output, found)
    if any(not rollout["started"] for rollout in found["rollouts"]):
        raise typer.Exit(FAILED)


def _say_promoted(output: Output, found: Mapping[str, Any]) -> None:
    version, target = f"{found['model']}/{found['version']}", found["target"]
    before = found["before"]
    instead = f", in place of {found['model']}/{before}" if before not in (None, found["version"]) else ""
    output.line(
        f"{version} stands in {target}{instead}" if found["changed"] else f"{version} stands in {target} already"
    )
    overridden = (found["standing"].get("gates") or {}).get("overridden")
    if overridden and found["changed"]:
        output.note(f"Its gates were overridden: {overridden}")
    for rollout in found["rollouts"]:
        if rollout["started"]:
            output.line(f"route {rollout['route']}: rollout {rollout['rollout']} has begun")
        else:
            output.note(f"Route {rollout['route']}: no rollout has begun: {rollout['problem']}")


@commands.command("demote")
def demote_version(
    *,
    version: Annotated[str, typer.Argument(metavar="MODEL/3", help="A version by number.")],
    target: Annotated[str, typer.Option("--from", metavar="TARGET", help="The target that it shall not answer in.")],
    reason: ReasonOption = "",
    roll_back: Annotated[
        bool, typer.Option("--roll-back", help="Routes of the target that it answers on go to their known good first.")
    ] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Take a version out of a target; where it stood, the one promoted before it stands again."""
    output = Output.standard(machine=json)
    model, number = numbered(version)
    move = TargetMove(model, number, target, reason)
    found = perform(lambda backend: backend.demote_from(move, roll_back=roll_back), config=config)
    if json:
        output.json(found)
        return
    for route in found["rolled_back"]:
        output.line(f"route {route} went back to its known good")
    standing = found["standing"]
    stands = "nothing stands there now" if standing is None else f"{model}/{standing['number']} stands there"
    output.line(f"{model}/{number} is out of {target}; {stands}")


@commands.command("targets")
def show_targets(
    *,
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="One model, with its history.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Of MODEL: what stood where when, newest first.")] = False,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Show the targets in the order of their path, and what stands in each."""
    output = Output.standard(machine=json)
    if model is None:
        _show_all(output, config)
        return
    name, _ = reference(model)
    found = perform(lambda backend: backend.targets_of(name), config=config)
    if json:
        output.json(found)
    elif history:
        _show_history(output, found)
    else:
        _show_model(output, found)


def _show_all(output: Output, config: Path | None) -> None:
    found = perform(lambda backend: backend.targets(), config=config)
    if output.machine:
        output.json(found)
        return
    rows = [
        (
            row["target"],
            ", ".join(row["from"]) or "any version",
            row["role"],
            row["gates"],
            [f"{model}/{at['version']}" for model, at in row["models"].items() if at["version"] is not None] or None,
        )
        for row in found
    ]
    output.table(
        ("TARGET", "FROM", "ROLE", "GATES", "STANDS"),
        rows,
        empty="The settings name no targets (targets: in the configuration; --config FILE on a home).",
    )


def _show_model(output: Output, found: Mapping[str, Any]) -> None:
    rows = [
        (
            row["target"],
            row["version"],
            when_text(row["standing"]["at"]) if row["standing"] else None,
            row["standing"]["by"] if row["standing"] else None,
            _passed(row["standing"]) if row["standing"] else None,
            [f"{name} {_split(route)}" for name, route in row["routes"].items()] or None,
            [number for number in row["admitted"] if number != row["version"]] or None,
        )
        for row in found["targets"]
    ]
    head = ("TARGET", "STANDS", "SINCE", "BY", "GATES", "ROUTES", "MAY STAND")
    output.table(head, rows, empty="The settings name no targets.")
    for number, names in found["next"].items():
        if names:
            output.note(f"{found['model']}/{number} may go to {', '.join(names)} next.")


def _split(route: Mapping[str, Any]) -> str:
    split = " ".join(f"{number}={weight}" for number, weight in route["split"].items())
    return f"{split} (rolling out {route['rolling_out']})" if route["rolling_out"] else split


def _passed(standing: Mapping[str, Any]) -> str:
    gates = standing.get("gates") or {}
    if "overridden" in gates:
        return f"overridden: {gates['overridden']}"
    return str(gates["record"])[:19] if "record" in gates else "none asked"


def _show_history(output: Output, found: Mapping[str, Any]) -> None:
    stays = [
        (row["target"], stay)
        for row in found["targets"]
        for stay in ([row["standing"]] if row["standing"] else []) + list(row["past"])
    ]
    stays.sort(key=lambda stay: stay[1]["at"], reverse=True)
    rows = [
        (
            target,
            stay["number"],
            when_text(stay["at"]),
            when_text(stay["until"]) if "until" in stay else "now",
            f"{stay['by']} ({stay['how']})",
            stay.get("from"),
            stay.get("reason"),
            _passed(stay),
            f"{stay['ended']} by {stay['ended_by']}" if "ended" in stay else None,
        )
        for target, stay in stays
    ]
    head = ("TARGET", "VERSION", "FROM", "UNTIL", "BY", "OUT OF", "REASON", "GATES", "ENDED")
    output.table(head, rows, empty=f"No version of {found['model']} has stood in a target.")
