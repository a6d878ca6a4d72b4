"""``turnout reproduce``: a folder with what is needed to train a version again, and the training itself with --run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gateway.cli.backend import Json
from gateway.cli.connection import perform
from gateway.cli.failures import FAILED, USAGE, CommandFailed
from gateway.cli.lineage_commands import chosen
from gateway.cli.model_commands import VersionArgument
from gateway.cli.output import JsonOption, Output
from gateway.environment import child_environment, client_settings
from gateway.errors import TurnoutError
from gateway.registry.lineage.reproduction.asked import Asked, Check
from gateway.registry.lineage.reproduction.folder import Reproduction, reproduce
from gateway.registry.lineage.reproduction.training import TrainedAgain, command_of, train_again
from gateway.registry.opening import open_blobs
from gateway.settings import load_settings

__all__ = ["commands"]

commands = typer.Typer()

_COLOURS = {"ok": "green", "same": "green", "differs": "yellow", "missing": "red", "unknown": "dim"}


@commands.command("reproduce")
def reproduce_version(
    *,
    version: VersionArgument,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[FOLDER]", help="A new folder; reproduce-MODEL-3 without it.")
    ] = None,
    run: Annotated[
        bool, typer.Option("--run", help="Train again by the recorded command, and compare the files. It runs as you.")
    ] = False,
    python: Annotated[
        str, typer.Option("--python", metavar="PYTHON", help="The interpreter to check, and to train with.")
    ] = sys.executable,
    repository: Annotated[
        str | None, typer.Option("--repository", metavar="PLACE", help="Where the commit is, if not where it was.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="NAME=PLACE", help="Where a data input is; may be given several times."),
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=1, help="End the training after this long.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Write what is needed to train a version again (commit, data, parameters, lock file), check it, and train."""
    output = Output.standard(machine=json)
    found = perform(lambda backend: chosen(backend, version))
    target = folder or Path(f"reproduce-{found['model']}-{found['version']}")
    asked = Asked(target.absolute(), Path.cwd(), python, repository, _places(data or []))
    made = reproduce(found, asked)
    if not json:
        _print_checks(output, made)
    trained = _train(output, made, found, python, timeout_s) if run else None
    if json:
        output.json({**made.to_json(), "trained": None if trained is None else trained.to_json()})
    if not (trained.same if trained is not None else made.complete):
        raise typer.Exit(FAILED)


def _places(pairs: Sequence[str]) -> dict[str, Path]:
    places = {}
    for pair in pairs:
        name, equals, place = pair.rpartition("=")
        if not equals or not name or not place:
            raise CommandFailed(
                f"--data {pair!r}: expected NAME=PLACE, like --data train.csv=/data/a.csv", status=USAGE
            )
        places[name] = Path(place).absolute()
    return places


def _print_checks(output: Output, made: Reproduction) -> None:
    for check in made.checks:
        output.line(_check_line(check))
    whole = "code and data are as they were" if made.complete else "code or data are not all here as they were"
    output.line(f"{made.folder}: {whole}")


def _check_line(check: Check) -> Text:
    return Text(f"{check.state:<8}", style=_COLOURS[check.state]).append(f"{check.what}  ").append(check.detail, "dim")


def _train(output: Output, made: Reproduction, version: Json, python: str, timeout_s: float | None) -> TrainedAgain:
    command = command_of(made, python)
    output.note(f"training: {shlex.join(command)} (its words: {made.folder / 'training.log'})")
    environment = child_environment(made.folder / "home")
    trained = train_again(made, version, python, environment=environment, stored=_stored(), timeout_s=timeout_s)
    if not output.machine:
        _print_trained(output, trained)
    return trained


def _stored() -> Callable[[str], Path | None]:
    """A version's file where it is on this machine; over HTTP its digest has to do."""
    client = client_settings()
    if client.url is not None or not client.home.is_dir():
        return lambda _: None
    blobs = open_blobs(load_settings(overrides={"home": client.home}))

    def stored(digest: str) -> Path | None:
        try:
            path = blobs.path(digest)
        except TurnoutError:
            return None
        return path if path.is_file() else None

    return stored


def _print_trained(output: Output, trained: TrainedAgain) -> None:
    if trained.status:
        output.line(Text(f"the training ended with status {trained.status}", style="red"))
        return
    for file in trained.files:
        line = Text(f"{file.state:<8}", style=_COLOURS[file.state]).append(f"{file.name}  ")
        output.line(line.append(file.before if file.state == "same" else f"{file.before} → {file.after}", "dim"))
        for difference in file.differences:
            output.line(f"          {difference}")
    for metric in trained.metrics:
        output.line(f"metric    {metric}")
    output.line(
        "trained again: every file is the same" if trained.same else "trained again: not every file is the same"
    )
