"""``turnout record``: a training as it stands, run by its own command, with its lineage beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from gateway.cli.backend import Registration
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output
from gateway.environment import watched_environment
from gateway.registry.attachments import read_evaluation
from gateway.registry.lineage.command import CommandRun, run_recorded
from gateway.registry.lineage.kinds import read_kinds
from gateway.registry.names import check_model_name
from gateway.registry.offered import read_offered_json

__all__ = ["commands"]

commands = typer.Typer()


@commands.command("record", context_settings={"allow_interspersed_args": False})
def record_command(
    *,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="The training: python train.py ...")],
    model: Annotated[str | None, typer.Option("--model", metavar="MODEL", help="The model that is trained.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", metavar="FILE", help="Where the lineage goes; MODEL.lineage.json here.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="NAME=PATH", help="A data input that is not seen, or shall have this name."),
    ] = None,
    made: Annotated[
        list[str] | None, typer.Option("--output", metavar="FILE", help="What it makes outside this folder.")
    ] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter; may be given several times.")
    ] = None,
    params: Annotated[
        Path | None,
        typer.Option("--params", metavar="FILE", help="Parameters in a JSON or YAML file; read at the end."),
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option("--metrics", metavar="FILE", help="Metrics that it writes: as register --eval takes.")
    ] = None,
    parent: Annotated[
        str | None, typer.Option("--parent", metavar="MODEL/3", help="The version that this one grows out of.")
    ] = None,
    notes: Annotated[str | None, typer.Option("--notes", metavar="TEXT", help="Kept with the version.")] = None,
    no_patch: Annotated[
        bool, typer.Option("--no-patch", help="Of changes that are not committed, keep the digest alone.")
    ] = False,
    register: Annotated[
        str | None, typer.Option("--register", metavar="SOURCE", help="Then register what it made, with the lineage.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a training and record its lineage: code, data, environment, what it makes. Ends with its exit status."""
    output = Output.standard(machine=json)
    if register is not None and model is None:
        raise CommandFailed("--register needs --model MODEL: what shall be registered as which model?", status=USAGE)
    name = check_model_name(model) if model is not None else None
    target = file or Path(f"{name}.lineage.json" if name else "lineage.json")
    run = CommandRun(name or "", target.absolute(), parent, None, notes, keep_patch=not no_patch, identify=True)
    inputs, given = _pairs(data or [], "--data"), _pairs(param or [], "--param")
    for label, path in inputs.items():
        if not Path(path).exists():
            raise CommandFailed(f"--data {label}={path}: there is no such file or folder", status=USAGE)

    def told() -> None:
        for label, path in inputs.items():
            run.data(label, Path(path))
        _tell(run, given, params, metrics, made or ())

    finished = run_recorded(run, command, Path.cwd(), watched_environment, told)
    for note in finished.notes:
        output.note(note)
    if finished.lineage is None:
        output.note(f"the training ended with status {finished.status}; no lineage was written")
        raise typer.Exit(finished.status)
    registered = None if register is None or name is None else _register(output, name, register, target)
    _report(output, target, finished.lineage, registered)


def _tell(
    run: CommandRun,
    parameters: Mapping[str, str],
    params: Path | None,
    metrics: Path | None,
    made: Sequence[str],
) -> None:
    """What files say that the training may have written."""
    if params is not None:
        body = read_offered_json(params, "parameters")
        if not isinstance(body, Mapping):
            raise CommandFailed(f"parameters {params}: expected an object")
        run.parameters(body)
    run.parameters({name: _value(text) for name, text in parameters.items()})
    for path in made:
        run.output(path)
    for row in () if metrics is None else read_evaluation(metrics):
        run.metric(row.metric, row.value, n=row.n, interval=row.interval, slice=row.slice, dataset=row.dataset)


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CommandFailed(f"{option} {text!r}: expected NAME=VALUE", status=USAGE)
        pairs[name] = value
    return pairs


def _value(text: str) -> Any:
    """A number, true, false or null as JSON has them; else the text."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def _register(output: Output, model: str, source: str, lineage: Path) -> Mapping[str, Any]:
    registration = Registration(model=model, source=source, lineage=lineage)
    with output.steps() as steps:
        return perform(lambda backend: backend.register(registration, steps), creates=True)


def _report(output: Output, file: Path, lineage: Mapping[str, Any], registered: Mapping[str, Any] | None) -> None:
    evaluation = lineage.get("evaluation") or ()
    kinds = read_kinds(lineage, evaluation)
    if output.machine:
        output.json({"file": str(file), "digests": dict(kinds.digests), "registered": registered, "lineage": lineage})
        return
    state = {True: "clean", False: "with changes that are not committed", None: "no repository"}[kinds.code.clean]
    output.note(
        f"{file}: code {(kinds.code.commit or 'without a commit')[:16]} ({state}), {len(kinds.data)} data inputs, "
        f"{len(kinds.environment.packages)} packages, {len(kinds.run.outputs)} outputs, {len(evaluation)} metrics"
    )
    if registered is not None:
        output.line(f"{registered['model']}/{registered['version']}: {registered['digest']}")
    else:
        output.note(f"Register what it made with: turnout register MODEL SOURCE --lineage {file}")
