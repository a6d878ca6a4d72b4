"""The audit log: who changed what, proofs of it that need no gateway, and checkpoints to keep elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import orjson
import typer

from gateway.checkpoints import AUDIT, Checkpoint, SigningKey, VerifyingKey, read_notes
from gateway.cli.backend import Backend
from gateway.cli.connection import perform
from gateway.cli.failures import FAILED, CommandFailed
from gateway.cli.output import JsonOption, Output, when_text
from gateway.control.audit import Verification
from gateway.control.audit_proof import ChainProof, read_export, record_from_json
from gateway.environment import client_settings
from gateway.errors import InvalidInput

__all__ = ["commands"]

PAGE = 1000
PROOF_PAGE = 100
"""A record holds whole documents, before and after."""

commands = typer.Typer()
audit = typer.Typer(help="Show who changed what; prove it.", invoke_without_command=True)
commands.add_typer(audit, name="audit")

Report = Mapping[str, Any]
FilesOption = Annotated[
    list[Path] | None,
    typer.Option("--checkpoint", metavar="FILE", help="One kept elsewhere; may be given several times."),
]
KeyOption = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The public key, as `turnout audit key` printed it.")
]
ExportOption = Annotated[
    Path | None, typer.Option("--export", metavar="FILE", help="Prove this exported file instead of the store.")
]


@audit.callback()
def show_audit(
    context: typer.Context,
    *,
    verify: Annotated[bool, typer.Option("--verify", help="The same as `turnout audit verify`.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="The newest N records.")] = 50,
    json: JsonOption = False,
) -> None:
    """Show who changed what, newest last."""
    if context.invoked_subcommand is not None:
        return
    output = Output.standard(machine=json)
    if verify:
        _tell(output, perform(lambda backend: _proved(backend, [])))
        return
    records = perform(lambda backend: _newest(backend, limit))
    if json:
        output.json(records)
        return
    names = ("sequence", "at", "actor", "action", "subject", "reason")
    rows = [[when_text(record[name]) if name == "at" else record[name] for name in names] for record in records]
    output.table(("RECORD", "WHEN", "WHO", "DID", "TO", "WHY"), rows, empty="Nothing was changed yet.")


async def _newest(backend: Backend, limit: int) -> list[Mapping[str, Any]]:
    """The log is read forward in pages; only the last ``limit`` are kept."""
    kept: list[Mapping[str, Any]] = []
    after = 0
    while True:
        page = list(await backend.audit(after=after, limit=PAGE))
        kept = [*kept, *page][-limit:]
        if len(page) < PAGE:
            return kept
        after = int(page[-1]["sequence"])


@audit.command("verify")
def verify_audit(
    *, checkpoint: FilesOption = None, key: KeyOption = None, export: ExportOption = None, json: JsonOption = False
) -> None:
    """Prove that no record was altered, removed or reordered, and none cut off that a checkpoint knows of."""
    output = Output.standard(machine=json)
    opened = _opened(checkpoint or [], key)
    if export is not None:
        _tell(output, _read(export, opened))
    else:
        _tell(output, perform(lambda backend: _proved(backend, opened)))


def _read(export: Path, checkpoints: Sequence[Checkpoint]) -> Report:
    try:
        with nullcontext(sys.stdin) if str(export) == "-" else export.open(encoding="utf-8") as lines:
            return read_export(lines, ChainProof(checkpoints)).to_json()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{export}: cannot be read: {_cause(error)}") from None


async def _proved(backend: Backend, checkpoints: Sequence[Checkpoint]) -> Report:
    """The chain, walked here; and the store's own look at the documents that stand."""
    standing = await backend.verify_audit()
    if not standing["ok"]:
        return {**standing, "first": 1, "checkpoints": 0, "signed": None}
    proof: ChainProof | None = None
    after = 0
    while True:
        page = [record_from_json(body) for body in await backend.audit(after=after, limit=PROOF_PAGE)]
        if proof is None:  # a store that was put back from a replica may begin later, and has said where
            later = bool(page) and page[0].sequence > 1
            start = Verification(page[0].sequence - 1, page[0].previous) if later else None
            proof = ChainProof(checkpoints, start)
        proof.take(page)
        if len(page) < PROOF_PAGE or proof.fault is not None:
            return proof.result().to_json()
        after = page[-1].sequence


