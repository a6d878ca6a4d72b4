"""The log's signed checkpoints: one file of notes beside it, and a copy elsewhere if the operator names a place.

The file stands where the log stands, so it proves nothing against whoever can write there; a copy elsewhere does.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from gateway.checkpoints import DECISIONS, Checkpoint, SigningKey, VerifyingKey, read_notes
from gateway.errors import InvalidInput

__all__ = ["NOTES_FILE", "Notes"]

NOTES_FILE = "checkpoints"

_TAIL_BYTES = 64 * 1024
PRUNE_BYTES = 1024 * 1024
"""So much must be old before the file is written anew: a note a minute is that in three days."""


class Notes:
    """``newest`` and its ``text``: what was signed last, by this key; ``fault``: why a note could not be written."""

    def __init__(self, folder: Path, key: SigningKey, *, copy: Path | None = None) -> None:
        self._key = key
        self._places = [folder / NOTES_FILE, *([] if copy is None else [copy])]
        self.fault: str | None = None
        self.newest, self.text = self._read(self._places[0])

    def __repr__(self) -> str:
        return f"<Notes [{0 if self.newest is None else self.newest.size} signed]>"

    @property
    def public(self) -> VerifyingKey:
        return self._key.public

    def sign(self, checkpoint: Checkpoint) -> None:
        """Never raises: a place that cannot be written to is told of by ``fault``."""
        self.newest, self.text = checkpoint, self._key.sign(checkpoint)
        self.fault = None
        for place in self._places:
            try:
                _append(place, self.text)
            except OSError as error:
                self.fault = f"checkpoints of the decision log cannot be written to {place}: {error.strerror}"

    def prune(self, before: float, *, least_bytes: int = PRUNE_BYTES) -> int:
        """Takes out what was signed before that time (seconds since the epoch), and gives the bytes that went. Nothing
        is proved less by it: a note is of the whole chain up to it, and the later ones stay. The copy elsewhere is its
        keeper's. A file that cannot be written anew stays as it is."""
        path = self._places[0]
        try:
            offset = _first_since(path, Checkpoint(1, "00" * 32, int(before), DECISIONS).text().splitlines()[-1])
            if offset < max(1, least_bytes):
                return 0
            _cut(path, offset)
        except OSError:
            return 0
        return offset

    def _read(self, path: Path) -> tuple[Checkpoint | None, str | None]:
        """The last that is this key's, from the file's end: a year of a note a minute is 130 MB, and opening half a
        million takes a minute."""
        with suppress(OSError):
            for note in reversed(read_notes(_tail(path), DECISIONS)[0]):
                with suppress(InvalidInput):
                    return self._key.public.open(note), note
        return None, None


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
        return file.read().decode("utf-8", "replace")


def _first_since(path: Path, time: str) -> int:
    """Where the first note begins whose line of time is not before; the last one, if none is. As text: the form of the
    times has the order of time."""
    begun = offset = 0
    with path.open("rb") as file:
        for line in file:
            if line.rstrip(b"\n") == DECISIONS.origin.encode():
                begun = offset
            elif line.startswith(b"time ") and line.rstrip(b"\n").decode("utf-8", "replace") >= time:
                return begun
            offset += len(line)
    return begun


def _cut(path: Path, offset: int) -> None:
    """Whole, or as it was."""
    partial = path.with_name(f".{path.name}.partial")
    with path.open("rb") as old, partial.open("wb") as new:
        os.fchmod(new.fileno(), os.fstat(old.fileno()).st_mode & 0o777)
        old.seek(offset)
        shutil.copyfileobj(old, new, 1024 * 1024)
        new.flush()
        os.fsync(new.fileno())
    partial.replace(path)


def _append(path: Path, note: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        whole = f"{note}\n".encode()
        written = os.write(descriptor, whole)
        if written < len(whole):
            os.ftruncate(descriptor, max(0, os.fstat(descriptor).st_size - written))
            raise OSError(28, "there is no room for it")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
