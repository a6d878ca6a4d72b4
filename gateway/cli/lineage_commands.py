"""Where versions come from: the graph of one, what changed between two, and both for machines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from gateway.cli.backend import Backend, Json
from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.lineage_picture import draw_svg
from gateway.cli.model_commands import VersionArgument
from gateway.cli.output import JsonOption, Output
from gateway.cli.references import reference
from gateway.errors import NotFound, RegistryError
from gateway.registry.lineage.comparison import Change, Comparison, compare
from gateway.registry.lineage.graph import Graph, Node, draw_graph, short
from gateway.registry.lineage.kinds import read_kinds

__all__ = ["chosen", "commands"]

commands = typer.Typer()

MAX_PARENTS = 10
_MANY = 15


@commands.command("lineage")
def show_lineage(
    *,
    version: VersionArgument,
    svg: Annotated[Path | None, typer.Option("--svg", metavar="FILE", help="Draw the graph into an SVG file.")] = None,
    json: JsonOption = False,
) -> None:
    """Show what a version was made from: code, data, parameters, environment, features, run, parents."""
    output = Output.standard(machine=json)
    found, parents = perform(lambda backend: _with_parents(backend, version))
    manifest = found["manifest"]
    graph = draw_graph(found, parents)
    name = f"{found['model']}/{found['version']}"
    if svg is not None:
        svg.write_text(draw_svg(graph, f"Lineage of {name}"), encoding="utf-8")
        output.note(f"{svg}: {len(graph.nodes)} boxes, {len(graph.edges)} lines")
    if json:
        kinds = read_kinds(manifest["lineage"], manifest["evaluation"])
        head = {"model": found["model"], "version": found["version"], "digest": found["digest"]}
        body = {"lineage": manifest["lineage"], "evaluation": manifest["evaluation"], "digests": dict(kinds.digests)}
        output.json({**head, **body, "graph": graph.to_json()})
        return
    if svg is None:
        output.results.print(_tree(graph), soft_wrap=True)
        if len(graph.nodes) == 1:
            output.note("No lineage was given at registration (turnout record, or turnout register --lineage FILE).")


def _tree(graph: Graph) -> Tree:
    """The version at the root, and below everything what went into it."""
    by_name = {node.name: node for node in graph.nodes}
    version, *_ = graph.nodes
    tree = Tree(_label(version), guide_style="dim")

    def grow(branch: Tree, name: str) -> None:
        for one in (one for one, two in graph.edges if two == name):
            grow(branch.add(_label(by_name[one])), one)

    for after in (by_name[two] for one, two in graph.edges if one == version.name):
        tree.add(_label(after))
    grow(tree, version.name)
    return tree


def _label(node: Node) -> Text:
    text = Text(f"{node.kind} ", style="dim")
    text.append(node.title if node.title != node.kind else "", style="bold")
    if node.digest:
        text.append(f"  {short(node.digest)}", style="dim")
    for line in node.lines:
        text.append(f"\n{line}")
    return text


async def _with_parents(backend: Backend, version: str) -> tuple[Json, list[Json]]:
    found = await chosen(backend, version)
    parents: list[Json] = []
    seen = {found["digest"]}
    named = found["manifest"]["lineage"].get("parent")
    while isinstance(named, str) and len(parents) < MAX_PARENTS:
        try:
            parent = await chosen(backend, named)
        except (NotFound, RegistryError, CommandFailed):
            break  # a parent in another registry, or words
        if parent["digest"] in seen:
            break
        parents.append(parent)
        seen.add(parent["digest"])
        named = parent["manifest"]["lineage"].get("parent")
    return found, parents


async def chosen(backend: Backend, version: str) -> Json:
    """The version that ``fraud/3`` or ``fraud@champion`` names. CommandFailed for what names none."""
    model, selector = reference(version)
    if selector is None:
        raise CommandFailed(f"{version!r} names no version; write {model}/3 or {model}@alias", status=USAGE)
    return await backend.version(model, selector)


@commands.command("compare")
def compare_versions(
    *,
    before: Annotated[str, typer.Argument(metavar="MODEL/3", help="A version.")],
    after: Annotated[str, typer.Argument(metavar="MODEL/4", help="The version to compare with it.")],
    json: JsonOption = False,
) -> None:
    """Show what changed from one version to another: code, data, parameters, environment, features, metrics, files."""
    output = Output.standard(machine=json)

    async def both(backend: Backend) -> tuple[Json, Json]:
        return await chosen(backend, before), await chosen(backend, after)

    one, two = perform(both)
    found = compare(one["manifest"], two["manifest"])
    names = [f"{side['model']}/{side['version']}" for side in (one, two)]
    if json:
        sides = {"before": _side(one), "after": _side(two)}
        output.json({**sides, "changed": list(found.changed), "sections": found.to_json()})
        return
    if one["digest"] == two["digest"]:
        output.line(f"{names[0]} and {names[1]} are the same version: {one['digest']}")
        return
    _print(output, found, names)


def _side(version: Json) -> dict[str, Any]:
    return {"model": version["model"], "version": version["version"], "digest": version["digest"]}


def _print(output: Output, found: Comparison, names: list[str]) -> None:
    output.line(f"{names[0]} → {names[1]}: {', '.join(found.changed) or 'nothing that is recorded'} changed")
    for section in found.sections:
        state = {"same": "the same", "unknown": "not recorded for both", "changed": ""}[section.state]
        output.line(Text(f"\n{section.name}  ", style="bold").append(state, style="dim"))
        for change in section.changes[:_MANY]:
            output.line(_change_line(change))
        if len(section.changes) > _MANY:
            output.line(f"  and {len(section.changes) - _MANY} more (--json has all)")


def _change_line(change: Change) -> Text:
    line = Text("  ").append(f"{change.what}  ")
    if change.before is None:
        line.append("+ ", style="green").append(_shown(change.after))
    elif change.after is None:
        line.append("- ", style="red").append(_shown(change.before))
    else:
        line.append(_shown(change.before)).append(" → ", style="bold").append(_shown(change.after))
    return line.append(f"  ({change.note})" if change.note else "", style="dim")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping) and "value" in value:
        interval = value.get("interval")
        spread = f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else ""
        rows = f" (n {value['n']})" if value.get("n") is not None else ""
        return f"{value['value']:.6g}{spread}{rows}"
    if isinstance(value, str):
        digest = ":" in value and len(value) > 40
        return short(value) if digest else value[:12] if len(value) == 40 else value
    text = str(value)
    return text if len(text) <= 80 else text[:79] + "…"
