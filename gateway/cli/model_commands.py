"""Models: look at versions, prove their bytes, name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.backend import Backend, TargetMove
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, bytes_text, when_text
from gateway.cli.profile_command import profile_lines
from gateway.cli.references import numbered, reference
from gateway.cli.target_commands import ConfigOption, OverrideOption, ReasonOption, promote_to

__all__ = ["VersionArgument", "commands"]

commands = typer.Typer()

VersionArgument = Annotated[
    str, typer.Argument(metavar="MODEL/3|MODEL@alias", help="A version: digits/3, digits@champion or digits@sha256:...")
]
NumberArgument = Annotated[str, typer.Argument(metavar="MODEL/3", help="A version by number.")]


@commands.command("models")
def list_models(
    *,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="At most so many models.")] = None,
    after: Annotated[str | None, typer.Option("--after", metavar="MODEL", help="Models behind this name.")] = None,
    json: JsonOption = False,
) -> None:
    """List the models with their newest version and their aliases. See search for their versions."""
    output = Output.standard(machine=json)
    if json and limit is None and after is None:
        output.json(perform(lambda backend: backend.models()))
        return
    page = perform(lambda backend: backend.listed_models(limit=limit, after=after))
    if json:
        output.json(page)
        return
    rows = [_model_row(model) for model in page["models"]]
    output.table(
        ("MODEL", "VERSIONS", "NEWEST", "REGISTERED", "ALIASES"),
        rows,
        empty="No models yet. Register one with: turnout register MODEL SOURCE",
    )
    if page["next"] is not None:
        output.note(f"There are more: turnout models --after {page['next']}")


def _model_row(model: Mapping[str, Any]) -> tuple[object, ...]:
    newest = model["newest"] or {}
    aliases = {f"@{alias}": number for alias, number in model["aliases"].items()}
    return model["name"], model["count"], newest.get("number"), when_text(newest.get("created_at")), aliases or None


@commands.command("show")
def show_version(*, version: VersionArgument, json: JsonOption = False) -> None:
    """Show a version: its files, signature, evaluation, tags and aliases. MODEL alone lists its versions."""
    output = Output.standard(machine=json)
    model, selector = reference(version)
    if selector is None:
        _show_model(output, perform(lambda backend: backend.model(model)))
        return
    chosen = selector
    found = perform(lambda backend: backend.version(model, chosen))
    if json:
        output.json(found)
        return
    _show_version(output, found)


def _show_model(output: Output, model: Mapping[str, Any]) -> None:
    if output.machine:
        output.json(model)
        return
    names: dict[int, list[str]] = {}
    for alias, number in model["aliases"].items():
        names.setdefault(number, []).append(f"@{alias}")
    rows = [
        (
            row["number"],
            row["digest"][:19],
            when_text(row["created_at"]),
            names.get(row["number"]),
            row["tags"] or None,
            row["archived"],
        )
        for row in model["versions"]
    ]
    columns = ("VERSION", "DIGEST", "REGISTERED", "ALIASES", "TAGS", "ARCHIVED")
    output.table(columns, rows, empty=f"Model {model['name']} has no versions.")


def _show_version(output: Output, found: Mapping[str, Any]) -> None:
    manifest = found["manifest"]
    runtime = manifest["runtime"]
    sizes = [file["size_bytes"] for file in manifest["files"]]
    output.fields(
        [
            ("version", f"{found['model']}/{found['version']}"),
            ("digest", found["digest"]),
            ("registered", when_text(found["created_at"])),
            ("format", manifest["format"]),
            ("aliases", [f"@{alias}" for alias in found["aliases"]] or None),
            ("tags", found["tags"] or None),
            ("archived", "yes: kept and retrievable, not routable" if found["archived"] else None),
            ("runs", {key: value for key, value in runtime.items() if value not in (None, {})}),
            ("environment", _environment(manifest)),
            ("retry", "no: its effects must not repeat" if not manifest["effects"]["retry"] else None),
            ("files", f"{len(sizes)}, {bytes_text(sum(sizes))}"),
        ]
    )
    for file in manifest["files"]:
        output.line(f"  {file['name']}  {bytes_text(file['size_bytes'])}  {file['sha256']}")
    for side in ("inputs", "outputs"):
        for tensor in manifest["signature"][side]:
            shape = ", ".join(map(str, tensor["shape"]))
            output.line(f"{side[:-1]:<7} {tensor['name']}  {tensor['datatype']} [{shape}]")
    for line in profile_lines(found.get("profiled")):
        output.line(line)
    for record in manifest["evaluation"]:
        output.line("evaluation  " + "  ".join(f"{key}={value}" for key, value in record.items() if value is not None))


@commands.command("archive")
def archive_version(*, version: NumberArgument, json: JsonOption = False) -> None:
    """Archive a version: kept and retrievable, no longer routable."""
    output = Output.standard(machine=json)
    model, number = numbered(version)
    found = perform(lambda backend: backend.archive(model, number))
    if json:
        output.json(found)
    else:
        output.line(f"{model}/{number} archived")


@commands.command("promote")
def promote_version(
    *,
    version: VersionArgument,
    target: Annotated[str | None, typer.Option("--to", metavar="TARGET", help="The target that it goes to.")] = None,
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="ALIAS", help="The alias to point at the version, instead.")
    ] = None,
    reason: ReasonOption = "",
    override: OverrideOption = None,
    config: ConfigOption = None,
    json: JsonOption = False,
) -> None:
    """Promote a version to a target, along its path: turnout promote digits/4 --to production. Or move an alias."""
    output = Output.standard(machine=json)
    model, selector = reference(version)
    if selector is None:
        raise CommandFailed(f"{version!r} names no version; write {model}/3 or {model}@alias", status=USAGE)
    if (target is None) == (alias is None):
        raise CommandFailed("name where it goes: --to TARGET, or --alias ALIAS", status=USAGE)
    if target is not None:
        promote_to(output, TargetMove(model, 0, target, reason, override), selector, config)
    elif alias is not None:
        _point(output, model, selector, alias, override)


@commands.command("alias")
def alias_version(
    *,
    version: VersionArgument,
    alias: Annotated[str, typer.Argument(metavar="ALIAS", help="The alias to move or drop.")],
    drop: Annotated[bool, typer.Option("--drop", help="Remove the alias instead; then MODEL alone is enough.")] = False,
    override: OverrideOption = None,
    json: JsonOption = False,
) -> None:
    """Point an alias at a version, or --drop it."""
    output = Output.standard(machine=json)
    model, selector = reference(version)
    if drop:
        perform(lambda backend: backend.drop_alias(model, alias))
        if json:
            output.json({"model": model, "alias": alias, "dropped": True})
        else:
            output.line(f"{model}@{alias} dropped")
        return
    if selector is None:
        raise CommandFailed(f"{version!r} names no version; write {model}/3 {alias}", status=USAGE)
    _point(output, model, selector, alias, override)


def _point(output: Output, model: str, selector: str, alias: str, override: str | None) -> None:
    async def work(backend: Backend) -> tuple[int, Mapping[str, Any]]:
        number = int((await backend.version(model, selector))["version"])
        return number, await backend.set_alias(model, alias, number, override=override)

    number, found = perform(work)
    if output.machine:
        output.json(found)
    else:
        output.line(f"{model}@{alias} is {model}/{number}")
        if override is not None:
            output.note(f"Its gates, if it had not passed them, were overridden: {override}")


def _environment(manifest: Mapping[str, Any]) -> str | None:
    lock = manifest.get("environment")
    return None if lock is None else f"of its lock file, sha256:{lock['sha256']}"
