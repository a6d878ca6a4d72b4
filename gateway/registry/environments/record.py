"""What ``environment.json`` says of an environment. It is written last: a folder without it is no environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.registry import canonical
from gateway.registry.disk import write_whole

__all__ = ["EnvironmentEntry", "read_record", "write_record"]

_RECORD = "environment.json"


@dataclass(frozen=True, slots=True)
class EnvironmentEntry:
    """One that is built. ``built_at`` in seconds since the epoch. ``own``: the gateway's own interpreter stands in."""

    digest: str
    size_bytes: int
    built_at: float
    python: str
    packages: int
    own: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "size_bytes": self.size_bytes,
            "built_at": self.built_at,
            "python": self.python,
            "packages": self.packages,
            "own": self.own,
        }


def read_record(folder: Path) -> EnvironmentEntry | None:
    """None where there is none, or one that cannot be read."""
    path = folder / _RECORD
    try:
        body = json.loads(path.read_bytes())
        return EnvironmentEntry(
            canonical.DIGEST_PREFIX + folder.name,
            int(body["size_bytes"]),
            path.stat().st_mtime,
            str(body["python"]),
            len(dict(body["packages"])),
            own=body["own"] is True,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(
    folder: Path, *, lock: str, python: str, packages: Mapping[str, str], size_bytes: int, own: bool
) -> None:
    record = {"lock": lock, "python": python, "packages": dict(packages), "size_bytes": size_bytes, "own": own}
    write_whole(folder / _RECORD, json.dumps(record, indent=1, sort_keys=True).encode())
