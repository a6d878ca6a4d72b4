"""The decision log: one decision, many by SQL, and proof that none was altered, removed or cut off."""

from __future__ import annotations

import importlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gateway.checkpoints import DECISIONS, Checkpoint, SigningKey, VerifyingKey, read_notes
from gateway.cli.connection import local_home, perform
from gateway.cli.failures import FAILED, CommandFailed
from gateway.cli.output import JsonOption, Output
from gateway.environment import client_settings
from gateway.errors import InvalidInput
from gateway.telemetry.decisions.notes import NOTES_FILE
from gateway.telemetry.decisions.segments import FOLDER
from gateway.telemetry.decisions.signers import signing_faults

__all__ = ["commands"]

commands = typer.Typer()

_SQL = "gateway.telemetry.decisions.sql"
_VERIFY = "gateway.telemetry.decisions.verify"
"""Imported when asked for: pyarrow and DuckDB are extras."""

_SHOWN = ("decision", "at", "route", "answered", "code", "reason", "duration_us", "request")
_SHOWN_OF_SQL = ("decision", "started", "route", "answered", "code", "reason", "duration_us", "request")
_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class _ShowFirst(TyperGroup):
    """What is no command's name is a decision's: ``turnout decisions ID``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


decisions = typer.Typer(
    cls=_ShowFirst,
    help="Show decisions: which version answered, by which bytes, and why. `turnout decisions ID` and"
    " `turnout decisions --where SQL` are short for `show`, whose help has all options.",
)
commands.add_typer(decisions, name="decisions")


@decisions.command("show")
def show(
    *,
    name: Annotated[str | None, typer.Argument(metavar="[ID]", help="A decision's id, or a request's.")] = None,
    where: Annotated[str | None, typer.Option("--where", metavar="SQL", help="A condition on the fields.")] = None,
    sql: Annotated[str | None, typer.Option("--sql", metavar="QUERY", help="A whole query over `decisions`.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="AGO", help="Not older than 90s, 15m, 6h or 2d.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The newest N.")] = 50,
    json: JsonOption = False,
) -> None:
    """Show one decision, or the newest that fit. SQL is run by DuckDB on the log's files, also without a gateway."""
    output = Output.standard(machine=json)
    begin = None if since is None else _begin(since)
    if name is not None:
        found = perform(lambda backend: backend.decision(name))
        output.json(found) if json else output.fields(_facts(found))
    elif where is None and sql is None:
        _tabulate(output, _SHOWN, perform(lambda backend: backend.decisions(since=begin, limit=limit)))
    else:
        home = local_home("a question in SQL")
        answer = _asked(home / FOLDER, sql) if sql is not None else _newest(home / FOLDER, where, begin, limit)
        rows = [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
        _tabulate(output, answer.columns if sql is not None else _SHOWN_OF_SQL, rows)


def _tabulate(output: Output, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    if output.machine:
        output.json(rows)
        return
    cells = [[row[column] for column in columns] for row in rows]
    output.table([column.upper() for column in columns], cells, empty="No decision fits.")


def _facts(found: Mapping[str, Any]) -> Sequence[tuple[str, object]]:
    why, kept = found["why"], found["bytes"] or {}
    model = f"{found['model']}/{found['answered'] or found['version']}"
    interval = why.get("interval")
    return [
        ("decision", found["decision"]),
        ("request", found["request"]),
        ("at", found["at"]),
        ("answered by", f"{model} ({found['code']})"),
        ("digest", kept.get("digest")),
        ("loaded", kept.get("loaded")),
        ("why", why["reason"]),
        ("weights", None if why.get("weights") is None else ", ".join(f"{k}={v}" for k, v in why["weights"].items())),
        ("bucket", None if interval is None else f"{why['bucket']} in [{interval[0]}, {interval[1]})"),
        ("revision", why["revision"]),
        ("failure", found["failure"]),
        ("error", found["error"]),
        ("took", f"{found['duration_us'] / 1e3:.3f} ms, {found['compute_us'] / 1e3:.3f} of it computing"),
        ("inputs", found["inputs"]),
        ("outputs", found["outputs"]),
        *[("later", f"shadow {one['shadow']} {one['outcome']}") for one in found["later"] if "shadow" in one],
        *found["rebuild"].items(),
    ]


def _newest(folder: Path, where: str | None, begin: float | None, limit: int) -> Any:
    conditions = [f"({where})"] if where is not None else []
    if begin is not None:
        conditions.append(f"epoch_us(started) >= {int(begin * 1e6)}")
    condition = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return _asked(folder, f"SELECT * FROM decisions{condition} ORDER BY decision DESC LIMIT {limit}")  # noqa: S608


def _asked(folder: Path, text: str) -> Any:
    return _extra(_SQL).query(folder, text)


def _extra(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise CommandFailed(f"{error.name} is not installed here: pip install 'turnout[decisions]'") from None


def _begin(ago: str) -> float:
    match = _AGO.fullmatch(ago)
    if match is None:
        raise CommandFailed(f"--since {ago!r:.40}: expected a number and s, m, h or d, as in 15m", status=2)
    return max(0.0, time.time() - float(match[1]) * _UNITS[match[2]])


@decisions.command("verify")
def verify_log(
    *,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="Some kept elsewhere; may be given several times."),
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The public key they are signed by.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", metavar="PATH", help="A copy of a log, instead of the home's.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Prove that no record was altered, removed or reordered, and none cut off that a checkpoint knows of."""
    output = Output.standard(machine=json)
    place = folder if folder is not None else local_home("the proof") / FOLDER
    public, own = _public_key(key), _own_notes(place)
    report = _extra(_VERIFY).verify(place, _checkpoints(public, own, checkpoint or []))
    named = public if key is not None or folder is None else None  # a copy may be another gateway's
    report.faults += signing_faults(report.keys, named, own)
    if json:
        output.json(report.to_json())
    else:
        _tell(output, report, given=bool(checkpoint))
    if report.faults:
        raise typer.Exit(FAILED)


def _tell(output: Output, report: Any, *, given: bool) -> None:
    for fault in report.faults:
        output.line(f"FAULT {fault}")
    if not report.faults:
        output.line(
            f"All {report.records} records of {report.segments} segments stand as they were written (lines "
            f"{report.first} to {report.last}); {report.agreed} checkpoints agree."
        )
    lost = sum(gap.get("records") or 0 for gap in report.gaps)
    if report.gaps:
        unknown = sum(gap.get("records") is None for gap in report.gaps)
        output.note(f"The log says of {len(report.gaps)} gaps: {lost} records missing, and in {unknown} nobody knows.")
    if not given:
        output.note(
            "Only a checkpoint that is kept where nobody of here can write tells whether the log was cut off or "
            "written anew (--checkpoint FILE)."
        )


def _own_notes(folder: Path) -> Sequence[str]:
    with suppress(OSError, UnicodeDecodeError):
        return read_notes((folder / NOTES_FILE).read_text("utf-8"), DECISIONS)[0]
    return ()


def _checkpoints(public: VerifyingKey | None, own: Sequence[str], files: Sequence[Path]) -> list[Checkpoint]:
    """Those given, which must be sound, and the log's own, as far as they are. Raises CommandFailed."""
    found: list[Checkpoint] = []
    if public is None:
        if files:
            raise CommandFailed(
                "a checkpoint needs the public key that it is signed by: --key FILE, as `turnout decisions key` "
                "printed it"
            )
        return found
    for file in files:
        notes, rest = read_notes(_text(file), DECISIONS)
        if rest or not notes:
            raise CommandFailed(f"{file}: {'holds lines of no checkpoint' if rest else 'holds no checkpoint'}")
        found += [_opened(public, note, file) for note in notes]
    for note in own:
        with suppress(InvalidInput):
            found.append(public.open(note))
    return found


def _opened(public: VerifyingKey, note: str, file: Path) -> Checkpoint:
    try:
        return public.open(note)
    except InvalidInput as error:
        raise CommandFailed(f"{file}: {error}") from None


def _public_key(key: Path | None) -> VerifyingKey | None:
    if key is not None:
        return VerifyingKey.parse(_text(key), DECISIONS)
    client = client_settings()
    if client.url is None and (client.home / DECISIONS.key_file).exists():
        return SigningKey.of(client.home, DECISIONS).public
    return None


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file}: cannot be read: {error}") from None


@decisions.command("checkpoint")
def print_checkpoint() -> None:
    """Print the newest signed checkpoint; keep it where nobody of here can write."""
    output = Output.standard()
    path = local_home("a checkpoint") / FOLDER / NOTES_FILE
    notes = read_notes(_text(path), DECISIONS)[0]
    if not notes:
        raise CommandFailed(f"{path} holds no checkpoint yet: one is signed a minute after the first decisions")
    output.line(notes[-1].rstrip("\n"))


@decisions.command("key")
def print_key() -> None:
    """Print the public key that checkpoints are signed by."""
    home = local_home("the key")
    Output.standard().line(str(SigningKey.of(home, DECISIONS).public))
