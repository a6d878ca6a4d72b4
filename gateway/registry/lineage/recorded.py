"""The lineage file: what a recording leaves for ``turnout register --lineage``, in plain JSON and without secrets.

It is an object with the places of a manifest's lineage and, beside them, ``evaluation`` with the metrics.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gateway.errors import RegistryError
from gateway.registry import canonical

__all__ = ["HIDDEN", "SECRET", "merged", "plain", "read_file", "write_file"]

SECRET = re.compile(r"pass(word|wd|phrase)|secret|api[-_]?key|credential|(^|[-_])token$", re.IGNORECASE)
HIDDEN = "***"
_MAX_TEXT = 500


def plain(value: Any) -> Any:
    """As JSON: numpy's scalars become numbers, paths and what else is no JSON become text, secrets become ``***``."""
    if isinstance(value, Mapping):
        return {str(key): _hidden(str(key), item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=repr)
    if not isinstance(value, str | int | float | bool | None) and callable(getattr(value, "item", None)):
        return plain(value.item() if getattr(value, "ndim", 0) == 0 else value.tolist())
    try:
        return canonical.thaw(canonical.freeze(value))
    except RegistryError:
        return (str(value) if isinstance(value, os.PathLike) else repr(value))[:_MAX_TEXT]


def _hidden(name: str, value: Any) -> Any:
    return HIDDEN if isinstance(value, str) and value and SECRET.search(name) else plain(value)


def merged(given: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` wins; ``beside`` fills what it leaves out, within objects too. Lists are one value."""
    found = {name: value for name, value in given.items() if value is not None}
    for name, value in beside.items():
        own = found.get(name)
        if own is None:
            found[name] = value
        elif isinstance(own, Mapping) and isinstance(value, Mapping):
            found[name] = merged(own, value)
    return found


def write_file(path: Path, body: Mapping[str, Any]) -> None:
    """Whole or not at all. RegistryError names what cannot be kept."""
    canonical.dumps(body)
    text = json.dumps(body, indent=2, ensure_ascii=False, sort_keys=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(f"{text}\n", encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise RegistryError(f"the lineage file {path} cannot be written: {error.strerror}") from error


def read_file(path: Path) -> dict[str, Any]:
    """RegistryError for what is no JSON object."""
    try:
        body = canonical.loads_any(path.read_bytes(), what=f"lineage file {path}")
    except OSError as error:
        raise RegistryError(f"the lineage file {path} cannot be read: {error.strerror}") from error
    if not isinstance(body, dict):
        raise RegistryError(f"lineage file {path}: expected an object")
    return body
