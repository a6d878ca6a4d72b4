"""``turnout search``: versions by name, tags, metrics, lineage, format and time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.failures import USAGE, CommandFailed
from gateway.cli.output import JsonOption, Output, when_text

__all__ = ["commands"]

commands = typer.Typer()

Text = str | None
Texts = list[str] | None


@commands.command("search")
def search_versions(
    *,
    name: Annotated[
        Text, typer.Argument(metavar="[NAME]", help="Part of the model's name, or a pattern with *.")
    ] = None,
    tag: Annotated[Texts, typer.Option("--tag", metavar="K[=V]", help="With this tag; may be repeated.")] = None,
    alias: Annotated[Text, typer.Option("--alias", metavar="ALIAS", help="What this alias points at.")] = None,
    metric: Annotated[
        Texts, typer.Option("--metric", metavar="M>=X", help="Like accuracy>=0.95 or auc[young]>0.9; may be repeated.")
    ] = None,
    data: Annotated[
        Texts, typer.Option("--data", metavar="DIGEST", help="Trained on these data, sha256:...; may be cut short.")
    ] = None,
    commit: Annotated[Text, typer.Option("--commit", metavar="COMMIT", help="By code of this commit.")] = None,
    format_name: Annotated[Text, typer.Option("--format", metavar="NAME", help="onnx, torch, sklearn, python.")] = None,
    author: Annotated[Text, typer.Option("--author", metavar="TEXT", help="Part of the author.")] = None,
    source: Annotated[
        Text, typer.Option("--source", metavar="SYSTEM", help="Imported from it: mlflow, dvc:NAME.")
    ] = None,
    archived: Annotated[Text, typer.Option("--archived", metavar="yes|no|any", help="Any, if left out.")] = None,
    registered_after: Annotated[
        Text, typer.Option("--after-date", metavar="DATE", help="Registered since then.")
    ] = None,
    registered_before: Annotated[Text, typer.Option("--before-date", metavar="DATE", help="Registered before.")] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many versions.")] = 100,
    after: Annotated[Text, typer.Option("--after", metavar="MODEL/3", help="Versions behind this one.")] = None,
    json: JsonOption = False,
) -> None:
    """Find versions: all that is said must hold. turnout search --data sha256:1f2e --metric 'accuracy>=0.95'."""
    if name is not None and set("<>=") & set(name):
        raise CommandFailed(f"{name!r} is no part of a model's name; did you mean --metric {name!r}?", status=USAGE)
    output = Output.standard(machine=json)
    single = {
        "name": name,
        "alias": alias,
        "commit": commit,
        "format": format_name,
        "author": author,
        "source": source,
        "archived": archived,
        "registered_after": registered_after,
        "registered_before": registered_before,
    }
    terms = {term: [text] for term, text in single.items() if text is not None}
    terms |= {term: texts for term, texts in {"tag": tag, "metric": metric, "data": data}.items() if texts}
    found = perform(lambda backend: backend.search(terms, limit=limit, after=after))
    if json:
        output.json(found)
        return
    columns = ("VERSION", "DIGEST", "FORMAT", "REGISTERED", "ALIASES", "METRICS", "TAGS")
    output.table(columns, [_row(version) for version in found["versions"]], empty="No version is like that.")
    if name is not None and not found["versions"]:
        output.note(f"{name} was looked for in the names of models; by a metric: --metric '{name}>=0'")
    if found["unreadable"]:
        output.note(f"{found['unreadable']} versions were not looked at: what is stored of them cannot be read")
    if found["next"] is not None:
        output.note(f"There are more: --after {found['next']}")


def _row(version: Mapping[str, Any]) -> tuple[object, ...]:
    metrics = {
        one["metric"] + (f"[{one['slice']}]" if "slice" in one else ""): one["value"]
        for one in version.get("metrics", ())
    }
    return (
        f"{version['model']}/{version['version']}",
        version["digest"][:19],
        version.get("format"),
        when_text(version["created_at"]),
        [f"@{alias}" for alias in version["aliases"]] or None,
        metrics or None,
        version["tags"] or None,
    )
