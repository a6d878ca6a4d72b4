"""SQL over the log with DuckDB: compacted segments as they are, and the frames that are not compacted yet beside them.

``decisions`` has one row an answer; ``controls`` what else the chain holds, as JSON. DuckDB and pyarrow are extras
(``turnout[decisions]``), imported by the command that asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from gateway.errors import InvalidInput
from gateway.telemetry.decisions.compaction import readable_rows
from gateway.telemetry.decisions.parquet import SCHEMA
from gateway.telemetry.decisions.segments import listed

__all__ = ["Rows", "query"]

_MEMORY = "1GB"


class Rows(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]


def query(folder: Path, text: str, parameters: Sequence[Any] = ()) -> Rows:
    """Raises InvalidInput for what is no SQL over the log."""
    with duckdb.connect(config={"memory_limit": _MEMORY}) as connection:
        _views(connection, folder)
        try:
            found = connection.execute(text, list(parameters))
            return Rows([column[0] for column in found.description or ()], found.fetchall())
        except duckdb.Error as error:
            raise InvalidInput(f"the log cannot be asked that: {error}") from None


def _views(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    segments = listed(folder)
    tables = [readable_rows(one.log) for one in segments if one.raw and not one.compacted]
    connection.register("raw_rows", pa.concat_tables([SCHEMA.empty_table(), *tables]))
    files = ", ".join(f"'{str(one.parquet).replace(chr(39), chr(39) * 2)}'" for one in segments if one.compacted)
    # The names are the folder's, and quoted.
    compacted = f" UNION ALL BY NAME SELECT * FROM read_parquet([{files}], union_by_name = true)" if files else ""  # noqa: S608
    connection.execute(f"CREATE VIEW all_rows AS SELECT * FROM raw_rows{compacted}")  # noqa: S608
    # DuckDB gives times with a zone to Python by a package that we do not need otherwise; they are in UTC.
    connection.execute(
        "CREATE VIEW decisions AS SELECT * EXCLUDE (control) REPLACE (make_timestamp(epoch_us(started)) AS started) "
        "FROM all_rows WHERE control IS NULL"
    )
    connection.execute(
        "CREATE VIEW controls AS SELECT sequence, decision, control::JSON AS event FROM all_rows "
        "WHERE control IS NOT NULL"
    )
