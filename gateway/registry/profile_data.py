"""Reference data as batches of a signature's tensors: ``.npy``, ``.npz``, ``.csv`` and ``.parquet``, never read whole.

A table (``.csv``, ``.parquet``) has a column for each element of the only input's row, or for each input; of the
columns that are left, those named as an output (or ``output[3]``) are answers that were given, which saves asking the
version. An ``.npz`` is named by tensor. Data can be gone through more than once.

What stands ``beside`` the version's tensors (a label, a group) is a column of its own, or an array of an ``.npz`` with
a value for each row; it is given as it is: numbers, or text as bytes.
"""

from __future__ import annotations

import csv
import importlib
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.lib import format as npy

from gateway.errors import InvalidRegistration
from gateway.messages import DATATYPES, Array, Signature, TensorSpec

__all__ = ["BATCH_ROWS", "Reference", "Rows", "open_reference"]

BATCH_ROWS = 4096
BATCH_BYTES = 32 << 20
SUFFIXES = (".npy", ".npz", ".csv", ".parquet")

UNREADABLE = (ValueError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error)
"""What readers raise for data that is damaged, at its head or further down."""

BESIDE = "ANY"
"""Stands where a datatype would: whatever the column holds."""

_PAGE_BYTES = 1 << 16
"""A column of a Parquet file is read through a buffer of this size: with a megabyte, 256 columns held 480 MB."""

Batch = tuple[dict[str, Array], dict[str, Array]]


class Rows(NamedTuple):
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    beside: dict[str, Array]


class Reference(Protocol):
    """``names``: of the columns of each input, where the data names them. ``answered``: it holds all outputs."""

    @property
    def names(self) -> Mapping[str, Sequence[str]]: ...

    @property
    def answered(self) -> bool: ...

    def batches(self) -> Iterator[Batch]: ...

    def rows(self, most_bytes: int | None = None) -> Iterator[Rows]:
        """The same, with what stands beside; in stretches of about ``most_bytes`` if that is given. Those of
        ``batches`` stay as they are, since a profile depends on them."""
        ...


def open_reference(path: Path, signature: Signature, beside: Sequence[str] = ()) -> Reference:
    """InvalidRegistration says what does not fit, and what was expected."""
    if not signature.batched:
        raise InvalidRegistration(
            f"reference {path}: the version is not batched, so its rows cannot be told apart; leave --reference out"
        )
    try:
        if path.suffix == ".csv":
            return _Table(path, _csv_columns(path), _csv_batches, signature, beside)
        if path.suffix == ".parquet":
            return _Table(path, _parquet_columns(path), _parquet_batches, signature, beside)
        if path.suffix in (".npy", ".npz"):
            return _Numpy(path, signature, beside)
    except (OSError, *UNREADABLE) as error:
        raise InvalidRegistration(f"reference {path} cannot be read: {error}") from error
    raise InvalidRegistration(f"reference {path}: expected a file of {', '.join(SUFFIXES)}")


class _Numpy:
    """Tensors as numpy files hold them: mapped into memory, or read along out of an archive."""

    names: Mapping[str, Sequence[str]] = {}

    def __init__(self, path: Path, signature: Signature, beside: Sequence[str]) -> None:
        self._path = path
        self._signature = signature
        self._beside = beside
        self._heads = _npz_heads(path) if path.suffix == ".npz" else {self._only(path): _npy_head(path)}
        inputs = {spec.name: spec for spec in signature.inputs}
        outputs = {spec.name: spec for spec in signature.outputs if spec.name not in beside}
        missing = [name for name in (*inputs, *beside) if name not in self._heads]
        if missing:
            held = ", ".join(self._heads)
            what = "input" if missing[0] in inputs else "column"
            raise InvalidRegistration(f"reference {path} lacks {what} {missing[0]!r}; it holds {held}")
        self._used = [spec for name, spec in (inputs | outputs).items() if name in self._heads]
        lengths = {head.shape[0] if head.shape else 0 for name, head in self._heads.items() if name in inputs}
        if len(lengths) != 1:
            raise InvalidRegistration(
                f"reference {path}: its tensors have {sorted(lengths)} rows; expected as many each"
            )
        self._rows = lengths.pop()
        for spec in self._used:
            _require_fit(path, spec, self._heads[spec.name], self._rows)
        for name in beside:
            _require_column(path, name, self._heads[name], self._rows)
        self.answered = len(outputs) == len(signature.outputs) and all(name in self._heads for name in outputs)
        self._inputs = frozenset(inputs)

    def batches(self) -> Iterator[Batch]:
        for rows in self.rows():
            yield rows.inputs, rows.outputs

    def rows(self, most_bytes: int | None = None) -> Iterator[Rows]:
        widest = max(math.prod(self._heads[spec.name].shape[1:]) * 8 for spec in self._used)
        each = _rows_in(most_bytes or BATCH_BYTES, widest)
        names = dict.fromkeys((*(spec.name for spec in self._used), *self._beside))
        readers = {name: self._reader(name) for name in names}
        try:
            for begin in range(0, self._rows, each):
                count = min(each, self._rows - begin)
                read = {name: reader.take(count) for name, reader in readers.items()}
                typed = {spec.name: _typed(read[spec.name], spec, self._path) for spec in self._used}
                given = {name: array for name, array in typed.items() if name in self._inputs}
                answers = {name: array for name, array in typed.items() if name not in given and self.answered}
                yield Rows(given, answers, {name: _plain(read[name].reshape(count)) for name in self._beside})
        finally:
            for reader in readers.values():
                reader.close()

    def _only(self, path: Path) -> str:
        if len(self._signature.inputs) != 1:
            names = ", ".join(spec.name for spec in self._signature.inputs)
            raise InvalidRegistration(
                f"reference {path}: the version has inputs {names}; give an .npz with each by name"
            )
        return self._signature.inputs[0].name

    def _reader(self, name: str) -> _Rows:
        return _Rows(self._path, name if self._path.suffix == ".npz" else None, self._heads[name])


