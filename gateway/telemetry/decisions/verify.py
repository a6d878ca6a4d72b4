"""Proof of the log from its files alone, without a gateway: what was altered, removed, put elsewhere, cut off or lost.

Every link is made again from what stands in the files, frames and Parquet alike. The chain proves its inside; its end
is proved by checkpoints, as far as they reach, and those that are kept elsewhere prove it against whoever could write
here. What was retired is told from what is missing by the control record that said so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.checkpoints import Checkpoint
from gateway.telemetry.decisions.agreement import disagreements
from gateway.telemetry.decisions.compaction import Gathered
from gateway.telemetry.decisions.frames import CONTROL, GENESIS, MAGIC, Frame, body_of, link_of, read_frames
from gateway.telemetry.decisions.parquet import controls_of, lines_in_order, read_passport
from gateway.telemetry.decisions.segments import Segment, listed

__all__ = ["Report", "verify"]

_MAX_FAULTS = 100


class _Burst(NamedTuple):
    """``link`` as it stands in the file; None: there are its first bytes only (``tag``)."""

    kind: int
    sequence: int
    written_ms: int
    lines: Sequence[bytes]
    tag: bytes
    link: bytes | None

    @property
    def last(self) -> int:
        return self.sequence + len(self.lines) - 1


@dataclass(slots=True)
class Report:
    """``faults`` empty: all stands as it was written. ``signed``: up to which line checkpoints agree. ``gaps``: what
    the log itself says is missing. ``keys`` that it names as those it is signed by, each with the line that does."""

    segments: int = 0
    first: int = 0
    last: int = 0
    head: str = GENESIS.hex()
    records: int = 0
    signed: int | None = None
    agreed: int = 0
    faults: list[str] = field(default_factory=list)
    gaps: list[Mapping[str, Any]] = field(default_factory=list)
    keys: list[tuple[int, str]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        said = {name: getattr(self, name) for name in self.__slots__}
        return {"ok": not self.faults, **said}


def verify(folder: Path, checkpoints: Sequence[Checkpoint] = ()) -> Report:
    """Walks the whole log. ``checkpoints``: those whose signatures have been opened."""
    if not (segments := listed(folder)):
        return Report(faults=[f"no decision log is in {folder}: it is elsewhere, or was removed"])
    return _Walk(checkpoints).over(segments)


class _Walk:
    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        self._report = Report()
        self._pending = sorted(checkpoints, key=lambda one: one.size)
        self._expected = 1
        # None: what stood before cannot be read, so what follows is taken as it is.
        self._link: bytes | None = GENESIS
        self._retired: set[int] = set()
        self._before, self._gone = 0, list[int]()  # segments that went while we walked
        self._place = ""

    def over(self, segments: Sequence[Segment]) -> Report:
        before: Segment | None = None
        for segment in segments:
            self._between(before, segment)
            self._before = 0 if before is None else before.number
            self._segment(segment)
            before = segment
        self._report.segments = len(segments)
        self._report.last = self._expected - 1
        self._end(segments)
        return self._report

    def _fault(self, text: str) -> None:
        if len(self._report.faults) < _MAX_FAULTS:
            self._report.faults.append(text)

    def _between(self, before: Segment | None, segment: Segment) -> None:
        self._place = f"segment {segment.number} ({(segment.parquet if segment.compacted else segment.log).name})"
        if before is not None and segment.number != before.number + 1:
            names = _span(before.number + 1, segment.number - 1)
            self._fault(f"segment{names} missing: the log goes on from segment {before.number} to {segment.number}")
            self._link = None

    def _segment(self, segment: Segment) -> None:
        try:
            self._bursts(_raw(segment.log) if segment.raw and not segment.compacted else _compacted(segment.parquet))
        except FileNotFoundError:  # compacted since we looked, or retired
            if segment.parquet.exists():
                self._segment(replace(segment, compacted=True))
            else:
                self._gone.append(segment.number)

    def _bursts(self, bursts: Iterator[_Burst | str]) -> None:
        first = True
        for burst in bursts:
            if isinstance(burst, str):
                self._fault(f"{self._place}: {burst}")
                self._link = None
                continue
            if first:
                self._heading(burst)
            first = False
            self._burst(burst)

    def _heading(self, burst: _Burst) -> None:
        """The segment says where in the chain it begins."""
        event = _event(burst.lines[0]) if burst.kind == CONTROL else {}
        if event.get("event") != "segment":
            self._fault(f"{self._place}: its first frame is missing")
            self._link = None
            return
        previous = bytes.fromhex(str(event.get("previous", "")))
        if not self._report.first:
            self._report.first = burst.sequence
            if event.get("number") != 1 or burst.sequence != 1:
                self._expected, self._link = burst.sequence, previous
        elif self._before in self._gone:
            self._expected, self._link = burst.sequence, previous
            self._pending = [one for one in self._pending if one.size >= burst.sequence]
        elif self._link is None:
            self._link = previous
        elif burst.sequence > self._expected:
            self._fault(
                f"the segment before {self._place} was cut off: it ends with record {self._expected - 1}, and "
                f"{burst.sequence - 1} stood before this one"
            )
            self._expected, self._link = burst.sequence, previous

    def _burst(self, burst: _Burst) -> None:
        here = f"{self._place}: record{_span(burst.sequence, burst.last)}"
        if burst.sequence > self._expected:
            self._fault(
                f"{self._place}: record{_span(self._expected, burst.sequence - 1)} missing before {burst.sequence}"
            )
            self._link = None
        elif burst.sequence < self._expected:
            self._fault(f"{here} out of order, or there twice: {self._expected} was expected")
            self._link = None
        body = body_of(burst.kind, burst.sequence, burst.written_ms, burst.lines)
        if self._link is None:
            self._link = burst.link
        else:
            made = link_of(self._link, body)
            if made[:8] != burst.tag or (burst.link is not None and made != burst.link):
                self._fault(f"{here} altered, or do not follow what stands before")
                made = burst.link or made
            self._link = made
        self._expected = burst.last + 1
        self._read(burst)
        self._agree(burst.last)

    def _read(self, burst: _Burst) -> None:
        if burst.kind != CONTROL:
            self._report.records += len(burst.lines)
            return
        for sequence, line in enumerate(burst.lines, burst.sequence):
            event = _event(line)
            if event.get("event") == "retired":
                self._retired.add(int(event.get("segment", 0)))
            elif event.get("event") == "open":
                self._report.keys.append((sequence, str(event.get("signed_by"))))
            elif event.get("event") == "gap":
                self._report.gaps.append({"sequence": sequence, **event})

    def _agree(self, last: int) -> None:
        while self._pending and self._pending[0].size <= last:
            checkpoint = self._pending.pop(0)
            if checkpoint.size < self._report.first:
                continue  # it is of what was retired
            if checkpoint.size == last and self._link is not None and checkpoint.head == self._link.hex():
                self._report.agreed += 1
                self._report.signed = checkpoint.size
            else:
                self._fault(
                    f"{self._place}: the chain stands otherwise at record {checkpoint.size} than was signed: it was "
                    "written anew, or the checkpoint is another log's"
                )

    def _end(self, segments: Sequence[Segment]) -> None:
        if self._link is not None:
            self._report.head = self._link.hex()
        if self._pending:
            most = self._pending[-1].size
            self._fault(f"the log was cut off: it ends with record {self._report.last}, and {most} were signed")
        if gone := [number for number in self._gone if number not in self._retired]:
            self._fault(f"segment{_span(gone[0], gone[-1])} missing, and no record says that they were retired")
        if segments[0].number > 1 and segments[0].number - 1 not in self._retired:
            self._fault(f"segment{_span(1, segments[0].number - 1)} missing, and no record says that they were retired")


def _span(first: int, last: int) -> str:
    """``" 3 is"``, ``"s 3 to 5 are"``."""
    return f" {first} is" if first >= last else f"s {first} to {last} are"


def _event(line: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _raw(path: Path) -> Iterator[_Burst | str]:
    """What is torn at the end is looked at again when the file has grown meanwhile: its writer was at it."""
    offset = len(MAGIC)
    with path.open("rb") as file:
        while True:
            size, torn = os.fstat(file.fileno()).st_size, None
            for found in read_frames(file, offset):
                if isinstance(found, Frame):
                    yield _Burst(found.kind, found.sequence, found.written_ms, found.lines, found.link[:8], found.link)
                    offset = found.end
                elif found.more or os.fstat(file.fileno()).st_size == size:
                    yield f"byte {found.offset}: {found.reason}"
                else:
                    torn = found
            if torn is None:
                return


def _compacted(path: Path) -> Iterator[_Burst | str]:
    """What its rows give; where rows are missing, the burst is shorter than its mark, and its link does not fit.
    What no link covers must agree with them, too."""

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            gathered = Gathered(sorted(controls_of(file).items()))
            passport = read_passport(file)
            rows = _Rows(file)
            begin = passport.first
            for place, mark in enumerate(passport.frames, 1):
                taken, complaint = rows.take(begin, mark.lines)
                if complaint is not None:
                    yield complaint
                if taken:
                    link = passport.link if place == len(passport.frames) else None
                    burst = _Burst(mark.kind, begin, mark.written_ms, taken, mark.tag, link)
                    gathered.take(_frame(burst))
                    yield burst
                begin += mark.lines
            yield from disagreements(file, gathered, path.with_suffix(".ids"))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        yield f"it cannot be read: {error}"


class _Rows:
    """The rows of a file in the chain's order, taken burst by burst."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._lines = lines_in_order(file)
        self._next = next(self._lines, None)

    def take(self, begin: int, count: int) -> tuple[list[bytes], str | None]:
        """The lines with these numbers, up to the first that is missing, and which that is."""
        taken: list[bytes] = []
        complaint = None
        while self._next is not None and self._next[0] < begin + count:
            sequence, line = self._next
            if complaint is None and sequence == begin + len(taken):
                taken.append(line)
            elif complaint is None:
                complaint = f"record {begin + len(taken)} is missing, or another stands in its place"
            self._next = next(self._lines, None)
        if complaint is None and len(taken) < count:
            complaint = f"record{_span(begin + len(taken), begin + count - 1)} missing"
        return taken, complaint


def _frame(burst: _Burst) -> Frame:
    body = body_of(burst.kind, burst.sequence, burst.written_ms, burst.lines)
    return Frame(0, 0, burst.tag, burst.kind, burst.sequence, burst.written_ms, body)
