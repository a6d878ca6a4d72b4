"""What stands in an environment: its packages by their own records, compared with the lock file. Runs nothing."""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from gateway.registry.environments.lock import Lock, normal_name, same_version
from gateway.registry.environments.mismatch import Mismatch

__all__ = ["altered", "differences", "folder_bytes", "installed", "python_of", "site_of"]


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def site_of(folder: Path) -> Path | None:
    """Where the packages are; None where the folder is no environment."""
    return next(iter(sorted(folder.glob("lib/python3*/site-packages"))), None)


def installed(folder: Path) -> dict[str, str]:
    """The packages by their normal names, and their versions."""
    site = site_of(folder)
    found: dict[str, str] = {}
    for place in [] if site is None else sorted(site.glob("*.dist-info")):
        name, version = _named(place)
        if name:
            found[normal_name(name)] = version
    return found


def differences(lock: Lock, found: Mapping[str, str]) -> tuple[Mismatch, ...]:
    """What the lock file asks for and is not there so. A package with a marker may be absent."""
    wrong: dict[str, Mismatch] = {}
    met: set[str] = set()
    for package in lock.packages:
        here = found.get(package.name)
        if (here is None and package.conditional) or (here is not None and same_version(package.version, here)):
            met.add(package.name)
        else:
            wrong[package.name] = Mismatch(package.name, package.version, here)
    return tuple(mismatch for name, mismatch in wrong.items() if name not in met)


def altered(folder: Path, *, hashed: bool) -> Iterator[Mismatch]:
    """Files of packages that are gone or have another size; ``hashed``: or other bytes, which reads all of them."""
    site = site_of(folder)
    for place in [] if site is None else sorted(site.glob("*.dist-info")):
        for name, digest, size in _record(place):
            path = place.parent / name
            problem = _altered(path, digest if hashed else "", size)
            if problem is not None:
                yield Mismatch(name, f"{size} bytes as installed", problem)


def folder_bytes(folder: Path) -> int:
    """What the files in it take, by their sizes; of a folder that changes meanwhile, about."""
    total, open_folders = 0, [str(folder)]
    while open_folders:
        try:
            with os.scandir(open_folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        open_folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except OSError:
            continue
    return total


def _named(place: Path) -> tuple[str, str]:
    name = version = ""
    try:
        with (place / "METADATA").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if not line.strip():
                    break
                name = value.strip() if key == "Name" else name
                version = value.strip() if key == "Version" else version
    except OSError:
        return "", ""
    return name, version


def _record(place: Path) -> Iterator[tuple[str, str, int]]:
    """Files with a hash and a size: what pip writes for all but compiled ones, which come and go."""
    try:
        with (place / "RECORD").open(encoding="utf-8", newline="") as rows:
            for row in csv.reader(rows):
                hashed = len(row) == 3 and row[1].startswith("sha256=") and row[2].isdigit()
                if hashed and not row[0].endswith(".pyc"):  # some wheels bring compiled ones, and pip writes them anew
                    yield row[0], row[1].removeprefix("sha256="), int(row[2])
    except (OSError, UnicodeDecodeError, csv.Error):
        yield f"{place.name}/RECORD", "", -1


def _altered(path: Path, digest: str, size: int) -> str | None:
    try:
        found = path.stat().st_size
        if found != size:
            return f"{found} bytes"
        if digest:
            with path.open("rb") as file:
                read = hashlib.file_digest(file, "sha256").digest()
            if base64.urlsafe_b64encode(read).rstrip(b"=").decode() != digest:
                return "other bytes"
    except OSError as error:
        return error.strerror or "unreadable"
    return None
