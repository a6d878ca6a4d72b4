"""``turnout drift``: how far what a route's versions see and answer is from their references, and whose fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.output import JsonOption, Output

__all__ = ["commands", "rows_of"]

commands = typer.Typer()

Json = Mapping[str, Any]

COLUMNS = ("FEATURE", "STATE", "EFFECT", "EVIDENCE", "PSI", "NO DRIFT", "ROWS", "SINCE", "BLAME")
ROWS_SHOWN = 12
_PLAIN = 0.5
"""Deviations that anybody would want to know of."""


@commands.command("drift")
def drift(
    *,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.")],
    every: Annotated[bool, typer.Option("--all", help="Every feature, not only the furthest ones.")] = False,
    json: JsonOption = False,
) -> None:
    """Show drift per version and feature. Exit status: 0 without an alarm, 1 while one stands."""
    output = Output.standard(machine=json)
    report = perform(lambda backend: backend.drift(route))
    if json:
        output.json(report)
    else:
        _told(output, report, every=every)
    if any(version["state"] == "alarm" for version in (*report["versions"], *report["arms"])):
        raise typer.Exit(1)


def _told(output: Output, report: Json, *, every: bool) -> None:
    for version in report["versions"]:
        output.line(sentence(version))
        rows = list(rows_of(version))
        output.table(COLUMNS, rows if every else rows[:ROWS_SHOWN], empty="nothing of it is watched")
        if len(rows) > ROWS_SHOWN and not every:
            output.note(f"{len(rows) - ROWS_SHOWN} more features are closer to the reference; --all shows them")
        _alarms(output, version["features"] + version["whole"])
        for words in version.get("given", ()):
            output.note(words)
    for pair in report["arms"]:
        output.line(
            f"inputs of version {pair['version']} beside those of {pair['known_good']}: {_state(pair['state'])}"
        )
        _alarms(output, pair["features"])
    for pair in report.get("not_compared", ()):
        output.note(f"inputs of version {pair['version']} beside those of {pair['known_good']}: {pair['why']}")
    for number in report["without_profile"]:
        output.note(
            f"version {number} has no reference profile: register it with --reference, or make one from traffic: "
            f"turnout profile MODEL/{number} --from-traffic {report['route']}"
        )


def sentence(version: Json) -> str:
    """A version in one line: what is known of it, and of how many rows."""
    told = f"{version['model']}/{version['version']}: {_state(version['state'])}"
    possible = version.get("possible_effect")
    if version["state"] == "quiet" and possible is not None and possible > _PLAIN:
        told += f" as far as its rows tell: {possible:.1f} deviations are possible yet"
    if "rows" not in version:
        return told
    rows, budget = version["rows"], version["budget"]
    sampling = "" if rows["sampling"] is None else f" ({rows['sampling']:.0%} of {rows['seen']:,})"
    rates = f"{budget['promised_per_90_days']:.2g} false alarms promised in 90 days"
    for kind, words in (("simulated", "simulated"), ("held_out", "on reference rows held out")):
        if (rate := budget.get(f"{kind}_per_90_days")) is not None:
            rates += f", {rate:.2g} {words}"
    if budget.get("parts_differ"):
        rates += ": parts of the reference differ from each other, and alarms will come of that"
    return f"{told} | {rows['counted']:,} rows counted{sampling}, {rows['reference']:,} in the reference | {rates}"


def _state(state: str) -> str:
    words = {
        "alarm": "ALARM",
        "minor": "moved, less than matters",
        "quiet": "as in the reference",
        "no-data": "no data yet (a look each telemetry.drift.look_s seconds takes in what ran since the last)",
    }
    return words.get(state, state.replace("-", " "))


def rows_of(version: Json) -> Iterator[Sequence[object]]:
    """A table's row for each block and feature, the furthest first."""
    for row in (*version["whole"], *version["features"]):
        effect, statistics = row["effect"], row["statistics"]
        high = "" if effect["high"] is None else f"{effect['high']:.2f}"
        yield (
            row["feature"],
            row["state"],
            f"{effect['value']:.2f} ({effect['low']:.2f}…{high})",
            f"{row['evidence_nats']:.1f}/{row['threshold_nats']:.1f}",
            _number(statistics.get("psi")),
            _number(statistics.get("psi_expected")),
            f"{row['window']['rows']:,}",
            row["since"] or "-",
            row["blame"] or "-",
        )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _alarms(output: Output, rows: Sequence[Json]) -> None:
    """What is to be done, once for each kind of blame."""
    told = set()
    for row in rows:
        if row["state"] != "alarm":
            continue
        output.line(f"  {row['feature']}: {row['cause'] or 'moved'} (since about {row['began_about']})")
        if row["advice"] and row["blame"] not in told:
            told.add(row["blame"])
            output.line(f"  {row['blame']}: {row['advice']}.")
