"""Columns of a table by their names, a stretch of rows at a time, out of ``.csv`` and ``.parquet``."""

from __future__ import annotations

import csv
import importlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gateway.errors import InvalidRegistration
from gateway.messages import DATATYPES, Array

__all__ = ["BESIDE", "Columns", "csv_batches", "csv_columns", "parquet_batches", "parquet_columns"]

BESIDE = "ANY"
"""Stands where a datatype would: whatever the column holds."""

_PAGE_BYTES = 1 << 16
"""A column of a Parquet file is read through a buffer of this size: with a megabyte, 256 columns held 480 MB."""


class Columns(Protocol):
    """The wanted columns (name and datatype), ``each`` rows at a time. Raises InvalidRegistration."""

    def __call__(self, path: Path, wanted: Sequence[tuple[str, str]], each: int) -> Iterator[list[Array]]: ...


def csv_columns(path: Path) -> list[str]:
    """The names of the first line. ValueError when it has none."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        header = next(csv.reader(file), None)
    if not header:
        raise ValueError("it is empty; its first line names the columns")
    if all(_is_number(name) for name in header):
        raise ValueError("its first line holds numbers; expected the names of the columns")
    return header


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def csv_batches(path: Path, wanted: Sequence[tuple[str, str]], each: int) -> Iterator[list[Array]]:
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        header = next(reader)
        places = [header.index(column) for column, _ in wanted]
        rows: list[list[str]] = []
        for number, row in enumerate(reader, start=2):
            if not row:
                continue
            if len(row) != len(header):
                raise InvalidRegistration(
                    f"reference {path}, line {number}: {len(row)} fields; the header names {len(header)}"
                )
            rows.append(row)
            if len(rows) == each:
                yield [
                    _csv_column(path, rows, place, name, kind)
                    for place, (name, kind) in zip(places, wanted, strict=True)
                ]
                rows = []
        if rows:
            yield [
                _csv_column(path, rows, place, name, kind) for place, (name, kind) in zip(places, wanted, strict=True)
            ]


def _csv_column(path: Path, rows: Sequence[Sequence[str]], place: int, name: str, datatype: str) -> Array:
    texts = [row[place] for row in rows]
    if datatype in ("BYTES", BESIDE):
        octets = np.empty(len(texts), dtype=object)
        octets[:] = [text.encode("utf-8", "surrogateescape") for text in texts]
        return octets
    if DATATYPES[datatype].kind == "b":
        texts = [{"true": "1", "false": "0"}.get(text.lower(), text) for text in texts]
    try:
        if DATATYPES[datatype].kind in "iu":
            return np.array([int(text) for text in texts], DATATYPES[datatype])
        return np.array([float(text) if text.strip() else math.nan for text in texts])
    except (ValueError, OverflowError) as error:
        raise InvalidRegistration(f"reference {path}, column {name!r}: {error}; expected {datatype}") from error


def _parquet() -> Any:
    """An extra that only this needs, and a hundred megabytes that nobody else should pay for."""
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InvalidRegistration(
            "a .parquet reference is read with pyarrow, which is not installed: pip install 'turnout[decisions]', or "
            "give the data as .npy or .csv"
        ) from None


def parquet_columns(path: Path) -> list[str]:
    return list(_parquet().ParquetFile(path).schema_arrow.names)


def parquet_batches(path: Path, wanted: Sequence[tuple[str, str]], each: int) -> Iterator[list[Array]]:
    columns = [column for column, _ in wanted]
    # Page by page: without a buffer size it takes in a whole row group, which may be as large as the file.
    with _parquet().ParquetFile(path, buffer_size=_PAGE_BYTES, pre_buffer=False) as file:
        batches = file.iter_batches(batch_size=each, columns=columns)
        while (batch := _next_of(path, batches)) is not None:
            yield [_arrow_column(path, batch.column(column), column, datatype) for column, datatype in wanted]


def _next_of(path: Path, batches: Iterator[Any]) -> Any:
    """None at the end."""
    try:
        return next(batches, None)
    except OSError as error:  # what pyarrow raises for a damaged page
        raise InvalidRegistration(f"reference {path} is damaged: {error}") from error


def _arrow_column(path: Path, column: Any, name: str, datatype: str) -> Array:
    if datatype == BESIDE:
        array = column.to_numpy(zero_copy_only=False)
        if array.dtype.kind in "biuf":
            return np.asarray(array)
    if datatype in ("BYTES", BESIDE):
        values = column.to_pylist()
        octets = np.empty(len(values), dtype=object)
        octets[:] = [b"" if v is None else v if isinstance(v, bytes) else str(v).encode() for v in values]
        return octets
    array = column.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "biuf":
        raise InvalidRegistration(f"reference {path}, column {name!r} holds {column.type}; expected {datatype}")
    return np.asarray(array)
