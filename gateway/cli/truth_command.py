"""``turnout truth``: how right a route's versions are, by the labels that came, and by estimate before they come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.output import JsonOption, Output

__all__ = ["commands", "rows_of"]

commands = typer.Typer()

Json = Mapping[str, Any]

COLUMNS = ("VERSION", "OF", "MEASURE", "VALUE", "INTERVAL", "ROWS", "ESTIMATE")
ORDER = ("accuracy", "precision", "recall", "f1", "f1_macro", "auc", "brier", "ece", "mae", "rmse", "bias", "grade")
LEAST_ROWS = 10
"""Labelled rows without which a group is not shown by itself, as it is not compared: its interval says nothing."""
_MINUTE_S, _HOUR_S, _DAY_S = 60.0, 3600.0, 86400.0


@commands.command("truth")
def truth(
    *,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="The route's name.")],
    days: Annotated[
        int, typer.Option("--days", metavar="N", min=0, max=60, help="Of the answers of the last N days; 0: all kept.")
    ] = 7,
    json: JsonOption = False,
) -> None:
    """Show how right each version is, with intervals that hold however often you look."""
    output = Output.standard(machine=json)
    report = perform(lambda backend: backend.truth(route, days))
    if json:
        output.json(report)
        return
    for number, version in report["versions"].items():
        output.line(_arrived(number, version["arrival"]))
    output.table(COLUMNS, list(rows_of(report)), empty="No answer has been kept for its label yet.")
    for line in _gaps(report):
        output.line(line)
    output.note(f"intervals: {report['interval']}; estimates assume that scores are calibrated as they were")


def rows_of(report: Json) -> Iterator[Sequence[object]]:
    for number, version in report["versions"].items():
        estimated = (version.get("estimate") or {}).get("measures", {})
        names = {*version["measures"], *estimated}
        for name in sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name)):
            yield _row(number, "all", name, version["measures"].get(name), estimated.get(name))
        for cut, found in version["slices"].items():
            yield from _of_groups(number, cut, found["groups"])


def _of_groups(number: str, cut: str, groups: Json) -> Iterator[Sequence[object]]:
    small = rows = 0
    for part, group in groups.items():
        main = next((name for name in ORDER if name in group["measures"]), None)
        if main is None:
            continue
        if group["arrival"]["labelled"] < LEAST_ROWS:
            small, rows = small + 1, rows + group["arrival"]["labelled"]
            continue
        yield _row(number, f"{cut}={part}", main, group["measures"][main], None)
    if small:
        yield (number, f"{cut}: {small} of fewer than {LEAST_ROWS} rows", None, None, None, rows, None)


def _row(number: str, of: str, name: str, measure: Json | None, estimate: Json | None) -> Sequence[object]:
    guess = None if estimate is None else f"~{estimate['value']:.4g}"
    if measure is None:
        return (number, of, name, None, None, None, guess)
    low, high = (_end(measure[end]) for end in ("low", "high"))
    return (number, of, name, _end(measure["value"]), f"{low} to {high}", measure["units"], guess)


def _end(value: float | None) -> str:
    return "?" if value is None else f"{value:.4g}"


def _arrived(number: str, arrival: Json) -> str:
    share = f"{arrival['share']:.1%}" if arrival["share"] is not None else "none"
    said = f"version {number}: {arrival['labelled']} of {arrival['rows']} rows have their label ({share})"
    delay = arrival["delay_s"]["p50"]
    if delay is None:
        return said
    return f"{said}; half within {_time(delay)}, 99% within {_time(arrival['delay_s']['p99'])}"


def _time(seconds: float) -> str:
    for unit, size in (("d", _DAY_S), ("h", _HOUR_S), ("min", _MINUTE_S)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _gaps(report: Json) -> Iterator[str]:
    for number, version in report["versions"].items():
        for cut, found in version["slices"].items():
            for name, gap in found["gap"].items():
                yield (
                    f"version {number}, {cut}: {name} of {gap['highest']} is {gap['value']:.4g} above that of "
                    f"{gap['lowest']} ({gap['low']:.4g} to {gap['high']:.4g})"
                )
