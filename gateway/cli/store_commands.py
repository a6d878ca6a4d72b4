"""Replicas and the store that they share: who is there, what they serve, and what to do when it came back otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.output import JsonOption, Output, when_text

__all__ = ["commands"]

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the audit log.")]

commands = typer.Typer()
store_commands = typer.Typer(help="How the store stands, and what to do with one that is not believed.")
commands.add_typer(store_commands, name="store", no_args_is_help=True)


@commands.command("replicas")
def list_replicas(*, json: JsonOption = False) -> None:
    """List the living replicas: the revision that each serves, how far it is behind, and who leads."""
    output = Output.standard(machine=json)
    found = perform(lambda backend: backend.replicas())
    if json:
        output.json(found)
        return
    rows = [
        (
            row["replica"],
            row.get("address"),
            row["revision"],
            row.get("lag", 0) or None,
            "; ".join(f"{route} {why}" for route, why in row.get("behind", {}).items()) or None,
            ", ".join(row.get("leads", ())) or None,
            when_text(row["started_at"]) if row.get("started_at") else None,
        )
        for row in found["replicas"]
    ]
    head = ("REPLICA", "ADDRESS", "REVISION", "LAG", "BEHIND", "LEADS", "STARTED")
    output.table(head, rows, empty="No replica is up.")


@store_commands.command("status")
def show_store(*, json: JsonOption = False) -> None:
    """Show the store: its revision, whether it is believed, and whether what it acknowledges is durable."""
    output = Output.standard(machine=json)
    store = perform(lambda backend: backend.replicas())["store"]
    if json:
        output.json(store)
        return
    for name, value in _facts(store):
        output.line(f"{name:<10} {value}")


def _facts(store: Mapping[str, Any]) -> list[tuple[str, str]]:
    where = f"{store['kind']} {store['address']}".strip()
    facts = [("store", where), ("revision", str(store["revision"])), ("durable", str(store["durable"]))]
    facts += [("", str(store["detail"]))] if store.get("detail") else []
    facts += [("up", "no")] if store.get("up") is False else []
    facts += [("refused", str(store["refused"]))] if store.get("refused") else []
    return facts


@store_commands.command("adopt")
def adopt_store(*, reason: ReasonOption = "", json: JsonOption = False) -> None:
    """Take the store as it is, on the replica of TURNOUT_URL: what the replica knew of it before is forgotten."""
    output = Output.standard(machine=json)
    done = perform(lambda backend: backend.adopt_store(reason=reason))
    if json:
        output.json(done)
    else:
        output.line(f"the replica takes the store as it is, revision {done['revision']}; do the same on each other one")


@store_commands.command("restore-from-replica")
def restore_from_replica(
    *,
    reason: ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Although another replica has seen a later revision, which is then lost.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write what the replica of TURNOUT_URL serves back into the store, as a new revision."""
    output = Output.standard(machine=json)
    done = perform(lambda backend: backend.restore_store(reason=reason, force=force))
    if json:
        output.json(done)
    else:
        output.line(f"the store holds what this replica serves, as revision {done['revision']}")
