"""The example models of ``gateway.examples``: trained in a process of their own, kept for the next time, registered."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.backend import Registration
from gateway.cli.failures import CommandFailed

__all__ = ["MODEL", "ExampleModels", "ExampleVersion", "make_examples"]

MODEL = "digits"
TRAIN_S = 600.0


@dataclass(frozen=True, slots=True)
class ExampleVersion:
    """One version ready to register. ``accuracy`` is that of its own evaluation, on rows that it has not seen."""

    name: str
    accuracy: float
    notes: str
    registration: Registration


@dataclass(frozen=True, slots=True)
class ExampleModels:
    """Three good versions, a faulty one that needs ``table`` to be there, and rows to send with their true labels."""

    versions: tuple[ExampleVersion, ...]
    faulty: ExampleVersion
    table: Path
    pixels: list[list[float]]
    labels: list[int]


def make_examples(folder: Path) -> ExampleModels:
    """Trains them into ``folder`` unless they are there. Blocks; its words go to standard error. CommandFailed."""
    command = [sys.executable, "-m", "gateway.examples.digits", str(folder)]
    try:
        done = subprocess.run(command, stdout=sys.stderr.fileno(), check=False, timeout=TRAIN_S)
    except subprocess.TimeoutExpired:
        raise CommandFailed(
            f"training the example models took more than {TRAIN_S:.0f} s; try on a quieter machine"
        ) from None
    if done.returncode:
        raise CommandFailed(
            f"the example models could not be trained (status {done.returncode}); install what they need with "
            f"pip install 'turnout[examples]'"
        )
    index = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    rows = json.loads((folder / "held_out.json").read_text(encoding="utf-8"))
    return ExampleModels(
        versions=tuple(_version(folder, entry) for entry in index["versions"]),
        faulty=_version(folder, index["faulty"]),
        table=folder / index["faulty"]["table"],
        pixels=rows["pixels"],
        labels=rows["labels"],
    )


def _version(folder: Path, entry: Mapping[str, Any]) -> ExampleVersion:
    def place(key: str) -> Path | None:
        return folder / entry[key] if entry.get(key) else None

    registration = Registration(
        model=MODEL,
        source=str(folder / entry["source"]),
        signature=place("signature"),
        example=place("example"),
        lineage=place("lineage"),
        evaluation=place("evaluation"),
        tags={"example": entry["name"]},
    )
    return ExampleVersion(entry["name"], float(entry["accuracy"]), str(entry["notes"]), registration)
