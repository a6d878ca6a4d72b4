"""A folder with what is needed to train a version again, and what of it can be checked before anybody does.

    FOLDER/code              the commit, checked against its tree, with the patch of what was not committed
    FOLDER/data.json         every data input: name, digest, where it was, where it was found
    FOLDER/parameters.json   hyperparameters and seeds
    FOLDER/requirements.lock the packages, a line each, as pip installs them
    FOLDER/lineage.json, manifest.json, checks.json, README.md

Each check says ``ok``, ``differs`` (what was recorded and what is here), ``missing`` (what to do), or ``unknown`` (not
recorded, so it cannot be told). Data that is found with the right digest is copied to where the training reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.errors import RegistryError
from gateway.registry.lineage.environment import lock_text
from gateway.registry.lineage.kinds import read_kinds
from gateway.registry.lineage.places import Kinds
from gateway.registry.lineage.reproduction.asked import Asked, Check
from gateway.registry.lineage.reproduction.code import code_again
from gateway.registry.lineage.reproduction.data import data_again
from gateway.registry.lineage.reproduction.setting import environment_again, parameters_again

__all__ = ["Reproduction", "reproduce"]

Json = Mapping[str, Any]

_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Reproduction:
    """``code``: the folder that training starts from, None where there is no code to start."""

    folder: Path
    kinds: Kinds
    checks: tuple[Check, ...]
    code: Path | None

    @property
    def complete(self) -> bool:
        """Whether code and data are here as they were. Another machine or package is told, and does not count."""
        return all(check.state in ("ok", "unknown") for check in self.checks if check.what.startswith(("code", "data")))

    def to_json(self) -> dict[str, Any]:
        point = self.kinds.code.entry_point
        return {
            "folder": str(self.folder),
            "complete": self.complete,
            "command": list(point.command) if point is not None else None,
            "checks": [asdict(check) for check in self.checks],
        }


def reproduce(version: Json, asked: Asked) -> Reproduction:
    """Writes the folder, which must be new or empty. ``version`` as the admin API gives it. RegistryError when the
    folder cannot be made; what cannot be fetched is told by its check."""
    folder = asked.folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RegistryError(f"{folder} is there already; name a new folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = version["manifest"]
    kinds = read_kinds(manifest["lineage"], manifest["evaluation"])
    code, code_checks = code_again(kinds.code, asked)
    data, data_checks = data_again(kinds, asked, code)
    checks = (*code_checks, *data_checks, *parameters_again(kinds), *environment_again(kinds, asked.interpreter))
    made = Reproduction(folder, kinds, checks, code)
    _write(made, version, data)
    return made


def _write(made: Reproduction, version: Json, data: list[dict[str, Any]]) -> None:
    manifest, kinds = version["manifest"], made.kinds
    bodies = {
        "manifest.json": manifest,
        "lineage.json": manifest["lineage"],
        "parameters.json": {"values": kinds.parameters.values, "seeds": kinds.parameters.seeds},
        "data.json": data,
        "checks.json": [asdict(check) for check in made.checks],
    }
    for name, body in bodies.items():
        (made.folder / name).write_text(json.dumps(_plain(body), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if kinds.environment.packages:
        text = lock_text(_packages(kinds.environment.packages))
        (made.folder / "requirements.lock").write_text(text, encoding="utf-8")
    (made.folder / "README.md").write_text(_readme(made, version), encoding="utf-8")


def _packages(recorded: Mapping[str, str]) -> dict[str, str]:
    """Those that are one line of a lock file each: a version with a line of its own would give pip options."""
    return {
        name: version
        for name, version in recorded.items()
        if _PACKAGE.fullmatch(name) and version.isprintable() and not version.startswith("-")
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _readme(made: Reproduction, version: Json) -> str:
    point = made.kinds.code.entry_point
    name = f"{version['model']}/{version['version']}"
    lines = [f"# Training {name} again", "", f"Version `{version['digest']}`.", "", "## What was checked", ""]
    lines += [f"- {check.what}: **{check.state}**. {check.detail}" for check in made.checks]
    lines += ["", "## By hand", ""]
    steps = []
    if made.kinds.environment.packages:
        python = made.kinds.environment.python or "3"
        steps += [f"Python {python}: `python -m venv env && env/bin/pip install -r requirements.lock`"]
    steps += ["data as `data.json` says, below `code/`"] if made.kinds.data else []
    if point is not None and made.code is not None:
        steps += [f"in `code/{'' if point.folder == '.' else point.folder}`: `{' '.join(point.command)}`"]
    steps += ["compare what it makes with the files of `manifest.json`, by SHA-256"]
    return "\n".join([*lines, *(f"{number}. {step}" for number, step in enumerate(steps, 1)), ""])
