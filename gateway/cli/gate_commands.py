"""Gates: what a model asks of its versions, and a run of them as anyone's CI wants it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from gateway.cli.connection import perform
from gateway.cli.failures import FAILED, USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text, when_text
from gateway.cli.references import reference
from gateway.errors import GateRefused
from gateway.registry.gates.junit import junit
from gateway.registry.offered import read_offered_json

__all__ = ["commands", "report_lines", "show_report"]

commands = typer.Typer()

_STYLES = {"passed": "green", "failed": "bold red", "error": "bold red", "skipped": "dim"}


@commands.command("gates")
def gates(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    file: Annotated[
        Path | None, typer.Option("--file", "-f", metavar="FILE", help="YAML or JSON with the gates; files beside it.")
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Ask nothing of its versions any more.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a version must pass before an alias, a rollout or a target takes it, or say it (role admin)."""
    output = Output.standard(machine=json)
    if file is not None and remove:
        raise CommandFailed("-f and --remove at once; give one of them", status=USAGE)
    if file is not None:
        body, folder = read_offered_json(file, "gates file"), file.parent
        with output.steps() as steps:
            found = perform(lambda backend: backend.put_gates(model, body, folder, steps))
    elif remove:
        found = perform(lambda backend: backend.drop_gates(model))
    else:
        found = perform(lambda backend: backend.gates(model))
    if json:
        output.json(found)
    else:
        _show_declared(output, found)


@commands.command("gate")
def gate(
    *,
    version: Annotated[str, typer.Argument(metavar="MODEL/VERSION", help="By number, @alias or @sha256:…")],
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="VERSION", help="Compare with this one: a number or an alias."),
    ] = None,
    junit_file: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Also write the report as JUnit XML.")
    ] = None,
    last: Annotated[bool, typer.Option("--last", help="Run nothing: show what was found last.")] = False,
    json: JsonOption = False,
) -> None:
    """Run the gates of a version now, and say what each found. Exit status 0: it passes; 1: it does not."""
    output = Output.standard(machine=json)
    model, selector = reference(version)
    if selector is None:
        raise CommandFailed(f"{version!r} names no version; write {model}/3 or {model}@alias", status=USAGE)
    if last:
        report = _last(output, model, selector)
    else:
        with output.steps(counted=True) as steps:
            view = perform(lambda backend: backend.run_gates(model, selector, against, steps))
        report = view["report"]
    if junit_file is not None:
        _write(junit_file, junit(report))
    if json:
        output.json(report)
    else:
        show_report(output, report)
    if not report["passed"]:
        raise typer.Exit(FAILED)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CommandFailed(f"the report cannot be written to {path}: {error.strerror}") from error


def _last(output: Output, model: str, selector: str) -> Mapping[str, Any]:
    found = perform(lambda backend: backend.gate_results(model, selector))
    if found["report"] is None:
        raise CommandFailed(found["problem"] or f"the gates of {model}/{found['version']} were never run: turnout gate")
    for one in found["results"]:
        if one.get("overridden"):
            output.note(
                f"Overridden for {one['purpose']} by {one['by']} at {when_text(one['at'])}: {one['overridden']}"
            )
    report: Mapping[str, Any] = found["report"]
    return report


def show_report(output: Output, report: Mapping[str, Any]) -> None:
    """A row for each gate, and the verdict."""
    rows = [
        (
            gate["name"],
            Text(gate["state"], style=_STYLES.get(gate["state"], "")),
            f"{gate['took_s']:.1f} s",
            gate["said"],
        )
        for gate in report["gates"]
    ]
    output.table(("GATE", "STATE", "TOOK", "FOUND"), rows, empty="No gates.")
    against = report.get("against")
    beside = f", beside {report['model']}/{against['version']}" if against else ""
    verdict = "passes" if report["passed"] else "does not pass"
    output.line(f"{report['model']}/{report['version']} {verdict}{beside} ({report['digest'][:19]})")


def report_lines(refused: GateRefused) -> list[str]:
    """What a refusal carries, for people: the gates that refused, with their numbers."""
    gates = refused.report.get("gates") or []
    return [f"  {one['name']}: {one['said']}" for one in gates if one["state"] in ("failed", "error")]


def _show_declared(output: Output, found: Mapping[str, Any]) -> None:
    declared = found["gates"]
    if declared is None:
        output.note(f"Model {found['model']} asks nothing of its versions.")
        return
    pairs = [("model", found["model"]), ("digest", found["digest"]), ("champion", f"@{declared['champion']}")]
    pairs += [
        (name.removesuffix("_h") + " for" if name == "fresh_h" else "looked at every", f"{declared[name]:g} h")
        for name in ("fresh_h", "revalidate_h")
        if name in declared
    ]
    output.fields(pairs)
    data = [
        (name, one["file"]["name"], bytes_text(one["file"]["size_bytes"]), one["label"], one["file"]["digest"][:19])
        for name, one in declared["data"].items()
    ]
    if data:
        output.table(("DATA", "FILE", "SIZE", "LABEL", "DIGEST"), data, empty="")
    rows = [(one["name"], one["kind"], _asked(one)) for one in declared["gates"]]
    output.table(("GATE", "KIND", "ASKS"), rows, empty="")


def _asked(gate: Mapping[str, Any]) -> str:
    told = {key: value for key, value in gate.items() if key not in ("name", "kind")}
    if isinstance(told.get("file"), Mapping):
        told["file"] = told["file"]["name"]
    return ", ".join(f"{key} {value}" for key, value in told.items()) or "-"
