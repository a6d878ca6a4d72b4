"""The head of a numpy file: what it tells of rows, and what is refused in words."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from gateway.registry.numpy_files import read_head


def file_of(array: np.ndarray[Any, Any]) -> io.BytesIO:
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    return file


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_the_file_stands_at_its_first_row_behind_the_head(version: tuple[int, int]) -> None:
    """Whoever reads on needs no other word on where rows are, or how long they are."""
    array = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    file.seek(0)
    head = read_head(file)
    assert (head.shape, head.dtype, head.row_bytes) == ((4, 3, 2), np.dtype(np.int16), 12)
    assert file.read(head.row_bytes) == array[0].tobytes()


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{"a": 1}], dtype=object), "holds Python objects"),
        (np.asfortranarray(np.zeros((3, 2))), "stored by columns"),
    ],
)
def test_what_has_no_rows_one_after_another_is_refused(array: np.ndarray[Any, Any], words: str) -> None:
    """Objects would be unpickled, and of columns no row is one piece."""
    with pytest.raises(ValueError, match=words):
        read_head(file_of(array))


def test_a_single_value_has_a_head_without_rows() -> None:
    """Its reader says what it expected instead."""
    head = read_head(file_of(np.float32(4)))  # type: ignore[arg-type]
    assert (head.shape, head.row_bytes) == ((), 4)