@dataclass(frozen=True, slots=True)
class _Head:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class _Rows:
    """The rows of one array in a numpy file, one stretch after another."""

    def __init__(self, path: Path, member: str | None, head: _Head) -> None:
        self._head = head
        self._archive = None if member is None else zipfile.ZipFile(path)
        self._file: Any = path.open("rb") if self._archive is None else self._archive.open(f"{member}.npy")
        _read_head(self._file)
        self._row_bytes = math.prod(head.shape[1:]) * head.dtype.itemsize

    def take(self, count: int) -> Array:
        octets = self._file.read(count * self._row_bytes)
        if len(octets) != count * self._row_bytes:
            raise InvalidRegistration("the reference ends before all the rows that its header tells of")
        return np.frombuffer(octets, self._head.dtype).reshape(count, *self._head.shape[1:])

    def close(self) -> None:
        self._file.close()
        if self._archive is not None:
            self._archive.close()


def _npy_head(path: Path) -> _Head:
    with path.open("rb") as file:
        return _read_head(file)


def _npz_heads(path: Path) -> dict[str, _Head]:
    heads = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                heads[member.removesuffix(".npy")] = _read_head(file)
    return heads


def _read_head(file: Any) -> _Head:
    version = npy.read_magic(file)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects (pickle); save numbers, or fixed-width strings (dtype S or U)")
    if fortran and len(shape) > 1:
        raise ValueError("its array is stored by columns; save numpy.ascontiguousarray of it")
    return _Head(tuple(shape), dtype)


def _require_fit(path: Path, spec: TensorSpec, head: _Head, rows: int) -> None:
    wanted = spec.shape[1:]
    fits = len(head.shape) == len(spec.shape) and head.shape[0] == rows
    if not fits or any(
        isinstance(axis, int) and axis != size for axis, size in zip(wanted, head.shape[1:], strict=True)
    ):
        told = ", ".join(map(str, ("rows", *wanted)))
        raise InvalidRegistration(f"reference {path}: {spec.name!r} has shape {list(head.shape)}; expected [{told}]")


