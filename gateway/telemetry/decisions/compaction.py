"""Turns one closed segment into its Parquet file: a process of its own, behind everybody else, and gone afterwards.

``python -m gateway.telemetry.decisions.compaction FOLDER NUMBER``. The file is written beside, made durable, read back
and proved against the chain before it gets its name; only then the frames go. A segment that is damaged stays as it is.
Exit status: 0 done, 3 the segment is damaged, 4 somebody else is at it, 1 anything else.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gateway.telemetry.decisions.fields import COLUMNS, PLACE, decoded
from gateway.telemetry.decisions.frames import CONTROL, GENESIS, Frame, body_of, link_of, read_frames
from gateway.telemetry.decisions.ids import hash_of, write_ids
from gateway.telemetry.decisions.parquet import SCHEMA, FrameMark, Passport, lines_in_order, read_passport, write_table
from gateway.telemetry.decisions.rawsearch import controls_in
from gateway.telemetry.decisions.resolving import Resolver
from gateway.telemetry.decisions.segments import Segment

__all__ = ["DAMAGED", "TAKEN", "DamagedSegment", "Gathered", "compact", "prove", "readable_rows", "table_of"]

DAMAGED, TAKEN = 3, 4
_CHUNK_LINES = 4096
_DECISION, _REQUEST = PLACE["decision"], PLACE["request"]


class DamagedSegment(Exception):
    """Its frames do not hold together: it is kept as it is, for the verifier."""


class Gathered:
    """Lines of frames, gathered into columns a chunk at a time. ``controls``: all control records of the segment with
    their places, so far as they are known before: a decision may stand before what says what was in force for it."""

    def __init__(self, controls: Iterable[tuple[int, bytes]] = ()) -> None:
        self._resolver = Resolver()
        for place, text in controls:
            self._resolver.hear(place, orjson.loads(text))
        self.marks: list[FrameMark] = []
        self.hashes: list[tuple[int, str]] = []
        self._batches: list[pa.RecordBatch] = []
        self._rows: list[list[Any]] = []

    def table(self) -> pa.Table:
        self._close_chunk()
        return pa.Table.from_batches(self._batches, SCHEMA)

    def take(self, frame: Frame) -> None:
        lines = frame.lines
        self.marks.append(FrameMark(frame.kind, len(lines), frame.written_ms, frame.link[:8]))
        for sequence, line in enumerate(lines, frame.sequence):
            self._rows.append(self._control(sequence, line) if frame.kind == CONTROL else self._record(sequence, line))
        if len(self._rows) >= _CHUNK_LINES:
            self._close_chunk()

    def _record(self, sequence: int, text: bytes) -> list[Any]:
        line = decoded(text)
        if line[_REQUEST] is not None:
            self.hashes.append((hash_of(line[_REQUEST]), line[_DECISION]))
        return [sequence, *line, None]

    def _control(self, sequence: int, text: bytes) -> list[Any]:
        event = orjson.loads(text)
        self._resolver.hear(sequence, event)
        decision = event.get("decision")
        about = decision if isinstance(decision, str) else None
        return [sequence, about, *([None] * (len(COLUMNS) - 1)), text.decode()]

    def _close_chunk(self) -> None:
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        resolved = map(self._resolver.of, rows)
        columns = [*zip(*rows, strict=True), *zip(*resolved, strict=True)]
        arrays = [
            pa.array(column, pa.int64()).cast(field.type)
            if pa.types.is_timestamp(field.type)
            else pa.array(column, field.type)
            for column, field in zip(columns, SCHEMA, strict=True)
        ]
        self._batches.append(pa.RecordBatch.from_arrays(arrays, schema=SCHEMA))


def whole_frames(path: Path) -> Iterator[Frame]:
    """Each in its place in the chain. Raises DamagedSegment where one is not."""
    link: bytes | None = None
    sequence = 0
    with path.open("rb") as file:
        for found in read_frames(file):
            if not isinstance(found, Frame):
                raise DamagedSegment(f"{path.name}, byte {found.offset}: {found.reason}")
            if link is None:
                heading = orjson.loads(found.lines[0])
                link, sequence = bytes.fromhex(heading["previous"]), found.sequence
            if found.sequence != sequence or link_of(link, found.body) != found.link:
                raise DamagedSegment(f"{path.name}, byte {found.offset}: the chain is broken at record {sequence}")
            link, sequence = found.link, found.last + 1
            yield found


def table_of(path: Path, number: int) -> tuple[pa.Table, Passport, Sequence[tuple[int, str]]]:
    """The segment's rows in the chain's order, its passport, and hashes of request ids with their decisions."""
    gathered = Gathered(controls_in(path))
    first = last = 0
    previous = link = GENESIS
    for frame in whole_frames(path):
        if not first:
            first, previous = frame.sequence, bytes.fromhex(orjson.loads(frame.lines[0])["previous"])
        last, link = frame.last, frame.link
        gathered.take(frame)
    passport = Passport(number, previous, link, first, last, tuple(gathered.marks))
    return gathered.table(), passport, gathered.hashes


def readable_rows(path: Path) -> pa.Table:
    """What can be read of a segment that may be open or damaged, in the chain's order."""
    gathered = Gathered(controls_in(path))
    with path.open("rb") as file:
        for found in read_frames(file):
            if isinstance(found, Frame):
                gathered.take(found)
    return gathered.table()


def compact(segment: Segment) -> int:
    """The new file's bytes. Raises DamagedSegment, OSError, and pyarrow's errors; nothing is lost by any."""
    partial = segment.folder / f".{segment.parquet.name}.partial"
    table, passport, hashes = table_of(segment.log, segment.number)
    try:
        write_table(partial, table, passport)
        del table
        _durable(partial)
        prove(partial)
        write_ids(segment.ids, hashes)
        ended = segment.log.stat().st_mtime
        os.utime(partial, (ended, ended))
        partial.rename(segment.parquet)
    finally:
        partial.unlink(missing_ok=True)
    _durable(segment.folder)
    segment.log.unlink()
    return segment.parquet.stat().st_size


def prove(path: Path) -> Passport:
    """Every link made again from the file alone. Raises ValueError at the first that differs."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        passport = read_passport(file)
        lines = lines_in_order(file)
        sequence, link = passport.first, passport.previous
        for mark in passport.frames:
            taken = [line for _, line in zip(range(mark.lines), (text for _, text in lines), strict=False)]
            link = link_of(link, body_of(mark.kind, sequence, mark.written_ms, taken))
            if len(taken) != mark.lines or link[:8] != mark.tag:
                raise ValueError(f"records {sequence} to {sequence + mark.lines - 1} are not as they were written")
            sequence += mark.lines
        if link != passport.link or next(lines, None) is not None:
            raise ValueError("its rows do not end where its passport says")
    return passport


def _durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _behind_everybody() -> None:
    with suppress(OSError):
        os.nice(19)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def main(arguments: Sequence[str]) -> int:
    folder, number = Path(arguments[0]), int(arguments[1])
    _behind_everybody()
    os.umask(0o027)  # as frames are: payloads are nobody else's
    pa.set_memory_pool(pa.system_memory_pool())  # arrow's own keeps half as much again
    gc.disable()  # rows by the hundred thousand, and no cycles among them
    with (folder / "compaction-lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return TAKEN
        try:
            compact(Segment(number, folder, raw=True, compacted=False))
        except DamagedSegment as fault:
            sys.stderr.write(f"{fault}\n")
            return DAMAGED
        except (OSError, ValueError, pa.ArrowException) as fault:
            sys.stderr.write(f"segment {number}: {fault}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
