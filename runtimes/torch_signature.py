"""What a torch program tells of itself: the names, types and shapes of its inputs and outputs."""

from __future__ import annotations

from typing import Any

import torch

from runtimes.base import LoadFailed
from runtimes.signature import Signature, TensorSpec

__all__ = ["DTYPES", "arguments", "default_names", "own_signature"]

_TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "UINT8",
    torch.uint16: "UINT16",
    torch.uint32: "UINT32",
    torch.uint64: "UINT64",
    torch.int8: "INT8",
    torch.int16: "INT16",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.float16: "FP16",
    torch.bfloat16: "BF16",
    torch.float32: "FP32",
    torch.float64: "FP64",
}
DTYPES = {name: dtype for dtype, name in _TYPES.items()}


def arguments(program: Any) -> tuple[list[str], list[str]]:
    """Names of the positional and of the keyword inputs of an exported program."""
    names = [str(name) for name in program.graph_signature.user_inputs]
    _, by_keyword = program.call_spec.in_spec.children()
    named = [str(name) for name in by_keyword.context]
    return names[: len(names) - len(named)], named


def own_signature(program: Any) -> Signature:
    """What the program was exported with: symbolic sizes become named axes."""
    user_inputs = list(program.graph_signature.user_inputs)
    metas: dict[str, Any] = {node.name: node.meta.get("val") for node in program.graph.nodes}
    # Keyword inputs are placeholders under their own names as well.
    inputs: list[tuple[str, Any]] = [(str(name), metas.get(str(name))) for name in user_inputs]
    results = [metas.get(str(name)) for name in program.graph_signature.user_outputs]
    returned = program.call_spec.out_spec
    keyed = returned.type is dict and all(child.is_leaf() for child in returned.children())
    names = [str(key) for key in returned.context] if keyed else default_names(len(results))
    outputs: list[tuple[str, Any]] = list(zip(names, results, strict=True))
    tensors = [*inputs, *outputs]
    for name, value in tensors:
        if not torch.is_tensor(value):
            raise LoadFailed(f"{name!r} of the exported program is a {type(value).__name__}, expected a tensor")
    # One symbol leads them all: that axis counts rows.
    leading = {str(value.shape[0]) if value.ndim else "0" for _, value in tensors}
    batched = len(leading) == 1 and not leading.pop().isdigit()
    return Signature(
        tuple(_spec(name, value, batched) for name, value in inputs),
        tuple(_spec(name, value, batched) for name, value in outputs),
        batched,
    )


def _spec(name: str, value: Any, batched: bool) -> TensorSpec:
    if value.dtype not in _TYPES:
        raise LoadFailed(f"{name!r} of the exported program has type {value.dtype}, which no datatype describes")
    shape: list[int | str] = [axis if isinstance(axis, int) else str(axis) for axis in value.shape]
    if batched:
        shape[0] = "batch"
    return TensorSpec(name, _TYPES[value.dtype], tuple(shape))


def default_names(count: int) -> list[str]:
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
