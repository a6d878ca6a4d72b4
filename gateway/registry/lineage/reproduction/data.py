"""The data that was trained on: where it is now, whether it is the same, and what to do where it is not."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gateway.registry.lineage.files import digest_of_file, digest_of_folder
from gateway.registry.lineage.places import DataInput, Kinds
from gateway.registry.lineage.reproduction.asked import Asked, Check, inside

__all__ = ["data_again"]


def data_again(kinds: Kinds, asked: Asked, code: Path | None) -> tuple[list[dict[str, Any]], list[Check]]:
    if not kinds.data:
        return [], [Check("data", "unknown", "no data input was recorded")]
    rows, checks = [], []
    for row in kinds.data:
        found, check = _input(row, asked, code)
        checks.append(check)
        rows.append({**asdict(row), "found": None if found is None else str(found), "state": check.state})
    return rows, checks


def _input(row: DataInput, asked: Asked, code: Path | None) -> tuple[Path | None, Check]:
    what = f"data {row.name}"
    places = list(_places(row, asked, code))
    seen = None
    for place in places:
        found = _digest_at(place, row.digest)
        if found is None:
            continue
        if found == row.digest:
            _bring(row, place, code)
            return place, Check(what, "ok", f"{row.digest} at {place}")
        seen = seen or f"{row.digest} → {found} at {place}"
    if seen is not None:
        return None, Check(what, "differs", seen)
    if row.path is None and not places and row.url is None and row.dvc is None:
        return None, Check(what, "unknown", f"values in memory, {row.digest}: training again makes and checks them")
    return None, Check(what, "missing", _where(row))


def _places(row: DataInput, asked: Asked, code: Path | None) -> Iterator[Path]:
    """Named by the operator; in the checkout; where it was; below where the command was given."""
    given = (asked.data or {}).get(row.name)
    if given is not None:
        yield given
        return
    if row.size_bytes is None and row.path is None:
        return  # values in memory have neither
    name = row.path or row.name
    roots = [root for root in (code, asked.here) if root is not None]
    yield from (root / name for root in roots if not Path(name).is_absolute())
    if Path(name).is_absolute():
        yield Path(name)


def _digest_at(place: Path, recorded: str | None) -> str | None:
    """By the algorithm that it was recorded with, where that is one of ours."""
    algorithm = str(recorded).partition(":")[0]
    try:
        if place.is_dir():
            return digest_of_folder(place)[0]
        if not place.is_file():
            return None
        if algorithm in ("md5", "sha1", "sha512"):
            with place.open("rb") as file:
                return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        return digest_of_file(place)
    except OSError:
        return None


def _bring(row: DataInput, place: Path, code: Path | None) -> None:
    """To where the training reads it, unless it is there, or is read from a place of its own."""
    name = row.path or row.name
    if code is None or Path(name).is_absolute() or place.is_relative_to(code) or not inside(code, code / name):
        return
    target = code / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.copytree(place, target, dirs_exist_ok=True)
    else:
        shutil.copy2(place, target)


def _where(row: DataInput) -> str:
    name = f"--data {row.name}=PLACE"
    if row.dvc:
        return f"kept by DVC ({dict(row.dvc)}): run dvc pull in the code folder, or give it with {name}"
    if row.url:
        return f"fetch it from {row.url}, and give it with {name}"
    return f"not found as {row.path or row.name}; give it with {name}"
