"""Which columns of a file make up which tensor, and the tensors made of them, by the codec's own rules.

A tensor has a column of its name, or ``name[0]``, ``name[1]``, … of a number each; the only input may have all columns
that are left, or those that were named. What online refuses is refused here, with row and column. Only a float that
*is* NaN or infinite in a file that can hold one is taken as it is, as binary tensors are online.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.batch.reading import Block, Column
from gateway.codec.faults import Faults
from gateway.codec.limits import CodecLimits
from gateway.codec.rows import to_floats, to_integers
from gateway.codec.values import Wanted, find_faults, read_values
from gateway.errors import FieldProblem, InvalidInput
from gateway.messages import DATATYPES, Array, Signature, TensorSpec

__all__ = ["Fitting", "Place", "places_of"]

_LIMITS = CodecLimits()


@dataclass(frozen=True, slots=True)
class Place:
    """An input and its columns. ``whole``: one column holds it; else each holds one element of a row."""

    spec: TensorSpec
    columns: tuple[str, ...]
    whole: bool

    @property
    def row_shape(self) -> tuple[int | str, ...]:
        return self.spec.shape[1:]


def places_of(
    signature: Signature, names: Sequence[str], *, carried: Sequence[str] = (), chosen: Sequence[str] = (), what: str
) -> tuple[Place, ...]:
    """``names``: of the file's columns. Raises InvalidInput that says which input or column is lacking."""
    held = ", ".join(names[:10]) + ("…" if len(names) > 10 else "")
    for name in (*carried, *chosen):
        if name not in names:
            raise InvalidInput(f"{what} has no column {name!r}; it has {held}")
    if len(set(names)) != len(names):
        raise InvalidInput(f"{what}: two of its columns share a name; it has {held}")
    specs = signature.inputs if signature.batched else tuple(map(_with_rows, signature.inputs))
    if chosen:
        if len(specs) != 1:
            inputs = ", ".join(spec.name for spec in specs)
            raise InvalidInput(f"columns are named for a version with one input; this one has {inputs}")
        return (_of_columns(specs[0], chosen, what),)
    left = [name for name in names if name not in carried]
    found = {spec.name: place for spec in specs if (place := _own(spec, left)) is not None}
    lacking = [spec for spec in specs if spec.name not in found]
    if not lacking:
        return tuple(found[spec.name] for spec in specs)
    if len(specs) == 1 and left:
        return (_of_columns(specs[0], left, what),)
    wanted = lacking[0]
    raise InvalidInput(f"{what} has no column for input {wanted.name!r} ({wanted.datatype}); it has {held}")


def _with_rows(spec: TensorSpec) -> TensorSpec:
    return TensorSpec(spec.name, spec.datatype, ("rows", *spec.shape))


def _own(spec: TensorSpec, names: Sequence[str]) -> Place | None:
    if spec.name in names:
        return Place(spec, (spec.name,), True)
    numbered: list[str] = []
    while f"{spec.name}[{len(numbered)}]" in names:
        numbered.append(f"{spec.name}[{len(numbered)}]")
    return Place(spec, tuple(numbered), False) if numbered and _width(spec) in (None, len(numbered)) else None


def _of_columns(spec: TensorSpec, names: Sequence[str], what: str) -> Place:
    width = _width(spec)
    if width is not None and width != len(names):
        shown = ", ".join(names[:5]) + ("…" if len(names) > 5 else "")
        raise InvalidInput(
            f"{what}: {len(names)} columns ({shown}) for input {spec.name!r}, whose rows have {width} values; name the "
            "features (--columns), and what is carried through (--id, --key)"
        )
    return Place(spec, tuple(names), len(names) == 1 and width is None)


def _width(spec: TensorSpec) -> int | None:
    sizes = [axis for axis in spec.shape[1:] if isinstance(axis, int)]
    return math.prod(sizes) if len(sizes) == len(spec.shape) - 1 else None


