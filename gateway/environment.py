"""This process's environment: what the command line finds there, and what of it processes that we start are given.

Read here and in ``settings`` alone. Imports the standard library and nothing else, since every command pays for it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "ClientSettings",
    "child_environment",
    "client_settings",
    "foreign_environment",
    "recorder_environment",
    "variable",
    "watched_environment",
]


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """What the command line needs to find a gateway: ``TURNOUT_URL``, ``TURNOUT_TOKEN``, ``TURNOUT_HOME``."""

    url: str | None
    token: str | None
    home: Path


def client_settings() -> ClientSettings:
    return ClientSettings(
        url=os.environ.get("TURNOUT_URL") or None,
        token=os.environ.get("TURNOUT_TOKEN", "").strip() or None,
        home=Path(os.environ.get("TURNOUT_HOME") or ".turnout"),
    )


def variable(name: str) -> str:
    """Empty where it is not set. For names that the settings give, like those of secrets."""
    return os.environ.get(name, "")


def child_environment(home: Path) -> dict[str, str]:
    """The environment for a gateway that we start ourselves: this one's, with no Turnout setting but the home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
    return {**kept, "TURNOUT_HOME": str(home)}


def foreign_environment() -> dict[str, str]:
    """The environment of a client of another system: this one's, where its vendor looks for addresses and secrets
    (``MLFLOW_…``, ``WANDB_…``, ``AWS_…``), with nothing of Turnout's own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}


def watched_environment(folder: Path) -> dict[str, str]:
    """The environment for a training that is watched: this one's, with ``folder`` first on Python's path."""
    places = [str(folder), *(place for place in [os.environ.get("PYTHONPATH")] if place)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def recorder_environment() -> dict[str, str]:
    """The environment of the recorder's process: this one's, less what exporters would read there (``OTEL_…``) beside
    the options that the settings give them."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
