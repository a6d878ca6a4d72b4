"""Reference data in numpy files, read along a stretch of rows at a time."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import InvalidRegistration
from gateway.messages import Array, Signature, TensorSpec
from gateway.registry.numpy_files import Head, read_head
from gateway.registry.profile_rows import BATCH_BYTES, Batch, Rows, plain, rows_in, typed

__all__ = ["NumpyFile"]


class NumpyFile:
    """A tensor (``.npy``), or tensors by name (``.npz``). See ``Reference``."""

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
        each = rows_in(most_bytes or BATCH_BYTES, widest)
        names = dict.fromkeys((*(spec.name for spec in self._used), *self._beside))
        readers = {name: self._reader(name) for name in names}
        try:
            for begin in range(0, self._rows, each):
                count = min(each, self._rows - begin)
                read = {name: reader.take(count) for name, reader in readers.items()}
                tensors = {spec.name: typed(read[spec.name], spec, self._path) for spec in self._used}
                given = {name: array for name, array in tensors.items() if name in self._inputs}
                answers = {name: array for name, array in tensors.items() if name not in given and self.answered}
                yield Rows(given, answers, {name: plain(read[name].reshape(count)) for name in self._beside})
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


class _Rows:
    """The rows of one array in a numpy file, one stretch after another."""

    def __init__(self, path: Path, member: str | None, head: Head) -> None:
        self._head = head
        self._archive = None if member is None else zipfile.ZipFile(path)
        self._file: Any = path.open("rb") if self._archive is None else self._archive.open(f"{member}.npy")
        read_head(self._file)

    def take(self, count: int) -> Array:
        octets = self._file.read(count * self._head.row_bytes)
        if len(octets) != count * self._head.row_bytes:
            raise InvalidRegistration("the reference ends before all the rows that its header tells of")
        return np.frombuffer(octets, self._head.dtype).reshape(count, *self._head.shape[1:])

    def close(self) -> None:
        self._file.close()
        if self._archive is not None:
            self._archive.close()


def _npy_head(path: Path) -> Head:
    with path.open("rb") as file:
        return read_head(file)


def _npz_heads(path: Path) -> dict[str, Head]:
    heads = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                heads[member.removesuffix(".npy")] = read_head(file)
    return heads


def _require_fit(path: Path, spec: TensorSpec, head: Head, rows: int) -> None:
    wanted = spec.shape[1:]
    fits = len(head.shape) == len(spec.shape) and head.shape[0] == rows
    if not fits or any(
        isinstance(axis, int) and axis != size for axis, size in zip(wanted, head.shape[1:], strict=True)
    ):
        told = ", ".join(map(str, ("rows", *wanted)))
        raise InvalidRegistration(f"reference {path}: {spec.name!r} has shape {list(head.shape)}; expected [{told}]")


def _require_column(path: Path, name: str, head: Head, rows: int) -> None:
    if not head.shape or head.shape[0] != rows or math.prod(head.shape[1:]) != 1:
        raise InvalidRegistration(
            f"reference {path}: {name!r} has shape {list(head.shape)}; expected one value for each of {rows} rows"
        )
