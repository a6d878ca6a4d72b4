"""Nested JSON values to one array of a datatype, exactly: nothing is rounded, cut or reinterpreted in silence.

Two ways in. *Plain* values (the text proves that they hold no string, boolean or null) go
through ``np.asarray`` as a whole. The others are flattened level by level and judged by the
set of their types, because numpy would turn ``[1, "a"]`` into strings (as wide as the widest:
a few megabytes of text could ask for terabytes), ``true`` into 1 and ``null`` into NaN.
Either gives None when anything is wrong; only then ``find_faults`` looks for the place.
"""

from __future__ import annotations

import base64
import binascii
import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.codec.faults import Faults, at, describe
from gateway.codec.limits import CodecLimits
from gateway.codec.rows import EXACT_INTEGERS, fit_numbers, to_floats, to_integers
from gateway.errors import TooLarge
from gateway.messages import DATATYPES, Array

__all__ = ["Wanted", "find_faults", "read_values"]

_NUMBERS = frozenset({int, float})

_EXPECTED = {
    "BOOL": "true or false",
    "BYTES": 'a string, or {"b64": "…"} for bytes that are no text',
}


def read_values(value: Any, datatype: str, rank: int, *, plain: bool) -> Array | None:
    """The array of ``rank`` axes, or None when the values do not make one of this datatype.

    ``value`` may be what ``rows.read_numbers`` gave.
    """
    if type(value) is np.ndarray:
        return fit_numbers(value, datatype, rank)
    if plain and datatype not in ("BYTES", "BOOL"):
        return _read_plain(value, datatype, rank)
    return _read_carefully(value, datatype, rank)


def _read_plain(value: Any, datatype: str, rank: int) -> Array | None:
    target = DATATYPES[datatype]
    try:
        array = np.asarray(value, dtype=np.float64 if target.kind == "f" else None)
    except (ValueError, TypeError, OverflowError):  # ragged, or deeper than numpy goes
        return None
    if not array.size:
        return _read_carefully(value, datatype, rank)  # numpy sees one axis in [], whatever the rank
    if array.ndim != rank or array.dtype.kind not in "iuf":
        return None
    if target.kind == "f":
        return to_floats(array, datatype)
    if array.dtype.kind == "f" and not (np.abs(array) < EXACT_INTEGERS).all():
        # Floats, or integers too mixed for one numpy type: numpy may have lost digits.
        return _read_carefully(value, datatype, rank)
    return to_integers(array, target)


def _read_carefully(value: Any, datatype: str, rank: int) -> Array | None:
    flattened = _flatten(value, rank)
    if flattened is None:
        return None
    flat, shape = flattened
    array = _read_flat(flat, datatype)
    return None if array is None else array.reshape(shape)


def _flatten(value: Any, rank: int) -> tuple[list[Any], tuple[int, ...]] | None:
    """Leaves in row-major order and the shape; None when ragged, too shallow or too deep."""
    level: list[Any] = [value]
    shape: list[int] = []
    for _ in range(rank):
        if level and set(map(type, level)) != {list}:
            return None
        lengths = set(map(len, level))
        if len(lengths) > 1:
            return None
        shape.append(lengths.pop() if lengths else 0)
        level = list(itertools.chain.from_iterable(level))
    return level, tuple(shape)


def _read_flat(flat: list[Any], datatype: str) -> Array | None:
    types = set(map(type, flat))
    if datatype == "BYTES":
        return _read_strings(flat, types)
    if not types <= ({bool} if datatype == "BOOL" else _NUMBERS):
        return None
    target = DATATYPES[datatype]
    if target.kind == "b":
        return np.array(flat, dtype=target)
    if target.kind == "f":
        # Every integer goes through float: beyond uint64 the parser has made it one already.
        return to_floats(np.array(flat, dtype=np.float64), datatype)
    return _read_integers(flat, types, target)


def _read_integers(flat: list[Any], types: set[type], target: np.dtype[Any]) -> Array | None:
    if float in types and not all(_is_exact_integer(item) for item in flat):
        return None
    bounds = np.iinfo(target)
    if flat and (min(flat) < bounds.min or max(flat) > bounds.max):
        return None
    return np.array([int(item) for item in flat] if float in types else flat, dtype=target)


