"""How far a sink has sent the log, kept in a small file beside it: a process that starts later goes on from there."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["CursorFile"]


class CursorFile:
    """``sequence`` is the last line of the log that was sent or given up. Used by one thread."""

    def __init__(self, folder: Path, name: str) -> None:
        self._path = folder / "sinks" / f"{name}.json"

    def __repr__(self) -> str:
        return f"<CursorFile {self._path}>"

    def read(self) -> int | None:
        """None where there is none, or none that can be read."""
        try:
            sequence = json.loads(self._path.read_bytes())["sequence"]
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return sequence if isinstance(sequence, int) and sequence >= 0 else None

    def write(self, sequence: int) -> None:
        """Whole or not at all. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        partial = self._path.with_name(f".{self._path.name}.partial")
        try:
            with partial.open("wb") as file:
                file.write(json.dumps({"sequence": sequence}).encode("ascii"))
                file.flush()
                os.fsync(file.fileno())
            partial.rename(self._path)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise
