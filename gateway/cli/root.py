"""Puts the commands together; turns an error into one clear line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gateway import __version__
from gateway.cli import (
    audit_commands,
    explain_command,
    keeper_commands,
    model_commands,
    register,
    rollout_command,
    route_commands,
    serve,
    simulate,
    store_commands,
)
from gateway.cli.demo import command as demo
from gateway.cli.failures import FAILED, INTERRUPTED, CommandFailed, describe
from gateway.errors import TurnoutError

__all__ = ["application", "main"]

application = typer.Typer(
    name="turnout",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    serve,
    demo,
    register,
    model_commands,
    route_commands,
    rollout_command,
    explain_command,
    simulate,
    store_commands,
    audit_commands,
    keeper_commands,
):
    application.add_typer(group.commands)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"turnout {__version__}")
        raise typer.Exit


@application.callback()
def turnout(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve model versions, route between them, go back.

    TURNOUT_URL names a running gateway and TURNOUT_TOKEN the token for it. Without TURNOUT_URL, commands
    work straight on the store in TURNOUT_HOME (default .turnout); a gateway running there takes the change up.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 0 (done), 1 (failed), 2 (asked wrongly) or 130 (interrupted); never with a traceback on purpose."""
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    try:
        application(args=arguments, prog_name="turnout")
    except TurnoutError as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return error.status if isinstance(error, CommandFailed) else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        print(f"error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}", file=sys.stderr)
        return FAILED
    except SystemExit as stop:
        return _flushed(stop.code if isinstance(stop.code, int) else FAILED)
    return _flushed(0)


def _flushed(status: int) -> int:
    """A reader that left early (``turnout audit | head``) is no failure, and no second message at exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status
