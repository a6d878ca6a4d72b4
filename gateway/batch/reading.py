"""Files of rows, read in blocks and never whole: Parquet, CSV, JSON lines, and numpy's arrays.

A block's columns are arrays where the file holds numbers, and lists of plain values otherwise. Columns that are carried
through keep the form that they have in the file.
"""

from __future__ import annotations

import csv
import importlib
import itertools
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson

from gateway.batch.plan import format_of
from gateway.errors import InvalidInput
from gateway.messages import DATATYPES, Array
from gateway.registry.numpy_files import Head, read_head

__all__ = ["Block", "Column", "Rows", "arrow", "open_rows", "plain_values"]

Column = Array | list[Any]

_DAMAGED = (ValueError, EOFError, OSError, csv.Error, zipfile.BadZipFile, zlib.error, UnicodeDecodeError)


@dataclass(frozen=True, slots=True)
class Block:
    """``first``: the place of its first row in the file, from 0. ``carried``: columns as the file has them."""

    first: int
    rows: int
    columns: Mapping[str, Column]
    carried: Mapping[str, Any] = field(default_factory=dict)

    def carried_values(self, name: str) -> Sequence[Any]:
        return plain_values(self.carried[name])


class Rows(Protocol):
    """``count``: rows in all, where the file tells. ``blocks`` begins at row ``skip``; ``wanted`` are the columns that
    become tensors, each with its datatype; all blocks but the last have ``rows`` rows."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def count(self) -> int | None: ...

    def blocks(
        self, wanted: Mapping[str, str], carried: Sequence[str], *, rows: int, skip: int = 0
    ) -> Iterator[Block]: ...


def open_rows(path: Path, *, sole_input: str | None = None) -> Rows:
    """``sole_input`` names the one array of an ``.npy``. InvalidInput when the file is not there or not what its name
    says."""
    kind = format_of(path)
    with _readable(path):
        if kind == "parquet":
            return _Parquet(path)
        if kind == "csv":
            return _Csv(path)
        return _Jsonl(path) if kind == "jsonl" else _Numpy(path, sole_input)


def plain_values(column: Any) -> Sequence[Any]:
    """A carried column as Python's values, whatever form it has."""
    if isinstance(column, list):
        return column
    values: Sequence[Any] = column.tolist() if isinstance(column, np.ndarray) else column.to_pylist()
    return values


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise InvalidInput(f"{path} is not there; check the path") from None
    except _DAMAGED as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def arrow(module: str) -> Any:
    """An extra, and a hundred megabytes that only a process that needs it should pay for."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InvalidInput(
            "Parquet takes pyarrow, which is not installed: pip install 'turnout[decisions]'; or use .csv or .npz"
        ) from None


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._path = path
        with arrow("pyarrow.parquet").ParquetFile(path) as file:
            self.names: Sequence[str] = list(file.schema_arrow.names)
            self.count: int | None = file.metadata.num_rows
            self._groups = [file.metadata.row_group(n).num_rows for n in range(file.metadata.num_row_groups)]

    def blocks(self, wanted: Mapping[str, str], carried: Sequence[str], *, rows: int, skip: int = 0) -> Iterator[Block]:
        names = list(dict.fromkeys((*wanted, *carried)))
        group, left = 0, skip
        while group < len(self._groups) and left >= self._groups[group]:
            left -= self._groups[group]
            group += 1
        table = arrow("pyarrow")
        with _readable(self._path), arrow("pyarrow.parquet").ParquetFile(self._path, pre_buffer=False) as file:
            groups = list(range(group, len(self._groups)))
            batches = file.iter_batches(batch_size=rows, row_groups=groups, columns=names) if groups else iter(())
            held: list[Any] = []
            have, first = 0, skip
            for read in batches:
                drop = min(left, read.num_rows)
                left -= drop
                batch = read.slice(drop)
                while batch.num_rows:
                    take = min(rows - have, batch.num_rows)
                    held.append(batch.slice(0, take))
                    have += take
                    batch = batch.slice(take)
                    if have == rows:
                        yield self._block(table.Table.from_batches(held), first, wanted, carried)
                        first, have, held = first + rows, 0, []
            if have:
                yield self._block(table.Table.from_batches(held), first, wanted, carried)

    def _block(self, table: Any, first: int, wanted: Mapping[str, str], carried: Sequence[str]) -> Block:
        def column(name: str) -> Any:
            return table.column(name).combine_chunks()

        columns = {name: _of_arrow(column(name), datatype) for name, datatype in wanted.items()}
        return Block(first, table.num_rows, columns, {name: column(name) for name in carried})


def _of_arrow(column: Any, datatype: str) -> Column:
    """As an array where it can be one without a look at each value."""
    types = arrow("pyarrow.types")
    if hasattr(column, "num_chunks"):  # of no rows, or too long for one
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    width: list[int] = []
    inner = column
    while types.is_list(inner.type) or types.is_large_list(inner.type) or types.is_fixed_size_list(inner.type):
        rows, flat = len(inner), inner.flatten()
        if inner.null_count or not rows or len(flat) % rows or not _even(inner, types):
            return _listed(column)
        width.append(len(flat) // rows)
        inner = flat
    numeric = types.is_integer(inner.type) or types.is_floating(inner.type) or types.is_boolean(inner.type)
    if inner.null_count or not numeric or DATATYPES[datatype].kind == "O":
        return _listed(column)
    return np.asarray(inner.to_numpy(zero_copy_only=False)).reshape(len(column), *width)


def _listed(column: Any) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return values


def _even(lists: Any, types: Any) -> bool:
    if types.is_fixed_size_list(lists.type):
        return True
    lengths = np.diff(lists.offsets.to_numpy())
    return bool((lengths == lengths[0]).all())


class _Csv:
    """Text, parsed by the datatype that each column is wanted in."""

    count: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), None)
        if not header:
            raise ValueError("it is empty; its first line names the columns")
        self.names: Sequence[str] = header

    def blocks(self, wanted: Mapping[str, str], carried: Sequence[str], *, rows: int, skip: int = 0) -> Iterator[Block]:
        width = len(self.names)
        with _readable(self._path), self._path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            next(reader)
            lines = (line for line in reader if line)
            first = skip
            for _ in itertools.islice(lines, skip):
                pass
            while block := list(itertools.islice(lines, rows)):
                for place, line in enumerate(block):
                    if len(line) != width:
                        raise InvalidInput(
                            f"row {first + place + 1} of {self._path}: {len(line)} fields; the header names {width}"
                        )
                texts = dict(zip(self.names, map(list, zip(*block, strict=True)), strict=True))
                columns = {name: _of_texts(texts[name], datatype) for name, datatype in wanted.items()}
                yield Block(first, len(block), columns, {name: texts[name] for name in carried})
                first += len(block)


def _of_texts(texts: list[str], datatype: str) -> Column:
    target = DATATYPES[datatype]
    if target.kind == "O":
        return texts
    if target.kind == "b":
        return [{"true": True, "false": False}.get(text.strip().lower(), text) for text in texts]
    try:
        if target.kind == "f":
            floats = np.array(texts).astype(np.float64)
            if np.isfinite(floats).all():
                return floats
        else:
            return np.array(texts).astype(np.uint64 if target == np.uint64 else np.int64)
    except (ValueError, OverflowError):
        pass
    return [_of_text(text) for text in texts]


def _of_text(text: str) -> Any:
    """A number if it says one; None for nothing, and for a word that stands for it."""
    stripped = text.strip()
    if stripped.lower() in ("", "nan", "null", "none", "na"):
        return None
    for kind in (int, float):
        try:
            return kind(stripped)
        except ValueError:
            continue
    return text


class _Jsonl:
    """An object a line, by column."""

    count: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), None)
        head = {} if first is None else orjson.loads(first)
        if not isinstance(head, dict):
            raise ValueError(f"its first line is a JSON {type(head).__name__}; expected an object of columns")
        self.names: Sequence[str] = list(head)

    def blocks(self, wanted: Mapping[str, str], carried: Sequence[str], *, rows: int, skip: int = 0) -> Iterator[Block]:
        with _readable(self._path), self._path.open("rb") as file:
            lines = (line for line in file if line.strip())
            first = skip
            for _ in itertools.islice(lines, skip):
                pass
            while block := list(itertools.islice(lines, rows)):
                objects = [self._object(line, first + place + 1) for place, line in enumerate(block)]
                columns: dict[str, Column] = {name: [one.get(name) for one in objects] for name in wanted}
                yield Block(first, len(block), columns, {name: [one.get(name) for one in objects] for name in carried})
                first += len(block)

    def _object(self, line: bytes, row: int) -> dict[str, Any]:
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as fault:
            raise InvalidInput(f"row {row} of {self._path} is not valid JSON: {fault}") from None
        if not isinstance(value, dict):
            raise InvalidInput(f"row {row} of {self._path} is a JSON {type(value).__name__}; expected an object")
        return value


class _Numpy:
    """One array (``.npy``), or arrays by name (``.npz``), read along."""

    def __init__(self, path: Path, sole_input: str | None) -> None:
        self._path = path
        if format_of(path) == "npz":
            with zipfile.ZipFile(path) as archive:
                self._heads = {name.removesuffix(".npy"): self._head(archive.open(name)) for name in archive.namelist()}
        elif sole_input is None:
            raise ValueError("an .npy holds one array, and the version has several inputs; use .npz, each by its name")
        else:
            self._heads = {sole_input: self._head(path.open("rb"))}
        lengths = {head.shape[0] for head in self._heads.values()}
        if len(lengths) > 1:
            raise ValueError(f"its arrays have {sorted(lengths)} rows; expected as many each")
        self.names: Sequence[str] = list(self._heads)
        self.count: int | None = lengths.pop() if lengths else 0

    def blocks(self, wanted: Mapping[str, str], carried: Sequence[str], *, rows: int, skip: int = 0) -> Iterator[Block]:
        total = self.count or 0
        readers = {name: self._reader(name, skip) for name in dict.fromkeys((*wanted, *carried))}
        with _readable(self._path):
            try:
                for first in range(skip, total, rows):
                    count = min(rows, total - first)
                    read = {name: self._take(file, self._heads[name], count) for name, file in readers.items()}
                    columns = {name: _of_numpy(read[name]) for name in wanted}
                    yield Block(first, count, columns, {name: read[name] for name in carried})
            finally:
                for file in readers.values():
                    file.close()

    def _head(self, file: Any) -> Head:
        with file:
            return _head_of_rows(file)

    def _reader(self, name: str, skip: int) -> Any:
        file: Any = self._path.open("rb")
        if format_of(self._path) == "npz":
            with file:
                file = zipfile.ZipFile(self._path).open(f"{name}.npy")  # noqa: SIM115 - closed with the other readers
        file.seek(skip * read_head(file).row_bytes, 1)
        return file

    def _take(self, file: Any, head: Head, count: int) -> Array:
        octets = file.read(count * head.row_bytes)
        if len(octets) != count * head.row_bytes:
            raise EOFError("it ends before all the rows that its header tells of")
        return np.frombuffer(octets, head.dtype).reshape(count, *head.shape[1:])


def _head_of_rows(file: Any) -> Head:
    head = read_head(file)
    if not head.shape:
        raise ValueError("it holds a single value; expected rows")
    return head


def _of_numpy(array: Array) -> Column:
    if array.dtype.kind == "U":
        values: list[Any] = array.tolist()
        return values
    if array.dtype.kind == "S":
        octets = np.empty(array.size, dtype=object)
        octets[:] = array.ravel().tolist()
        return octets.reshape(array.shape)
    return array
