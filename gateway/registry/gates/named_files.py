"""The files that a declaration names as people write it: where each stands in it, and which they are."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.errors import InvalidRegistration

__all__ = ["local_files", "named_files", "renamed"]


def named_files(body: Any) -> Iterable[tuple[dict[str, Any], str]]:
    """The objects of an offered declaration that have a ``file``, and where they stand; none of what is no object."""
    if not isinstance(body, dict):
        return
    sets = body.get("data")
    for name, one in sets.items() if isinstance(sets, dict) else ():
        if isinstance(one, dict) and "file" in one:
            yield one, f"data.{name}.file"
    gates = body.get("gates")
    for index, one in enumerate(gates if isinstance(gates, list) else ()):
        if isinstance(one, dict) and "file" in one:
            yield one, f"gates[{index}].file"


def local_files(body: Any, folder: Path) -> Mapping[str, Path]:
    """Paths as the declaration writes them, and where they are: beside the declaration. InvalidRegistration."""
    found = {}
    for one, place in named_files(body):
        name = one["file"]
        if isinstance(name, Mapping):
            continue  # stored already
        if not isinstance(name, str) or not name:
            raise InvalidRegistration(f"{place} is {name!r:.60}; expected a file's path")
        path = folder / name
        if not path.is_file():
            raise InvalidRegistration(f"{place}: there is no file {path}; check the path")
        found[name] = path
    return found


def renamed(body: Any, names: Mapping[str, str]) -> Any:
    """The declaration, with its files under other names."""
    made = copy.deepcopy(body)
    for one, _ in named_files(made):
        if isinstance(one["file"], str):
            one["file"] = names[one["file"]]
    return made
