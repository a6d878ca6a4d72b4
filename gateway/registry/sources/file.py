"""Sources on this machine: one artifact file, or a folder whose files all belong to the version."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from gateway.errors import InvalidRegistration
from gateway.registry.names import check_file_name
from gateway.registry.sources.provenance import Provenance
from runtimes.catalog import FORMATS, guess_format

__all__ = ["Source", "SourceFile", "SourceLimits", "from_path"]

_LEFT_OUT = frozenset({"__pycache__"})  # Python writes it beside a model that runs; it differs from run to run
_ECHO = (".echo", ".echo.json")
_ITEMS_PER_FILE = 4


@dataclass(frozen=True, slots=True)
class SourceLimits:
    files: int = 10_000
    bytes: int = 64 * 1024**3


@dataclass(frozen=True, slots=True)
class SourceFile:
    """``name`` within the version; ``path`` on this machine, with links resolved."""

    name: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Source:
    """``provenance``: what the system that the files come from says of them; None for files of this machine."""

    files: tuple[SourceFile, ...]
    entry: str
    format: str
    provenance: Provenance | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def from_path(path: Path, *, entry: str | None, format_name: str | None, limits: SourceLimits) -> Source:
    """See ``gateway.registry.sources.open_source``."""
    if format_name is not None and format_name not in FORMATS:
        raise InvalidRegistration(f"format {format_name!r} is unknown; expected one of {', '.join(FORMATS)}")
    try:
        root = path.resolve(strict=True)
        files = _folder(root, limits) if root.is_dir() else (_regular(path.name, root),)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
        raise InvalidRegistration(f"source {path} cannot be read: {error}; check the path and its rights") from error
    total = sum(file.size_bytes for file in files)
    if total > limits.bytes:
        raise InvalidRegistration(f"source {path} has {total} bytes; at most {limits.bytes} are taken for one version")
    names = [file.name for file in files]
    chosen = entry or _only_entry(path, names)
    if chosen not in names:
        raise InvalidRegistration(f"entry {chosen!r} is not in {path}; its files are {_listed(names)}")
    return Source(files, chosen, format_name or _format_of(chosen))


def _folder(root: Path, limits: SourceLimits) -> tuple[SourceFile, ...]:
    files = []
    for name, path in _walk(root, root, (), count(1), limits):
        files.append(_regular(name, path))
        if len(files) > limits.files:
            raise InvalidRegistration(f"source {root} has over {limits.files} files; register the model's own folder")
    if not files:
        raise InvalidRegistration(f"source {root} is an empty folder; expected a model file in it")
    return tuple(sorted(files, key=lambda file: file.name))


def _walk(
    folder: Path, root: Path, above: tuple[Path, ...], looked: Iterator[int], limits: SourceLimits
) -> Iterator[tuple[str, Path]]:
    """Names and real paths below a folder. Links are followed inside the root, and refused beyond it. ``looked`` counts
    what was come across: folders that link to each other may have more ways through them than anybody can go."""
    for item in sorted(folder.iterdir()):
        if next(looked) > _ITEMS_PER_FILE * limits.files:
            raise InvalidRegistration(
                f"source {root} has over {_ITEMS_PER_FILE * limits.files} files and folders, counted by every way that "
                "links lead to them; register the model's own folder"
            )
        if item.name in _LEFT_OUT:
            continue
        real = item.resolve(strict=True)
        if not real.is_relative_to(root):
            raise InvalidRegistration(f"{item} links to {real}, outside the source {root}; copy the file into it")
        name = "/".join([*(part.name for part in above), item.name])
        if not real.is_dir():
            yield name, real
        elif real in {part.resolve() for part in above} | {root}:
            raise InvalidRegistration(f"{item} links to a folder that holds it; remove the link")
        else:
            yield from _walk(item, root, (*above, item), looked, limits)


def _regular(name: str, path: Path) -> SourceFile:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRegistration(f"{path} is not a regular file; only files and folders can be registered")
    return SourceFile(check_file_name(name), path, status.st_size)


def _only_entry(path: Path, names: Sequence[str]) -> str:
    """The one file that can be loaded: at the top, and with a suffix that speaks for a format.

    A ``.py`` file beside another format's artifact is its helper, unless it is ``model.py``.
    """
    if len(names) == 1:
        return names[0]
    top = [name for name in names if "/" not in name and _guess(name) is not None]
    artifacts = [name for name in top if not name.endswith(".py")]
    candidates = ["model.py"] if "model.py" in top else artifacts or top
    if len(candidates) != 1:
        found = f"several could be it: {_listed(candidates)}" if candidates else f"none of {_listed(names)} is a model"
        raise InvalidRegistration(f"source {path} has no clear entry ({found}); name it with --entry FILE")
    return candidates[0]


def _guess(name: str) -> str | None:
    return "echo" if name.endswith(_ECHO) else guess_format(name)


def _format_of(name: str) -> str:
    guessed = _guess(name)
    if guessed is None:
        raise InvalidRegistration(
            f"{name!r} speaks for no format; expected .onnx, .pt2, .pt, .skops, .pkl, .py or .echo.json, "
            f"or name one with --format ({', '.join(FORMATS)})"
        )
    return guessed


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
