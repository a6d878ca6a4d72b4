"""Tokens: made, listed, renewed, ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from gateway.cli.connection import perform
from gateway.cli.durations import seconds_of
from gateway.cli.output import JsonOption, Output, when_text

__all__ = ["commands"]

DAY_S = 86_400.0

commands = typer.Typer()
token_commands = typer.Typer(help="Create, list, rotate and revoke tokens.", no_args_is_help=True)
commands.add_typer(token_commands, name="tokens")


@token_commands.command("create")
def create_token(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for; the audit log shows this name.")],
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="predict, feedback, viewer, operator or admin.")
    ] = "viewer",
    route: Annotated[
        list[str] | None, typer.Option("--route", metavar="ROUTE", help="Only this route; may be given several times.")
    ] = None,
    expires_in_days: Annotated[
        float | None, typer.Option("--expires-in-days", metavar="DAYS", help="End it by itself; without it, never.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Create a token and print it. It is shown once; only its hash is kept."""
    output = Output.standard(machine=json)
    seconds = None if expires_in_days is None else expires_in_days * DAY_S
    made = perform(
        lambda backend: backend.create_token(name, role, routes=route or [], expires_in_s=seconds), creates=True
    )
    _secret(output, made)


@token_commands.command("rotate")
def rotate_token(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")],
    grace: Annotated[
        str, typer.Option("--grace", metavar="TIME", help="The old secret stays good so long: 90s, 15m, 2h, 1d.")
    ] = "0s",
    json: JsonOption = False,
) -> None:
    """Give a token a new secret and print it; the old one ends, at once or after the grace."""
    output = Output.standard(machine=json)
    grace_s = seconds_of(grace, "--grace")
    made = perform(lambda backend: backend.rotate_token(name, grace_s=grace_s))
    _secret(output, made)
    if "old_until" in made and not json:
        output.note(f"The secret before it is good until {when_text(made['old_until'])}.")


def _secret(output: Output, made: Mapping[str, Any]) -> None:
    if output.machine:
        output.json(made)
        return
    output.line(made["token"])
    output.note(f"Token {made['name']!r} with role {made['role']}. It is not shown again.")


@token_commands.command("list")
def list_tokens(*, json: JsonOption = False) -> None:
    """List the tokens: names, roles and routes, never the secrets."""
    output = Output.standard(machine=json)
    found = perform(lambda backend: backend.tokens())
    if json:
        output.json(found)
        return
    rows = [
        (
            token["name"],
            token["role"],
            token["routes"] or "all",
            when_text(token["created_at"]),
            _expiry(token),
            _old(token),
        )
        for token in found
    ]
    output.table(("NAME", "ROLE", "ROUTES", "CREATED", "EXPIRES", "OLD SECRET UNTIL"), rows, empty="No tokens.")


def _old(token: Mapping[str, Any]) -> str | None:
    """Only while a rotation leaves it."""
    return when_text(token["old_until"]) if "old_until" in token else None


def _expiry(token: Mapping[str, Any]) -> str:
    return "never" if token.get("expires_at") is None else when_text(token["expires_at"])


@token_commands.command("revoke")
def revoke_token(
    *, name: Annotated[str, typer.Argument(metavar="NAME", help="The token's name.")], json: JsonOption = False
) -> None:
    """Revoke a token; running gateways refuse it within a second."""
    output = Output.standard(machine=json)
    perform(lambda backend: backend.revoke_token(name))
    if json:
        output.json({"name": name, "revoked": True})
    else:
        output.line(f"token {name} revoked")
