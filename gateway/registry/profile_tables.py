"""Reference data in tables: columns, put together as the signature's tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from gateway.errors import InvalidRegistration
from gateway.messages import Signature, TensorSpec
from gateway.registry.profile_columns import BESIDE, Columns
from gateway.registry.profile_rows import BATCH_ROWS, Batch, Rows, rows_in, typed

__all__ = ["Table"]


class Table:
    """``columns``: the names of all; ``read`` gives those that are wanted. See ``Reference``."""

    def __init__(
        self, path: Path, columns: Sequence[str], read: Columns, signature: Signature, beside: Sequence[str]
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
        each = BATCH_ROWS if most_bytes is None else rows_in(most_bytes, 8 * len(wanted))
        for columns in self._read(self._path, wanted, each):
            rest = iter(columns)
            sides = []
            for tensors in (self._given, self._outputs):
                made = {}
                for name, own in tensors.items():
                    spec = self._specs[name]
                    rows = np.stack([next(rest) for _ in own], axis=1)
                    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape[1:]]
                    made[name] = typed(rows.reshape(len(rows), *shape), spec, self._path)
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
