"""What no link of the chain covers in a compacted segment, and must agree with its records all the same.

Whoever alters these hides or colours a record without touching it: the columns that are resolved from control records,
the least and greatest values by which groups are looked for, and the file of request ids beside the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gateway.telemetry.decisions.compaction import Gathered
from gateway.telemetry.decisions.ids import ids_content
from gateway.telemetry.decisions.parquet import RESOLVED, SCHEMA, SOUGHT

__all__ = ["disagreements"]


def disagreements(file: pq.ParquetFile, gathered: Gathered, ids: Path) -> Iterator[str]:
    """In words. ``gathered`` from the file's own records. Raises OSError and pyarrow's errors."""
    if not file.schema_arrow.equals(SCHEMA):
        yield "its columns are not those of a decision log"
        return
    if not _resolved(file).equals(gathered.table().select(["sequence", *RESOLVED])):
        yield "a record's weights, digests, instance or build are not those that its control records say"
    for group in range(file.num_row_groups):
        yield from _misplaced(file, group)
    if ids.exists() and ids.read_bytes() != ids_content(gathered.hashes):
        yield f"{ids.name}, by which requests are found, is not that of its records"


def _resolved(file: pq.ParquetFile) -> pa.Table:
    table = file.read(columns=["sequence", *RESOLVED])
    return table.take(pc.sort_indices(table, sort_keys=[("sequence", "ascending")]))


def _misplaced(file: pq.ParquetFile, group: int) -> Iterator[str]:
    """Columns of a group whose least and greatest values are other than the footer says, or are not said."""
    table = file.read_row_group(group, columns=SOUGHT)
    described = file.metadata.row_group(group)
    for name in SOUGHT:
        column = table[name].combine_chunks()
        statistics: Any = described.column(SCHEMA.get_field_index(name)).statistics
        said = statistics is not None and statistics.has_min_max
        if not said and (name != "decision" or column.null_count == len(column)):
            continue
        span = pc.min_max(column)
        if (
            not said
            or _raw(statistics.min_raw) != _plain(span["min"])
            or _raw(statistics.max_raw) != _plain(span["max"])
            or (statistics.has_null_count and statistics.null_count != column.null_count)
        ):
            yield f"the footer says otherwise of column {name} in group {group} than its records do"


def _raw(value: Any) -> Any:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _plain(value: pa.Scalar) -> Any:
    return (value.cast(pa.int64()) if pa.types.is_timestamp(value.type) else value).as_py()
