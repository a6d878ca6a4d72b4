"""The ``turnout`` command: which module has a command, and from an error to one line and an exit status.

Only that module is imported: all of them together take more than a second, which somebody at a terminal feels, and
8 MB, which a gateway would keep for all its life.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

from gateway import __version__, is_compiled
from gateway.cli.failures import FAILED, INTERRUPTED, CommandFailed, describe
from gateway.errors import TurnoutError

__all__ = ["COMMANDS", "frame", "main"]

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "serve": ("serve",),
    "demo.command": ("demo",),
    "register": ("register",),
    "model_commands": ("models", "show", "archive", "promote", "alias"),
    "verify_command": ("verify",),
    "artifact_commands": ("sign", "signatures", "rekey"),
    "restore_commands": ("restore", "unarchive"),
    "target_commands": ("demote", "targets"),
    "record_command": ("record",),
    "lineage_commands": ("lineage", "compare"),
    "reproduce_command": ("reproduce",),
    "profile_command": ("profile",),
    "search_command": ("search",),
    "predict_command": ("predict",),
    "jobs_command": ("jobs",),
    "route_commands": ("routes", "weights", "rollback", "lift", "history"),
    "apply_commands": ("apply", "diff"),
    "rollout_command": ("rollout",),
    "top.command": ("top",),
    "follow_command": ("follow",),
    "gate_commands": ("gates", "gate"),
    "explain_command": ("explain",),
    "drift_command": ("drift",),
    "truth_command": ("truth",),
    "simulate": ("simulate",),
    "store_commands": ("replicas", "store"),
    "transfer_commands": ("push", "pull", "sync"),
    "audit_commands": ("audit",),
    "config_commands": ("config",),
    "decisions_commands": ("decisions",),
    "gc_command": ("gc",),
    "backup_commands": ("backup", "restore-backup"),
    "token_commands": ("tokens",),
}
"""By module of this package, in the order of ``turnout --help``."""

_ALL = "gateway.cli.root"
_STEERING = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Of what a store or a version of somebody else's says of itself."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"turnout {__version__}{', compiled' if is_compiled() else ''}")
        raise typer.Exit


def _turnout(
    *,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve model versions, route between them, go back.

    TURNOUT_URL names a running gateway and TURNOUT_TOKEN the token for it. Without TURNOUT_URL, commands
    work straight on the store in TURNOUT_HOME (default .turnout); a gateway running there takes the change up.
    """


def frame() -> typer.Typer:
    """The command without commands."""
    application = typer.Typer(
        name="turnout",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    application.callback()(_turnout)
    return application


def _application(arguments: Sequence[str]) -> typer.Typer:
    """With the one command that is asked for; with all of them for help, and for what is none."""
    wanted = arguments[0] if arguments else ""
    if wanted == "--version":
        return frame()
    module = next((name for name, commands in COMMANDS.items() if wanted in commands), None)
    if module is None:
        everything: typer.Typer = importlib.import_module(_ALL).application
        return everything
    application = frame()
    application.add_typer(importlib.import_module(f"gateway.cli.{module}").commands)
    return application


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 0 (done), 1 (failed), 2 (asked wrongly) or 130 (interrupted); never with a traceback on purpose."""
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    try:
        _application(arguments)(args=arguments, prog_name="turnout")
    except TurnoutError as error:
        print(f"error: {_STEERING.sub('?', describe(error))}", file=sys.stderr)
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