def _tell(output: Output, report: Report) -> None:
    if output.machine:
        output.json(report)
        if not report["ok"]:
            raise typer.Exit(FAILED)
    elif report["ok"]:
        output.line(f"{_counted(report)}, none altered or removed; head {report['head']}{_agreed(report)}")
        for line in _limits(report):
            output.line(line)
    else:
        raise CommandFailed(f"the audit log is broken: {report['fault']}")


def _counted(report: Report) -> str:
    first, last = report.get("first", 1), report["records"]
    return f"{last} records" if first == 1 else f"records {first} to {last}"


def _agreed(report: Report) -> str:
    count = report["checkpoints"]
    return f"; {count} checkpoint{'s agree' if count > 1 else ' agrees'}" if count else ""


def _limits(report: Report) -> list[str]:
    """What this proof does not say."""
    said, first, signed = list[str](), report.get("first", 1), report.get("signed")
    if first > 1:
        said.append(
            f"What came before record {first} is not in this log: it was put back from a replica, or begun anew."
        )
    if signed is None:
        said.append(
            "No checkpoint was given: whether the log was written anew as a whole, or its end cut off, only one that "
            "is kept elsewhere tells (--checkpoint FILE)."
        )
    else:
        later = report["records"] - signed["records"]
        more = f"; {later} later record{'s' if later > 1 else ''} could be written anew unseen" if later else ""
        said.append(f"Signed as far as record {signed['records']}, at {when_text(signed['at'])}{more}.")
    return said


def _opened(files: Sequence[Path], key: Path | None) -> list[Checkpoint]:
    """The checkpoints in the files, each signed by the key. Raises CommandFailed or InvalidInput."""
    if not files:
        return []
    public = _public_key(key)
    found = []
    for file in files:
        notes, rest = read_notes(_text(file))
        if rest or not notes:
            raise CommandFailed(f"{file}: {'holds lines of no checkpoint' if rest else 'holds no checkpoint'}")
        for note in notes:
            try:
                found.append(public.open(note))
            except InvalidInput as error:
                raise CommandFailed(f"{file}: {error}") from None
    return found


def _public_key(key: Path | None) -> VerifyingKey:
    if key is not None:
        return VerifyingKey.parse(_text(key))
    client = client_settings()
    if client.url is None and (client.home / AUDIT.key_file).exists():
        return SigningKey.of(client.home).public
    raise CommandFailed("a checkpoint needs the public key that it is signed by: give --key FILE (turnout audit key)")


def _text(file: Path) -> str:
    try:
        return sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"{file}: cannot be read: {_cause(error)}") from None


def _cause(error: OSError | UnicodeDecodeError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


@audit.command("checkpoint")
def print_checkpoint(*, json: JsonOption = False) -> None:
    """Print a signed checkpoint of the log as it is now; keep it where nobody of here can write."""
    output = Output.standard(machine=json)
    found = perform(lambda backend: backend.audit_checkpoint())
    if json:
        output.json(found)
    else:
        output.line(found["checkpoint"].rstrip("\n"))


@audit.command("key")
def print_key(*, json: JsonOption = False) -> None:
    """Print the public key that checkpoints are signed by."""
    output = Output.standard(machine=json)
    found = perform(lambda backend: backend.audit_checkpoint())
    if json:
        output.json({"key": found["key"]})
    else:
        output.line(found["key"])


@audit.command("export")
def export_audit(
    *,
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to; `-` is standard output.")] = Path("-"),
    json: JsonOption = False,
) -> None:
    """Write every record, one JSON line each, for `turnout audit verify --export`."""
    output = Output.standard(machine=json)
    if str(file) == "-":
        perform(lambda backend: _write(backend, lambda line: output.line(line.decode().rstrip("\n"))))
        return
    try:
        with _whole(file) as sink:
            count = perform(lambda backend: _write(backend, sink.write))
    except OSError as error:
        raise CommandFailed(f"{file}: cannot be written: {error.strerror}") from None
    if json:
        output.json({"file": str(file), "records": count})
    else:
        output.line(f"{file}: {count} records")


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """The file, whole or as it was before: a part of a log looks like a whole one. What is no file is written to."""
    target = file.resolve()
    if target.exists() and not target.is_file():
        with target.open("wb") as sink:
            yield sink
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


async def _write(backend: Backend, put: Any) -> int:
    count = after = 0
    while True:
        page = await backend.audit(after=after, limit=PROOF_PAGE)
        for record in page:
            put(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        count += len(page)
        if len(page) < PROOF_PAGE:
            return count
        after = int(page[-1]["sequence"])
