"""All commands, put together: for ``turnout --help``. A command alone does without the others: see ``entry``."""

from __future__ import annotations

import importlib

from gateway.cli.entry import COMMANDS, frame

__all__ = ["application"]

application = frame()
for module in COMMANDS:
    application.add_typer(importlib.import_module(f"gateway.cli.{module}").commands)
