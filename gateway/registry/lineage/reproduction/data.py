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

_NO_DATA = ("/proc", "/sys", "/dev", "/run")
"""Files there are made when they are read, some without end."""
_MOST_FILES = 1_000_000


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
        found = _digest_at(place, row)
        if found is None:
            continue
        if found == row.digest:
            if not _bring(row, place, code):
                return place, Check(
                    what, "missing", f"{row.digest} at {place}, not brought: the checkout has links there"
                )
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
    name = Path(row.path or row.name)
    if name.is_absolute():
        if not any(name.resolve().is_relative_to(place) for place in _NO_DATA):
            yield name
        return
    if ".." not in name.parts:
        yield from (root / name for root in (code, asked.here) if root is not None)


def _digest_at(place: Path, row: DataInput) -> str | None:
    """By the algorithm that it was recorded with, where that is one of ours. Of a folder that holds more than was
    recorded it is not asked: a manifest may name any, the whole disk too."""
    algorithm = str(row.digest).partition(":")[0]
    try:
        if place.is_dir():
            return digest_of_folder(place)[0] if _could_be(place, row) else "another: its size differs"
        if not place.is_file():
            return None
        if algorithm in ("md5", "sha1", "sha512"):
            with place.open("rb") as file:
                return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        return digest_of_file(place)
    except OSError:
        return None


def _could_be(folder: Path, row: DataInput) -> bool:
    size, most = 0, row.size_bytes
    for number, path in enumerate(folder.rglob("*")):
        size += path.stat().st_size if path.is_file() and ".git" not in path.parts else 0
        if number >= _MOST_FILES or (most is not None and size > most):
            return False
    return most is None or size == most


def _bring(row: DataInput, place: Path, code: Path | None) -> bool:
    """To where the training reads it, unless it is there, or is read from a place of its own. False where the checkout
    has links, which may lead anywhere: nothing is written through one."""
    name = row.path or row.name
    if code is None or Path(name).is_absolute() or place.is_relative_to(code):
        return True
    target = code / name
    if not inside(code, target) or any(path.is_symlink() for path in (target, *target.rglob("*"))):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        shutil.copytree(place, target, dirs_exist_ok=True)
    else:
        shutil.copy2(place, target)
    return True


def _where(row: DataInput) -> str:
    name = f"--data {row.name}=PLACE"
    if row.dvc:
        return f"kept by DVC ({dict(row.dvc)}): run dvc pull in the code folder, or give it with {name}"
    if row.url:
        return f"fetch it from {row.url}, and give it with {name}"
    return f"not found as {row.path or row.name}; give it with {name}"
