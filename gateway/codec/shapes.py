"""Arrays against a signature: rank, fixed sizes, equal named axes, and how many rows they are."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gateway.codec.faults import Faults
from gateway.codec.limits import CodecLimits
from gateway.errors import TooLarge
from gateway.messages import Arrays, Signature, TensorSpec

__all__ = ["check_count", "count_rows", "rows_of", "show_shape"]


def check_count(shapes: Mapping[str, tuple[int, ...]], limits: CodecLimits) -> None:
    """TooLarge when the tensors hold more values together than the limit, or one axis alone is longer than it."""
    total = 0
    for shape in shapes.values():
        longest = max(shape, default=0)
        total += math.prod(shape)
        if max(total, longest) > limits.max_elements:
            raise TooLarge(f"more than {limits.max_elements} values in one request; send fewer rows")


def rows_of(shape: tuple[int, ...], wanted: tuple[int | str, ...], *, batched: bool) -> int | None:
    """Rows of a model's only input, None where ``count_rows`` would have anything to say or to compare."""
    if len(shape) != len(wanted):
        return None
    if batched and shape and shape[1:] == wanted[1:] and type(wanted[0]) is str:
        return shape[0] or None  # as most are
    named = 0
    for size, want in zip(shape, wanted, strict=True):
        if size != want:
            if type(want) is int:
                return None
            named += 1
    if named > 1 and len(set(wanted)) < len(wanted):
        return None  # two axes of one name, which must be equal
    return (shape[0] or None) if batched and shape else 1


def count_rows(signature: Signature, arrays: Arrays, faults: Faults, where: Mapping[str, str]) -> int:
    """Rows of the request (1 when the signature is not batched); every mismatch goes to ``faults``.

    ``where`` gives the place of each tensor in the body, for the messages.
    """
    axes: dict[str, tuple[int, str]] = {}
    for spec in signature.inputs:
        _check_shape(spec, arrays[spec.name].shape, where[spec.name], axes, faults)
    if not signature.batched or faults:
        return 1
    return _shared_rows(signature, arrays, faults, where)


def _check_shape(
    spec: TensorSpec, shape: tuple[int, ...], where: str, axes: dict[str, tuple[int, str]], faults: Faults
) -> None:
    if len(shape) != len(spec.shape):
        faults.add(where, f"shape {show_shape(spec.shape)}", f"shape {show_shape(shape)}")
        return
    for axis, (wanted, size) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(wanted, int):
            if size != wanted:
                faults.add(where, f"shape {show_shape(spec.shape)}", f"shape {show_shape(shape)} (axis {axis})")
                return
            continue
        known, owner = axes.setdefault(wanted, (size, where))
        if size != known:
            faults.add(where, f"axis {axis} ({wanted}) of size {known}, as in {owner}", f"size {size}")
            return


def _shared_rows(signature: Signature, arrays: Arrays, faults: Faults, where: Mapping[str, str]) -> int:
    first = signature.inputs[0].name
    if any(not spec.shape for spec in signature.inputs):
        return 1
    rows = int(arrays[first].shape[0])
    for spec in signature.inputs[1:]:
        size = int(arrays[spec.name].shape[0])
        if size != rows:
            faults.add(where[spec.name], f"{rows} rows, as in {where[first]}", f"{size} rows")
    if rows == 0:
        faults.add(where[first], "at least one row", "no rows")
    return rows


def show_shape(shape: tuple[int | str, ...]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
