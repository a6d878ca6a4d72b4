"""Between the progress of gates, and of files on their way, and bars on the screen."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from gateway.cli.output import Meter, Steps

__all__ = ["metered", "staged"]


def staged(steps: Steps) -> Callable[[str, int, int | None], None]:
    """A bar for each gate, or set of data, as it begins."""
    begun: dict[str, tuple[Meter, int]] = {}

    def progress(stage: str, done: int, total: int | None) -> None:
        meter, seen = begun.get(stage) or (steps(stage, total or 0), 0)
        meter(max(0, done - seen))
        begun[stage] = (meter, max(done, seen))

    return progress


@contextmanager
def metered(path: Path, progress: Callable[[int, int], None]) -> Iterator[IO[bytes]]:
    """The file, open to be sent; what is read of it is told."""
    with _Metered(path, progress) as file:
        yield file


class _Metered(io.FileIO):
    def __init__(self, path: Path, progress: Callable[[int, int], None]) -> None:
        super().__init__(path)
        self._progress = progress
        self._size = path.stat().st_size
        self._done = 0

    def read(self, size: int | None = -1, /) -> bytes:
        octets = super().read(-1 if size is None else size) or b""
        self._done += len(octets)
        self._progress(self._done, max(self._size, self._done))
        return octets
