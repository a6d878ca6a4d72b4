"""Answers as files: a part at a time, each whole in itself, and all of them joined into the one that was asked for.

Parts are in the form of the output. Joining copies: bytes of text, row groups of Parquet, arrays behind one header. So
an output is the same to the last byte, whether it was written in one go or after any number of deaths.
"""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.lib import format as npy

from gateway.batch.reading import arrow, plain_values
from gateway.codec.json_outputs import jsonable
from gateway.errors import InvalidInput
from gateway.messages import DATATYPES, Array, Signature, TensorSpec

__all__ = ["Answers", "Form", "form_of", "no_answers"]

_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answers:
    """Consecutive rows: what is carried through, in pieces as they were read, and the outputs."""

    rows: int
    carried: Mapping[str, Sequence[Any]]
    outputs: Mapping[str, Array]


class Form:
    """How one kind of file is written. ``part`` writes answers to a file of their own, ``join`` makes one of parts."""

    def __init__(
        self, part: Callable[[Answers, IO[bytes]], None], join: Callable[[Sequence[Path], Path], None]
    ) -> None:
        self.part = part
        self.join = join


def form_of(kind: str, signature: Signature, carried: Sequence[str]) -> Form:
    """Raises InvalidInput where that kind of file cannot hold what would be written."""
    taken = [spec.name for spec in signature.outputs if spec.name in carried]
    if taken:
        raise InvalidInput(
            f"column {taken[0]!r} is carried through and an output of the version; rename it in the input"
        )
    if kind == "npy" and (len(signature.outputs) != 1 or carried):
        raise InvalidInput("an .npy holds one array: for several outputs, or columns carried through, write .npz")
    strings = [spec.name for spec in signature.outputs if spec.datatype == "BYTES"]
    if kind in ("npy", "npz") and strings:
        raise InvalidInput(
            f"output {strings[0]!r} holds strings, which numpy's files keep badly; write .parquet or .jsonl"
        )
    if kind == "parquet":
        specs = {spec.name: spec for spec in signature.outputs}
        return Form(lambda answers, file: _parquet_part(answers, file, specs, signature.batched), _join_parquet)
    if kind == "csv":
        widths = {spec.name: _width(spec, batched=signature.batched) for spec in signature.outputs}
        header = [*carried, *(name for spec in signature.outputs for name in _columns(spec.name, widths[spec.name]))]
        return Form(_csv_part, lambda parts, to: _join_csv(parts, to, header))
    if kind == "jsonl":
        return Form(_jsonl_part, _join_bytes)
    single = kind == "npy"
    return Form(_npz_part, lambda parts, to: _join_numpy(parts, to, single=single))


def _width(spec: TensorSpec, *, batched: bool) -> tuple[int, ...] | None:
    """The shape of a row's value; None for a single one."""
    axes = spec.shape[1:] if batched else spec.shape
    if not axes:
        return None
    if any(isinstance(axis, str) for axis in axes):
        raise InvalidInput(
            f"output {spec.name!r} has rows of any size ({', '.join(map(str, axes))}), and a .csv has fixed columns; "
            "write .parquet or .jsonl"
        )
    return tuple(axis for axis in axes if isinstance(axis, int))


def _columns(name: str, shape: tuple[int, ...] | None) -> list[str]:
    return [name] if shape is None else [f"{name}[{place}]" for place in range(int(np.prod(shape)))]


# Text


def _csv_part(answers: Answers, file: IO[bytes]) -> None:
    columns: list[Sequence[str]] = [_carried_texts(pieces) for pieces in answers.carried.values()]
    for array in answers.outputs.values():
        flat = array.reshape(answers.rows, -1)
        columns += [_texts(flat[:, place]) for place in range(flat.shape[1])]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    file.write(text.getvalue().encode())


def _carried_texts(pieces: Sequence[Any]) -> list[str]:
    return ["" if value is None else _said(value) for piece in pieces for value in plain_values(piece)]


def _said(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return orjson.dumps(value).decode() if isinstance(value, dict | list) else str(value)


def _texts(values: Array) -> list[str]:
    """Each number in the fewest digits that give it back in its own type; nothing for NaN."""
    if values.dtype.kind == "O":
        return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return ["" if np.isnan(value) else str(value) for value in values]
    dumped = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return dumped[1:-1].split(",") if len(values) else []


def _join_csv(parts: Sequence[Path], target: Path, header: Sequence[str]) -> None:
    with target.open("wb") as file:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerow(header)
        file.write(text.getvalue().encode())
        _copy(parts, file)


def _jsonl_part(answers: Answers, file: IO[bytes]) -> None:
    columns = {name: _jsonables(pieces) for name, pieces in answers.carried.items()}
    columns |= {name: jsonable(array) for name, array in answers.outputs.items()}
    names = list(columns)
    for row in zip(*columns.values(), strict=True):
        line = dict(zip(names, row, strict=True))
        file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE, default=_said))


def _jsonables(pieces: Sequence[Any]) -> list[Any]:
    return [value for piece in pieces for value in plain_values(piece)]


def _join_bytes(parts: Sequence[Path], target: Path) -> None:
    with target.open("wb") as file:
        _copy(parts, file)


def _copy(parts: Iterable[Path], file: IO[bytes]) -> None:
    for part in parts:
        with part.open("rb") as source:
            shutil.copyfileobj(source, file, _COPY_BYTES)


# Parquet


