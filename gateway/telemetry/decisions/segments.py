"""The log's folder: which files there are, and in which order.

``00000007.log`` is a segment of frames, the last of them the open one; ``00000007.parquet`` the same after compaction;
``00000007.ids`` where its request ids are. A name that begins with a dot is unfinished and belongs to whoever writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FOLDER", "Segment", "listed", "raw_path", "remove", "unfinished"]

FOLDER = "decisions"
"""In the home."""

_NAME = re.compile(r"([0-9]{8,12})\.(log|parquet)")


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One of the two files may be there, or both for the moment between compaction and removal."""

    number: int
    folder: Path
    raw: bool
    compacted: bool

    @property
    def log(self) -> Path:
        return raw_path(self.folder, self.number)

    @property
    def parquet(self) -> Path:
        return self.log.with_suffix(".parquet")

    @property
    def ids(self) -> Path:
        return self.log.with_suffix(".ids")

    @property
    def bytes(self) -> int:
        return sum(_size(path) for path in (self.log, self.parquet, self.ids))


def raw_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08d}.log"


def listed(folder: Path) -> Sequence[Segment]:
    """In the order of their numbers; empty when there is no folder."""
    kinds: dict[int, set[str]] = {}
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            if (match := _NAME.fullmatch(path.name)) is not None:
                kinds.setdefault(int(match[1]), set()).add(match[2])
    return [Segment(number, folder, "log" in kind, "parquet" in kind) for number, kind in sorted(kinds.items())]


def unfinished(folder: Path) -> Iterator[Path]:
    """What a killed compaction has left."""
    with suppress(FileNotFoundError):
        yield from (path for path in folder.iterdir() if path.name.startswith(".") and path.suffix == ".partial")


def remove(segment: Segment) -> None:
    for path in (segment.ids, segment.log, segment.parquet):
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