def _read_strings(flat: list[Any], types: set[type]) -> Array | None:
    if not types <= {str, dict}:
        return None
    encoded = [item.encode() if type(item) is str else _from_base64(item) for item in flat]
    if dict in types and None in encoded:
        return None
    array = np.empty(len(flat), dtype=object)
    array[:] = encoded
    return array


def _from_base64(item: dict[str, Any]) -> bytes | None:
    text = item.get("b64")
    if len(item) != 1 or type(text) is not str:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_exact_integer(item: float) -> bool:
    return type(item) is int or (item.is_integer() and abs(item) < EXACT_INTEGERS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a tensor should be, and its place in the body. Equal names in ``shape`` are not compared here."""

    where: str
    datatype: str
    shape: tuple[int | str, ...]


def find_faults(value: Any, wanted: Wanted, faults: Faults, limits: CodecLimits) -> None:
    """Names what keeps ``value`` from being the tensor that is wanted: places, what was expected, what came.

    Walks without recursion, in row-major order, and stops when ``faults`` is full. Rows of
    leaves are judged whole before anyone looks at their items, so a fault at the end of a large
    body costs little more than its parsing. TooLarge for nesting past the limit.
    """
    _check_depth(value, limits)
    rank = len(wanted.shape)
    sizes: list[int | None] = [size if isinstance(size, int) else None for size in wanted.shape]
    pending: list[tuple[Any, tuple[int, ...]]] = [(value, ())]
    while pending and not faults.full:
        item, path = pending.pop()
        level = len(path)
        if level == rank:
            _judge_leaf(item, wanted, path, faults)
            continue
        if type(item) is not list:
            faults.add(at(wanted.where, path), _levels(rank - level), describe(item))
            continue
        expected = sizes[level]
        if expected is None:
            sizes[level] = len(item)  # the first list of a level sets the size of its sisters
        elif len(item) != expected:
            faults.add(at(wanted.where, path), f"{expected} values", str(len(item)))
            continue
        if level + 1 == rank:
            _judge_leaves(item, wanted, path, faults)
        else:
            pending.extend((item[index], (*path, index)) for index in range(len(item) - 1, -1, -1))


def _judge_leaves(leaves: list[Any], wanted: Wanted, path: tuple[int, ...], faults: Faults) -> None:
    if _read_flat(leaves, wanted.datatype) is not None:
        return
    for index, leaf in enumerate(leaves):
        if faults.full:
            return
        _judge_leaf(leaf, wanted, (*path, index), faults)


def _judge_leaf(leaf: Any, wanted: Wanted, path: tuple[int, ...], faults: Faults) -> None:
    if _read_flat([leaf], wanted.datatype) is not None:
        return
    got = describe(leaf)
    if type(leaf) in _NUMBERS and wanted.datatype not in ("BYTES", "BOOL"):
        got += f" ({_numeric_fault(leaf, wanted.datatype)})"
    faults.add(at(wanted.where, path), _expected(wanted.datatype), got)


def _numeric_fault(leaf: float, datatype: str) -> str:
    target = DATATYPES[datatype]
    if target.kind != "f":
        if not float(leaf).is_integer():
            return "a fraction"
        if np.iinfo(target).min <= leaf <= np.iinfo(target).max:
            return "a float too large to be exact; send an integer"
    return "value out of range"


def _expected(datatype: str) -> str:
    if datatype in _EXPECTED:
        return _EXPECTED[datatype]
    if DATATYPES[datatype].kind == "f":
        return f"a number that {datatype} can hold"
    bounds = np.iinfo(DATATYPES[datatype])
    return f"an integer from {bounds.min} to {bounds.max}"


def _levels(count: int) -> str:
    return "a list of values" if count == 1 else f"{count} nested lists of values"


def _check_depth(value: Any, limits: CodecLimits) -> None:
    level: list[Any] = [value]
    for _ in range(limits.max_depth + 1):
        lists = [item for item in level if type(item) is list]
        objects = [item for item in level if type(item) is dict]
        if not lists and not objects:
            return
        level = list(itertools.chain(*lists, *(item.values() for item in objects)))
    raise TooLarge(f"the body is nested deeper than the limit of {limits.max_depth} levels")
