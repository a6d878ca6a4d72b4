"""Rows of evaluation data and what a version said of them, in one form: the truth, the prediction, the score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import InvalidRegistration
from gateway.messages import Array, Arrays, Signature
from gateway.registry.gates.datasets import DataSet
from gateway.registry.gates.metrics import Answers
from gateway.registry.profile_data import open_reference
from gateway.registry.profile_rows import UNREADABLE, Rows

__all__ = ["Reading", "blocks_of", "rows_of"]

STRETCH_BYTES = 4 << 20
"""Of features, in doubles. While a stretch is read, typed and sent, there are some six of it."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


def rows_of(path: Path, data: DataSet, signature: Signature) -> Iterator[Rows]:
    """In stretches, until the data's end or its limit. InvalidRegistration for data that does not fit."""
    left = data.rows
    try:
        for rows in open_reference(path, signature, data.beside).rows(STRETCH_BYTES):
            count = len(rows.beside[data.label])
            if left is not None and count >= left:
                yield Rows(*({name: array[:left] for name, array in side.items()} for side in rows))
                return
            left = None if left is None else left - count
            yield rows
    except UNREADABLE as error:
        raise InvalidRegistration(f"evaluation data {path.name}: {error}") from error


class Reading:
    """How one version's outputs are read for one set of data. InvalidRegistration names the output that lacks."""

    def __init__(self, data: DataSet, signature: Signature) -> None:
        names = [spec.name for spec in signature.outputs]
        self._data = data
        self._prediction = data.prediction or (data.label if data.label in names else names[0])
        for name in (self._prediction, data.score):
            if name is not None and name not in names:
                raise InvalidRegistration(f"the version has no output {name!r}; it has {', '.join(names)}")

    def answers(self, beside: Arrays, outputs: Arrays) -> Answers:
        data = self._data
        said = self._said(outputs[self._prediction])
        truth = _like(beside[data.label], said, data.label)
        score = None if data.score is None else outputs[data.score]
        if score is None and outputs[self._prediction].ndim == 2 and outputs[self._prediction].shape[1] > 1:
            score = outputs[self._prediction]
        positive = _one_like(data.positive, said)
        places = self._places(truth) if score is not None and score.ndim == 2 else None
        return Answers(truth, said, positive, self._scores(score, positive, said), places)

    def _said(self, output: Array) -> Array:
        """One value a row."""
        if output.ndim == 2 and output.shape[1] == 1:
            output = output[:, 0]
        if output.ndim == 2:
            largest = np.argmax(output, axis=1)
            return np.asarray(_values(self._data.classes)[largest] if self._data.classes else largest)
        if output.ndim != 1:
            raise InvalidRegistration(
                f"output {self._prediction!r} has shape {list(output.shape)}; a prediction is one value a row, or a "
                "row of one number for each class"
            )
        return _text(output) if output.dtype == object else output

    def _scores(self, score: Array | None, positive: Any, said: Array) -> Array | None:
        if score is None or score.ndim == 1:
            return score
        if score.ndim == 2 and score.shape[1] == 1:
            return np.asarray(score[:, 0])
        if score.ndim == 2 and score.shape[1] == 2:
            place = self._place(positive, score.shape[1])
            return None if place is None else np.asarray(score[:, place])
        return np.asarray(score)

    def _place(self, positive: Any, width: int) -> int | None:
        if self._data.classes:
            return list(self._data.classes).index(positive) if positive in self._data.classes else None
        return int(positive) if isinstance(positive, int | float) and 0 <= positive < width else None

    def _places(self, truth: Array) -> Array | None:
        if self._data.classes:
            known = {value: place for place, value in enumerate(_values(self._data.classes).tolist())}
            strange = sorted({str(value) for value in np.unique(truth).tolist() if value not in known})
            if strange:
                raise InvalidRegistration(f"the truth holds {strange[0]!r}, which is not among classes")
            return np.array([known[value] for value in truth.tolist()], dtype=np.int64)
        return truth.astype(np.int64) if truth.dtype.kind in "biuf" else None


def blocks_of(rows: Rows, key: str | None, first: int, blocks: int) -> Array:
    """The block of each row: of one key the same, else one after the other, so that few rows have one each."""
    if key is None:
        count = len(next(iter(rows.beside.values())))
        return (np.arange(first, first + count, dtype=np.int64)) % blocks
    values = rows.beside[key]
    if values.dtype == object:
        hashed = np.array([_hash(value) for value in values.tolist()], dtype=np.uint64)
    else:
        hashed = np.ascontiguousarray(values.astype(np.float64)).view(np.uint64)
        hashed = (hashed ^ (hashed >> np.uint64(31))) * _MIX
        hashed ^= hashed >> np.uint64(29)
    return (hashed % np.uint64(blocks)).astype(np.int64)


def _hash(value: bytes) -> int:
    """Python's own is another one in each process."""
    found = 0xCBF29CE484222325
    for octet in value:
        found = ((found ^ octet) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return found


def _like(truth: Array, said: Array, label: str) -> Array:
    """Numbers where the version says numbers, else text."""
    if said.dtype.kind in "biuf":
        numbers = truth if truth.dtype.kind in "biuf" else _numbers(truth, label)
        if numbers.dtype.kind == "f" and np.isnan(numbers).any():
            raise InvalidRegistration(f"column {label!r} has no value in some rows; leave those rows out")
        return numbers
    return _text(truth)


def _numbers(texts: Array, label: str) -> Array:
    words = {b"true": 1.0, b"false": 0.0}
    try:
        return np.array([words[text.lower()] if text.lower() in words else float(text) for text in texts.tolist()])
    except ValueError as error:
        raise InvalidRegistration(
            f"column {label!r} holds text ({error}) and the version says numbers; name its classes in order under "
            "classes, or another output under prediction"
        ) from None


def _text(values: Array) -> Array:
    """Numbers as text, whole ones without a point, as labels are written."""
    if values.dtype.kind == "f" and np.array_equal(values, np.floor(values)):
        values = values.astype(np.int64)
    return np.array([one.decode("utf-8", "replace") if isinstance(one, bytes) else str(one) for one in values.tolist()])


def _values(classes: tuple[Any, ...]) -> Array:
    numbers = all(isinstance(value, int | float) for value in classes)
    return np.array(classes) if numbers else np.array([str(value) for value in classes])


def _one_like(value: Any, said: Array) -> Any:
    if said.dtype.kind in "biuf":
        return float(value) if isinstance(value, int | float) else value
    return value if isinstance(value, str) else str(value)


def groups_of(columns: Mapping[str, Array], names: tuple[str, ...]) -> Array:
    """The group of each row, as text: ``f`` or, of several columns, ``f / 60+``."""
    parts = [_text(columns[name]).astype(object) for name in names]
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + " / " + part
    return joined.astype(str)