def _parquet_part(answers: Answers, file: IO[bytes], specs: Mapping[str, TensorSpec], batched: bool) -> None:
    table = arrow("pyarrow")
    columns = {name: _arrow_carried(pieces) for name, pieces in answers.carried.items()}
    for name, array in answers.outputs.items():
        axes = specs[name].shape[1:] if batched else specs[name].shape
        columns[name] = _arrow_output(name, array, axes)
    arrow("pyarrow.parquet").write_table(table.table(columns), file, compression="zstd")


def _arrow_carried(pieces: Sequence[Any]) -> Any:
    table = arrow("pyarrow")
    if pieces and hasattr(pieces[0], "type"):
        return table.chunked_array(pieces)
    if pieces and all(isinstance(piece, np.ndarray) and piece.dtype.kind in "biuf" for piece in pieces):
        return table.array(np.concatenate(pieces))
    return table.array(_jsonables(pieces))


def _arrow_output(name: str, array: Array, axes: Sequence[int | str]) -> Any:
    table = arrow("pyarrow")
    flat = array.reshape(-1)
    if flat.dtype.kind == "O":
        try:
            values = table.array([v.decode() if isinstance(v, bytes) else str(v) for v in flat], table.string())
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"output {name!r} holds bytes that are no text ({error}); write .jsonl, which keeps them in base64"
            ) from None
    else:
        values = table.array(np.ascontiguousarray(flat))
    for place in range(array.ndim - 1, 0, -1):
        size = array.shape[place]
        if isinstance(axes[place - 1], int):
            values = table.FixedSizeListArray.from_arrays(values, size)
        else:
            count = len(values) // size if size else int(np.prod(array.shape[:place]))
            offsets = table.array(np.arange(count + 1, dtype=np.int32) * size)
            values = table.ListArray.from_arrays(offsets, values)
    return values


def _join_parquet(parts: Sequence[Path], target: Path) -> None:
    """A row group a part, as it was written. Carried columns without a type (all missing) take that of other parts."""
    table, parquet = arrow("pyarrow"), arrow("pyarrow.parquet")
    schemas = [parquet.read_schema(part) for part in parts]
    try:
        schema = table.unify_schemas(schemas, promote_options="permissive")
    except (table.ArrowInvalid, table.ArrowTypeError) as error:
        raise InvalidInput(f"a column that is carried through has other types further down: {error}") from None
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for part in parts:
            writer.write_table(parquet.read_table(part).cast(schema))


# Numpy


def _npz_part(answers: Answers, file: IO[bytes]) -> None:
    arrays = {name: _numpy_carried(name, pieces) for name, pieces in answers.carried.items()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in {**arrays, **answers.outputs}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def _numpy_carried(name: str, pieces: Sequence[Any]) -> Array:
    array = np.concatenate([_numbers(piece) for piece in pieces]) if pieces else np.empty(0)
    if array.dtype.kind not in "biuf":
        raise InvalidInput(
            f"column {name!r} holds no numbers alone, which an .npz keeps badly; write .parquet or .jsonl"
        )
    return array


def _numbers(piece: Any) -> Array:
    if isinstance(piece, np.ndarray):
        return piece
    values = plain_values(piece)
    texts = values and all(isinstance(value, str) for value in values)
    try:
        return np.array([int(value) for value in values] if texts else values)
    except ValueError:
        return np.array(values)


def _join_numpy(parts: Sequence[Path], target: Path, *, single: bool) -> None:
    heads: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    for part in parts:
        for name, (shape, dtype) in _heads(part):
            rows, known = heads.get(name, ((0, *shape[1:]), dtype))
            if known != dtype or rows[1:] != shape[1:]:
                raise InvalidInput(
                    f"{name!r} has shape {list(rows[1:])} of {known} at first, and {list(shape[1:])} of {dtype} "
                    "further down; write .parquet or .jsonl"
                )
            heads[name] = ((rows[0] + shape[0], *shape[1:]), dtype)
    if single:
        ((name, head),) = heads.items()
        with target.open("wb") as file:
            _copy_array(parts, name, head, file)
        return
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, head in heads.items():
            # The time of day would make other bytes of the same answers.
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            with archive.open(info, "w", force_zip64=True) as member:
                _copy_array(parts, name, head, member)


def _heads(part: Path) -> Iterator[tuple[str, tuple[tuple[int, ...], np.dtype[Any]]]]:
    with zipfile.ZipFile(part) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                npy.read_magic(file)
                shape, _, dtype = npy.read_array_header_1_0(file)
                yield member.removesuffix(".npy"), (shape, dtype)


def _copy_array(parts: Sequence[Path], name: str, head: tuple[tuple[int, ...], np.dtype[Any]], file: IO[bytes]) -> None:
    shape, dtype = head
    npy.write_array_header_1_0(file, {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    for part in parts:
        with zipfile.ZipFile(part) as archive, archive.open(f"{name}.npy") as source:
            npy.read_magic(source)
            npy.read_array_header_1_0(source)
            shutil.copyfileobj(source, file, _COPY_BYTES)


def no_answers(signature: Signature, carried: Sequence[str]) -> Answers:
    """Of a file without rows."""
    outputs = {}
    for spec in signature.outputs:
        axes = spec.shape[1:] if signature.batched else spec.shape
        outputs[spec.name] = np.empty((0, *(a if isinstance(a, int) else 0 for a in axes)), DATATYPES[spec.datatype])
    return Answers(0, {name: [] for name in carried}, outputs)