def _rows_in(most_bytes: int, row_bytes: int) -> int:
    return max(1, min(BATCH_ROWS, most_bytes // max(1, row_bytes)))


def _require_column(path: Path, name: str, head: _Head, rows: int) -> None:
    if not head.shape or head.shape[0] != rows or math.prod(head.shape[1:]) != 1:
        raise InvalidRegistration(
            f"reference {path}: {name!r} has shape {list(head.shape)}; expected one value for each of {rows} rows"
        )


def _plain(array: Array) -> Array:
    return array if array.dtype.kind in "biuf" else _octets(array)


def _typed(array: Array, spec: TensorSpec, path: Path) -> Array:
    """In the signature's type. A number is only ever made another kind of number where its value stays."""
    wanted = DATATYPES[spec.datatype]
    if spec.datatype == "BYTES":
        if array.dtype.kind not in "SUO":
            raise InvalidRegistration(f"reference {path}: {spec.name!r} holds {array.dtype}; expected strings")
        return _octets(array)
    if array.dtype.kind not in "biuf":
        raise InvalidRegistration(f"reference {path}: {spec.name!r} holds {array.dtype}; expected {spec.datatype}")
    if wanted.kind in "biu" and array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            whole = array.astype(wanted)
        if not np.array_equal(whole.astype(array.dtype), array):
            raise InvalidRegistration(
                f"reference {path}: {spec.name!r} holds fractions, missing or far too large values; the version takes "
                f"{spec.datatype}"
            )
        return np.asarray(whole)
    return np.asarray(array.astype(wanted))


def _octets(array: Array) -> Array:
    octets = np.empty(array.size, dtype=object)
    octets[:] = [item if isinstance(item, bytes) else str(item).encode() for item in array.ravel().tolist()]
    return octets.reshape(array.shape)


class _Columns(Protocol):
    def __call__(self, path: Path, wanted: Sequence[tuple[str, str]], each: int) -> Iterator[list[Array]]: ...


class _Table:
    """Columns by name, put together as the signature's tensors."""

    def __init__(
        self, path: Path, columns: Sequence[str], read: _Columns, signature: Signature, beside: Sequence[str]
    ) -> None:
        self._path = path
        self._read = read
        self._beside = beside
        missing = [name for name in beside if name not in columns]
        if missing:
            raise InvalidRegistration(
                f"reference {path}: it has no column {missing[0]!r}; its columns are {', '.join(columns[:10])}"
            )
        self._given, outputs = _places_beside(path, columns, signature, beside)
        self.answered = len(outputs) == len(signature.outputs)
        self._outputs = outputs if self.answered else {}
        self._specs = {spec.name: spec for spec in (*signature.inputs, *signature.outputs)}
        self.names = {name: names for name, names in self._given.items() if list(names) != [name]}

    def batches(self) -> Iterator[Batch]:
        for rows in self.rows():
            yield rows.inputs, rows.outputs

    def rows(self, most_bytes: int | None = None) -> Iterator[Rows]:
        wanted: list[tuple[str, str]] = []
        for tensors in (self._given, self._outputs):
            wanted += [(column, self._specs[name].datatype) for name, columns in tensors.items() for column in columns]
        wanted += [(name, BESIDE) for name in self._beside]
        each = BATCH_ROWS if most_bytes is None else _rows_in(most_bytes, 8 * len(wanted))
        for columns in self._read(self._path, wanted, each):
            rest = iter(columns)
            sides = []
            for tensors in (self._given, self._outputs):
                made = {}
                for name, own in tensors.items():
                    spec = self._specs[name]
                    rows = np.stack([next(rest) for _ in own], axis=1)
                    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape[1:]]
                    made[name] = _typed(rows.reshape(len(rows), *shape), spec, self._path)
                sides.append(made)
            yield Rows(sides[0], sides[1], dict(zip(self._beside, rest, strict=True)))


def _places_beside(
    path: Path, columns: Sequence[str], signature: Signature, beside: Sequence[str]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """What stands beside is no feature; but for the first of it, the label, it may be one too, if one would lack."""
    inputs = {spec.name for spec in signature.inputs}
    try:
        return _places(path, [name for name in columns if name not in beside or name in inputs], signature)
    except InvalidRegistration as refused:
        if len(beside) < 2:
            raise
        try:
            return _places(path, [name for name in columns if name not in beside[:1]], signature)
        except InvalidRegistration:
            raise refused from None


def _places(
    path: Path, columns: Sequence[str], signature: Signature
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Which columns make up each tensor."""
    left = list(columns)
    if len(set(left)) != len(left):
        raise InvalidRegistration(f"reference {path}: two columns share a name")
    outputs = {}
    for spec in signature.outputs:
        own = _own(spec, left)
        # A column may be named as an input and an output both: then it is the input's.
        if own and not {spec.name} & {one.name for one in signature.inputs}:
            outputs[spec.name] = own
            left = [column for column in left if column not in own]
    inputs = {}
    for spec in signature.inputs:
        own = _own(spec, left)
        if own:
            inputs[spec.name] = own
            left = [column for column in left if column not in own]
    lacking = [spec for spec in signature.inputs if spec.name not in inputs]
    if len(lacking) == 1 and len(signature.inputs) == 1 and left:
        width = _width(lacking[0])
        if width not in (None, len(left)):
            raise InvalidRegistration(
                f"reference {path}: {len(left)} columns ({', '.join(left[:5])}…) for input {lacking[0].name!r}, "
                f"whose rows have {width}; take out those that are neither features nor outputs"
            )
        return {lacking[0].name: left}, outputs
    if lacking:
        raise InvalidRegistration(
            f"reference {path}: no column for input {lacking[0].name!r}; it has {', '.join(columns[:10])}"
        )
    return inputs, outputs


def _width(spec: TensorSpec) -> int | None:
    sizes = [axis for axis in spec.shape[1:] if isinstance(axis, int)]
    return math.prod(sizes) if len(sizes) == len(spec.shape) - 1 else None


def _own(spec: TensorSpec, columns: Sequence[str]) -> list[str]:
    """Its column, or ``name[0]``, ``name[1]``, … in order."""
    width = _width(spec)
    if spec.name in columns and width in (None, 1):
        return [spec.name]
    numbered: list[str] = []
    while f"{spec.name}[{len(numbered)}]" in columns:
        numbered.append(f"{spec.name}[{len(numbered)}]")
    return numbered if numbered and width in (None, len(numbered)) else []


def _csv_columns(path: Path) -> list[str]:
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


def _csv_batches(path: Path, wanted: Sequence[tuple[str, str]], each: int) -> Iterator[list[Array]]:
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


def _parquet_columns(path: Path) -> list[str]:
    return list(_parquet().ParquetFile(path).schema_arrow.names)


def _parquet_batches(path: Path, wanted: Sequence[tuple[str, str]], each: int) -> Iterator[list[Array]]:
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
