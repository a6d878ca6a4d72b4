"""SQL over the log with DuckDB: compacted segments as they are, and the frames that are not compacted yet beside them.

``decisions`` has one row an answer; ``controls`` what else the chain holds, as JSON. DuckDB and pyarrow are extras
(``turnout[decisions]``), imported by the command that asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from gateway.errors import InvalidInput
from gateway.telemetry.decisions.compaction import readable_rows
from gateway.telemetry.decisions.parquet import SCHEMA
from gateway.telemetry.decisions.segments import listed

__all__ = ["Rows", "query"]

_CONFIG: dict[str, Any] = {"memory_limit": "1GB", "max_temp_directory_size": "8GB", "python_enable_replacements": False}
_TRIES = 4


class Rows(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[tuple[Any, ...]]


def query(folder: Path, text: str, parameters: Sequence[Any] = ()) -> Rows:
    """``text`` is one question: it reads the log and nothing else, and writes nowhere. Raises InvalidInput for what is
    none."""
    for _ in range(_TRIES):
        try:
            return _asked(folder, text, parameters)
        except (FileNotFoundError, duckdb.IOException):  # a segment was compacted or retired meanwhile
            continue
    raise InvalidInput("the log cannot be asked now: its files change too fast, or cannot be read; ask again")


def _asked(folder: Path, text: str, parameters: Sequence[Any]) -> Rows:
    with (
        TemporaryDirectory(prefix="turnout-decisions-") as spill,  # what memory has no room for; the owner's alone
        duckdb.connect(config={**_CONFIG, "temp_directory": spill}) as connection,
    ):
        try:
            _views(connection, folder)
            found = connection.execute(_question(connection, text), list(parameters))
            return Rows([column[0] for column in found.description or ()], found.fetchall())
        except duckdb.IOException:
            raise
        except duckdb.Error as error:
            raise InvalidInput(f"the log cannot be asked that: {error}") from None


def _question(connection: duckdb.DuckDBPyConnection, text: str) -> duckdb.Statement:
    statements = connection.extract_statements(text)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise InvalidInput(f"the log is only read, by one SELECT: {text[:80]!r} is none")
    return statements[0]


def _views(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """What can be read from now on: these views, and the files beneath them."""
    segments = listed(folder.absolute())
    allowed = [str(one.parquet) for one in segments if one.compacted]
    connection.execute("SET allowed_paths = ?", [allowed])
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
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
