"""Reads the decision log's open files behind its writer: what is durable, in order, a page at a time.

A segment that was compacted or retired before it was read is passed over, and how much that was is told; the log's
upkeep waits for those who follow, within bounds (``first_needed``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gateway.telemetry.decisions.frames import MAGIC, RECORDS, Frame, read_frames
from gateway.telemetry.decisions.segments import Segment, listed

__all__ = ["Entry", "Page", "Trail"]


class Entry(NamedTuple):
    """One record as it stands in the log: its number, when it was written (milliseconds), its canonical line."""

    sequence: int
    written_ms: int
    line: bytes


class Page(NamedTuple):
    """``end``: everything up to this line is in here, or was no record, or is gone. ``skipped`` lines are gone."""

    entries: Sequence[Entry]
    end: int
    skipped: int


class Trail:
    """One reader's; it stays in its file between two pages. ``durable``: the last line that the disk has for sure."""

    def __init__(self, folder: Path, durable: Callable[[], int]) -> None:
        self._folder = folder
        self._durable = durable
        self._segment: Segment | None = None
        self._file: BinaryIO | None = None
        self._offset = 0

    def __repr__(self) -> str:
        return f"<Trail {self._folder} [segment {0 if self._segment is None else self._segment.number}]>"

    @property
    def durable(self) -> int:
        return self._durable()

    @property
    def segment(self) -> int:
        """The number of the one that is read now; 0: none yet."""
        return 0 if self._segment is None else self._segment.number

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = self._segment = None

    def page(self, after: int, *, records: int, size: int) -> Page:
        """At most so many ``records``, of about so many bytes together, but one at least where there is one. Raises
        OSError."""
        gathered = _Gathered(after, self._durable(), records, size)
        if after >= gathered.limit:
            return gathered.page()
        if self._file is None:
            gathered.miss(self._open_at(after + 1))
        while (file := self._file) is not None:
            later = self._later()  # asked first: its writer has ended this one before it begins another
            if not self._read(file, gathered):
                break
            if later is not None:
                self._enter(later)
            elif self._later() is None:
                break
        return gathered.page()

    def _read(self, file: BinaryIO, gathered: _Gathered) -> bool:
        """To the end of the file; False: the page is full, or what follows is not durable."""
        for found in read_frames(file, self._offset):
            if isinstance(found, Frame):
                if not gathered.take(found):
                    return False
                self._offset = found.end
            elif not found.more:
                break  # else damage in the middle, which is the verifier's affair: its lines are missed with the next
        return True

    def _open_at(self, wanted: int) -> int:
        """The segment that has the line, or the first after it; how many lines are gone before that."""
        chosen: tuple[Segment, int] | None = None
        for segment in [one for one in listed(self._folder) if one.raw]:
            first = _first_line(segment.log)
            if first is None:
                continue
            if chosen is None or first <= wanted:
                chosen = segment, first
        if chosen is None:
            return 0
        segment, first = chosen
        self._enter(segment)
        return max(0, first - wanted)

    def _later(self) -> Segment | None:
        """The next segment, once there is a whole frame in it."""
        here = self.segment
        later = next((one for one in listed(self._folder) if one.raw and one.number > here), None)
        return None if later is None or _first_line(later.log) is None else later

    def _enter(self, segment: Segment) -> None:
        self.close()
        self._file = segment.log.open("rb")
        self._segment, self._offset = segment, len(MAGIC)


class _Gathered:
    """A page in the making: ``limit`` is the last line that may be in it, ``end`` the last that was looked at."""

    def __init__(self, after: int, limit: int, records: int, size: int) -> None:
        self.limit = limit
        self._end = after
        self._records, self._room = records, size
        self._skipped = 0
        self._entries: list[Entry] = []

    def page(self) -> Page:
        return Page(self._entries, self._end, self._skipped)

    def miss(self, lines: int) -> None:
        self._skipped += lines
        self._end += lines

    def take(self, frame: Frame) -> bool:
        """Whether the frame was taken to its end; lines that were taken before are passed over."""
        if frame.last <= self._end:
            return True
        if frame.last > self.limit:
            return False
        self.miss(max(0, frame.sequence - self._end - 1))
        for sequence, line in enumerate(frame.lines if frame.kind == RECORDS else (), frame.sequence):
            if sequence <= self._end:
                continue
            if len(self._entries) >= self._records or (self._entries and len(line) > self._room):
                return False
            self._entries.append(Entry(sequence, frame.written_ms, line))
            self._room -= len(line)
            self._end = sequence
        self._end = frame.last
        return True


def _first_line(path: Path) -> int | None:
    """The number of a segment's first line; None for one that has no whole frame, or is gone."""
    try:
        with path.open("rb") as file:
            found = next(read_frames(file), None)
    except FileNotFoundError:
        return None
    return found.sequence if isinstance(found, Frame) else None