class Fitting:
    """Makes the tensors of blocks. ``nan``: what is missing becomes NaN in inputs of floats. ``key``: the column that
    names a row, for messages."""

    def __init__(self, places: Sequence[Place], *, nan: bool = False, key: str | None = None) -> None:
        self._places = places
        self._nan = nan
        self._key = key

    def tensors(self, block: Block) -> dict[str, Array]:
        """In the signature's order and types. InvalidInput names the first rows and columns that do not fit."""
        return {place.spec.name: self._tensor(place, block) for place in self._places}

    def _tensor(self, place: Place, block: Block) -> Array:
        shape = place.row_shape
        if place.whole:
            (name,) = place.columns
            array = self._typed(block, name, place.spec.datatype, shape)
            if shape and array.ndim == 1 and math.prod(_known(shape)) == 1:
                return array.reshape(block.rows, *_known(shape))
            return array
        singles = [self._typed(block, name, place.spec.datatype, ()) for name in place.columns]
        return np.stack(singles, axis=1).reshape(block.rows, *(a if isinstance(a, int) else -1 for a in shape))

    def _typed(self, block: Block, name: str, datatype: str, shape: tuple[int | str, ...]) -> Array:
        column = block.columns[name]
        kind = DATATYPES[datatype].kind
        if self._nan and kind == "f" and type(column) is list:
            column = _with_nan(column)
        one = bool(shape) and math.prod(_known(shape)) == 1 and all(isinstance(axis, int) for axis in shape)
        for wanted in (shape, ()) if one else (shape,):  # a row of one value may stand there as the value itself
            array = _fitted(column, datatype, wanted)
            if array is not None:
                return array
        raise self._fault(block, name, datatype, () if one and not _nested(column) else shape)

    def _fault(self, block: Block, name: str, datatype: str, shape: tuple[int | str, ...]) -> InvalidInput:
        """Goes through the rows one by one: only a block that does not fit pays for it."""
        column, problems = block.columns[name], []
        keys = None if self._key is None else block.carried_values(self._key)
        sizes = [axis if isinstance(axis, int) else None for axis in shape]
        for place in range(block.rows):
            value = column[place]
            if isinstance(value, np.ndarray | np.generic):
                value = value.tolist()
            faults = Faults()
            if _fitted([value], datatype, shape) is None:
                find_faults(value, Wanted(name, datatype, tuple(size or "?" for size in sizes)), faults, _LIMITS)
                if not faults:
                    faults.add(name, datatype, "a value that does not fit")
            row = f"row {block.first + place + 1}" + ("" if keys is None else f" ({self._key} {keys[place]!s:.60})")
            problems += [FieldProblem(f"{row}, column {p.field}", p.expected, p.got) for p in faults.problems]
            if len(problems) >= 8:
                break
        if not problems:
            problems = [
                FieldProblem(
                    f"rows {block.first + 1} to {block.first + block.rows}, column {name}",
                    "lists of one length in each batch",
                    "lists of several lengths",
                )
            ]
        first, more = problems[0], len(problems) - 1
        tail = "" if not more else f" (and {more} more problem{'s' if more > 1 else ''}, at least)"
        hint = "; to have NaN in its place, say missing: nan (--missing nan)" if first.got in ("null", "nan") else ""
        return InvalidInput(f"{first.field}: expected {first.expected}, got {first.got}{tail}{hint}", *problems)


def _known(shape: Sequence[int | str]) -> list[int]:
    return [axis for axis in shape if isinstance(axis, int)]


def _nested(column: Column) -> bool:
    if type(column) is np.ndarray:
        return column.ndim > 1
    return any(type(value) is list for value in column)


def _with_nan(column: list[Any]) -> Column:
    """Numbers with some of them missing, as floats; anything else as it is."""
    if not all(value is None or type(value) in (int, float) for value in column):
        return column
    return np.array([math.nan if value is None else value for value in column], np.float64)


def _fitted(column: Column, datatype: str, shape: tuple[int | str, ...]) -> Array | None:
    """The rows as one array of the datatype whose other axes are ``shape``; None when they are none."""
    if isinstance(column, list):
        array = read_values(column, datatype, 1 + len(shape), plain=False)
    else:
        array = _converted(column, datatype)
    if array is None or array.ndim != 1 + len(shape):
        return None
    fits = all(isinstance(axis, str) or axis == size for axis, size in zip(shape, array.shape[1:], strict=True))
    return array if fits else None


def _converted(array: Array, datatype: str) -> Array | None:
    target = DATATYPES[datatype]
    if target.kind == "O" or array.dtype.kind not in "biuf":
        return array if array.dtype == target else None
    if target.kind == "b" or array.dtype.kind == "b":
        return array if array.dtype.kind == target.kind else None
    if target.kind != "f":
        return to_integers(array, target) if array.size else array.astype(target)
    wide = array.astype(np.float64, copy=False)
    finite = np.isfinite(wide)
    if finite.all():
        return to_floats(wide, datatype)
    sound = to_floats(np.where(finite, wide, 0.0), datatype)
    if sound is None:
        return None
    sound = np.array(sound)
    sound[~finite] = wide[~finite]
    return sound
