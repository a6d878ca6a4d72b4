"""What of the home's records goes into a backup beside the store: labels and the decision log, as they are written.

The log's checkpoints are taken before its segments: they must never say more than the segments that come with them
show. A segment that is open is taken as far as it is, one that is compacted meanwhile in its new form, one that is
retired meanwhile not at all.
"""

from __future__ import annotations

import io
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, NamedTuple

from gateway.telemetry.decisions.notes import NOTES_FILE
from gateway.telemetry.decisions.segments import FOLDER, listed
from gateway.telemetry.feedback.tables import LABELS_FILE

__all__ = ["Saved", "is_saved_name", "saved_decisions", "saved_labels"]

_NAME = re.compile(rf"{re.escape(LABELS_FILE)}|{FOLDER}/(?:{NOTES_FILE}|[0-9]{{8,12}}\.(?:log|parquet|ids))")


class Saved(NamedTuple):
    """``size_bytes`` of ``file`` from its beginning, under ``name`` in the home. Whoever takes it closes the file."""

    name: str
    file: IO[bytes]
    size_bytes: int


def is_saved_name(name: str) -> bool:
    """Whether a file of an archive may become this file of a home."""
    return _NAME.fullmatch(name) is not None


def saved_labels(home: Path, scratch: Path) -> Iterator[Saved]:
    """A copy as of one moment, made in ``scratch``; nothing where there are none. Raises OSError."""
    source = home / LABELS_FILE
    if not source.exists():
        return
    copy = scratch / LABELS_FILE
    try:
        _copy(source, copy)
    except sqlite3.Error as error:
        raise OSError(f"{source}: {error}") from error
    yield Saved(LABELS_FILE, copy.open("rb"), copy.stat().st_size)


def _copy(source: Path, copy: Path) -> None:
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as from_, closing(sqlite3.connect(copy)) as to:
        from_.backup(to, pages=1000)


def saved_decisions(home: Path) -> Iterator[Saved]:
    folder = home / FOLDER
    with suppress(FileNotFoundError):
        notes = (folder / NOTES_FILE).read_bytes()
        yield Saved(f"{FOLDER}/{NOTES_FILE}", io.BytesIO(notes), len(notes))
    for segment in listed(folder):
        # Compacted between the look and now: the other form is there, since it is made before the first one goes.
        for paths in ((segment.log,), (segment.parquet, segment.ids)):
            found = [opened for path in paths if (opened := _opened(path)) is not None]
            yield from found
            if found:
                break


def _opened(path: Path) -> Saved | None:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    return Saved(f"{FOLDER}/{path.name}", file, os.fstat(file.fileno()).st_size)
