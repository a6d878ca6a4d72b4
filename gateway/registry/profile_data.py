"""Reference data as batches of a signature's tensors: ``.npy``, ``.npz``, ``.csv`` and ``.parquet``, never read whole.

A table (``.csv``, ``.parquet``) has a column for each element of the only input's row, or for each input; of the
columns that are left, those named as an output (or ``output[3]``) are answers that were given, which saves asking the
version. An ``.npz`` is named by tensor. Data can be gone through more than once.

What stands ``beside`` the version's tensors (a label, a group) is a column of its own, or an array of an ``.npz`` with
a value for each row; it is given as it is: numbers, or text as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.errors import InvalidRegistration
from gateway.messages import Signature
from gateway.registry.profile_arrays import NumpyFile
from gateway.registry.profile_columns import csv_batches, csv_columns, parquet_batches, parquet_columns
from gateway.registry.profile_rows import UNREADABLE, Reference
from gateway.registry.profile_tables import Table

__all__ = ["open_reference"]

SUFFIXES = (".npy", ".npz", ".csv", ".parquet")


def open_reference(path: Path, signature: Signature, beside: Sequence[str] = ()) -> Reference:
    """InvalidRegistration says what does not fit, and what was expected."""
    if not signature.batched:
        raise InvalidRegistration(
            f"reference {path}: the version is not batched, so its rows cannot be told apart; leave --reference out"
        )
    try:
        if path.suffix == ".csv":
            return Table(path, csv_columns(path), csv_batches, signature, beside)
        if path.suffix == ".parquet":
            return Table(path, parquet_columns(path), parquet_batches, signature, beside)
        if path.suffix in (".npy", ".npz"):
            return NumpyFile(path, signature, beside)
    except (OSError, *UNREADABLE) as error:
        raise InvalidRegistration(f"reference {path} cannot be read: {error}") from error
    raise InvalidRegistration(f"reference {path}: expected a file of {', '.join(SUFFIXES)}")
