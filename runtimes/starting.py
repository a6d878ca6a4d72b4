"""Becomes another program, one that ends with its parent and stands back behind everybody else."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from runtimes.process import be_nice, die_with

__all__ = ["main"]


def main(arguments: Sequence[str]) -> None:
    """``PARENT TMPDIR COMMAND…``: the parent's process id, where temporary files go ("": as ever), what to execute."""
    die_with(int(arguments[0]))
    be_nice()
    if arguments[1]:
        os.environ["TMPDIR"] = arguments[1]
    command = list(arguments[2:])
    try:
        os.execv(command[0], command)  # noqa: S606 - a list, never a shell
    except OSError as error:
        sys.exit(f"{command[0]} cannot be started: {error.strerror}")
