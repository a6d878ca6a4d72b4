"""Rows of reference data, as every kind of file gives them, and the types that a signature wants of them."""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from gateway.errors import InvalidRegistration
from gateway.messages import DATATYPES, Array, TensorSpec

__all__ = [
    "BATCH_BYTES",
    "BATCH_ROWS",
    "UNREADABLE",
    "Batch",
    "Reference",
    "Rows",
    "plain",
    "rows_in",
    "typed",
]

BATCH_ROWS = 4096
BATCH_BYTES = 32 << 20

UNREADABLE = (ValueError, EOFError, csv.Error, zipfile.BadZipFile, zlib.error)
"""What readers raise for data that is damaged, at its head or further down."""

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


def rows_in(most_bytes: int, row_bytes: int) -> int:
    """How many rows make a stretch of about so many bytes."""
    return max(1, min(BATCH_ROWS, most_bytes // max(1, row_bytes)))


def plain(array: Array) -> Array:
    """What stands beside: numbers as they are, text as bytes."""
    return array if array.dtype.kind in "biuf" else _octets(array)


def typed(array: Array, spec: TensorSpec, path: Path) -> Array:
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
