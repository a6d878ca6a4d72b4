"""Whether one version may stand in for another: it takes what the other takes, and gives what the other gives. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gateway.messages import Signature, TensorSpec

__all__ = ["incompatibility"]


def incompatibility(old: Signature, new: Signature) -> str:
    """Why a client of ``old`` could not go on with ``new``; empty when it could. Names of outputs and their types
    count, and sizes where both name one; the names of dynamic axes do not."""
    return next(_faults(old, new), "")


def _faults(old: Signature, new: Signature) -> Iterator[str]:
    for spec in old.inputs:
        found = _named(new.inputs, spec.name)
        if found is None:
            yield f"it does not take the input {spec.name!r}; it takes {_names(new.inputs)}"
        elif why := _differs(spec, found, wider=True):
            yield f"its input {why}"
    for spec in new.inputs:
        if _named(old.inputs, spec.name) is None:
            yield f"it also wants the input {spec.name!r}, which no client sends"
    for spec in old.outputs:
        found = _named(new.outputs, spec.name)
        if found is None:
            yield f"it does not give the output {spec.name!r}; it gives {_names(new.outputs)}"
        elif why := _differs(spec, found, wider=False):
            yield f"its output {why}"
    if old.batched and not new.batched:
        yield "it takes one request at a time and the other takes rows together"


def _named(specs: Sequence[TensorSpec], name: str) -> TensorSpec | None:
    return next((spec for spec in specs if spec.name == name), None)


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)


def _differs(old: TensorSpec, new: TensorSpec, *, wider: bool) -> str:
    """``wider``: the new one may take any size where the old one names one."""
    if old.datatype != new.datatype:
        return f"{old.name!r} is {new.datatype}, the other's {old.datatype}"
    shapes = f"{old.name!r} has the shape {list(new.shape)}, the other's {list(old.shape)}"
    if len(old.shape) != len(new.shape):
        return shapes
    for was, now in zip(old.shape, new.shape, strict=True):
        fixed = isinstance(now, int)
        if fixed and was != now and (isinstance(was, int) or wider):
            return shapes
    return ""
