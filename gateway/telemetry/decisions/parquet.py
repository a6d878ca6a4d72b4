"""A closed segment as one Parquet file: a column for each field, and all that the chain needs, so it stands alone.

A record's bytes are made again from its columns (their form is canonical, see ``fields``), and the links over them,
burst by burst, from the footer's list of frames: kind, number of lines, time, and the first eight bytes of each link,
by which a damaged burst is named; the whole link at the end is what the next segment and the checkpoints agree with. So
the file holds no second copy of anything, and still proves what the frames proved. Control records are rows, too, with
their text in ``control``. Rows stand in order of decision ids; ``sequence`` is the chain's order.

What was in force is resolved into columns of its own (``weights``, ``digest`` and ``loaded`` of the version that
answered, ``instance``, ``build``), which no link covers: they follow from control records, which one does.
"""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gateway.telemetry.decisions.fields import COLUMNS, encoded
from gateway.telemetry.decisions.frames import GENESIS

__all__ = [
    "RESOLVED",
    "SCHEMA",
    "SOUGHT",
    "FrameMark",
    "Passport",
    "controls_of",
    "lines_in_order",
    "read_passport",
    "write_table",
]

PASSPORT = b"turnout.decisions"
ROWS_A_GROUP = 4096
"""A look-up reads one group: smaller ones are found faster, and take more of the file."""

_TEXT, _NUMBER, _SHARED = pa.string(), pa.int64(), pa.string()
_TYPES: dict[str, pa.DataType] = {
    "started": pa.timestamp("us", tz="UTC"),
    "slow": pa.bool_(),
    "flag_stale": pa.bool_(),
    "redacted": pa.list_(pa.string()),
    **dict.fromkeys(
        (
            *("duration_us", "version", "answered", "code", "bucket", "revision", "epoch", "rows", "queue_us"),
            *("compute_us", "decode_us", "decide_us", "encode_us", "batch", "batch_rows", "flag_age_ms"),
        ),
        _NUMBER,
    ),
}
RESOLVED = ("weights", "digest", "loaded", "instance", "build")
SCHEMA = pa.schema(
    [
        pa.field("sequence", _NUMBER),
        *(pa.field(name, _TYPES.get(name, _TEXT)) for name in COLUMNS),
        pa.field("control", _TEXT),
        *(pa.field(name, _SHARED) for name in RESOLVED),
    ]
)

_UNIQUE = frozenset({"sequence", "decision", "request", "trace", "span", "parent_span", "inputs", "outputs", "payload"})
SOUGHT = ["sequence", "decision", "request", "started", "route", "model", "version", "answered", "code"]
"""Whose least and greatest values each group names."""
_FRAME = struct.Struct("<BIQ8s")
_LEVEL = 3
"""zstd's own default: level 9 takes three times the time for 3% less, since hashes and ids do not compress."""


class FrameMark(NamedTuple):
    kind: int
    lines: int
    written_ms: int
    tag: bytes


@dataclass(frozen=True, slots=True)
class Passport:
    """What the footer says of the segment's place in the chain."""

    number: int
    previous: bytes
    link: bytes
    first: int
    last: int
    frames: tuple[FrameMark, ...]

    def to_bytes(self) -> bytes:
        packed = zlib.compress(b"".join(_FRAME.pack(*mark) for mark in self.frames))
        return json.dumps(
            {
                "schema": 1,
                "number": self.number,
                "previous": self.previous.hex(),
                "link": self.link.hex(),
                "first": self.first,
                "last": self.last,
                "frames": base64.b64encode(packed).decode("ascii"),
            }
        ).encode("ascii")

    @classmethod
    def from_bytes(cls, text: bytes) -> Passport:
        """Raises ValueError."""
        try:
            body = json.loads(text)
            packed = zlib.decompress(base64.b64decode(body["frames"]))
            frames = tuple(FrameMark(*one) for one in _FRAME.iter_unpack(packed))
            previous, link = bytes.fromhex(body["previous"]), bytes.fromhex(body["link"])
            made = cls(int(body["number"]), previous, link, int(body["first"]), int(body["last"]), frames)
        except (KeyError, TypeError, zlib.error, struct.error) as error:
            raise ValueError(f"its passport cannot be read: {error}") from None
        if len(made.previous) != len(GENESIS) or len(made.link) != len(GENESIS):
            raise ValueError("its passport names no links")
        return made


def write_table(path: Path, table: pa.Table, passport: Passport) -> None:
    """In order of decision ids, control records without one last."""
    ordered = table.take(pc.sort_indices(table, sort_keys=[("decision", "ascending")]))
    writer = pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=[name for name in SCHEMA.names if name not in _UNIQUE],
        write_statistics=SOUGHT,
        write_page_checksum=True,
        store_schema=False,
    )
    with writer:
        writer.write_table(ordered, row_group_size=ROWS_A_GROUP)
        writer.add_key_value_metadata({PASSPORT: passport.to_bytes()})


def read_passport(file: pq.ParquetFile) -> Passport:
    """Raises ValueError."""
    found = (file.metadata.metadata or {}).get(PASSPORT)
    if found is None:
        raise ValueError("it has no passport: it was not written by this program")
    return Passport.from_bytes(found)


def lines_in_order(file: pq.ParquetFile) -> Iterator[tuple[int, bytes]]:
    """Sequence numbers and lines, as the frames had them; groups are read one by one, and what is early waits, so all
    of a segment is never held. Raises ValueError, and pyarrow's errors, where the file is damaged."""
    waiting = controls_of(file)
    following = min(waiting, default=0)
    for group in range(file.num_row_groups):
        for batch in file.iter_batches(ROWS_A_GROUP, row_groups=[group], columns=["sequence", *COLUMNS, "control"]):
            for sequence, line in _records(batch):
                if sequence in waiting:
                    raise ValueError(f"two of its rows have the sequence number {sequence}")
                waiting[sequence] = line
        while following in waiting:
            yield following, waiting.pop(following)
            following += 1
    yield from sorted(waiting.items())


def controls_of(file: pq.ParquetFile) -> dict[int, bytes]:
    """Control records by their places in the chain."""
    found: dict[int, bytes] = {}
    for batch in file.iter_batches(ROWS_A_GROUP, columns=["sequence", "control"]):
        kept = batch.filter(pc.is_valid(batch.column("control")))
        for sequence, text in zip(kept.column("sequence").to_pylist(), kept.column("control").to_pylist(), strict=True):
            found[sequence] = text.encode()
    return found


def _records(batch: pa.RecordBatch) -> Iterator[tuple[int, bytes]]:
    kept = batch.filter(pc.is_null(batch.column("control")))
    for sequence, line in zip(kept.column("sequence").to_pylist(), rows_of(kept), strict=True):
        yield sequence, encoded(line)


def rows_of(batch: pa.RecordBatch) -> Iterator[list[Any]]:
    """Records in the order of ``COLUMNS``; of a control record only the decision, if it has one."""
    columns = [_plain(batch.column(name)).to_pylist() for name in COLUMNS]
    yield from map(list, zip(*columns, strict=True))


def _plain(column: pa.Array) -> pa.Array:
    return column.cast(_NUMBER) if pa.types.is_timestamp(column.type) else column
