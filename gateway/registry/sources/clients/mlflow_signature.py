"""MLflow's model signature in the words of the Open Inference Protocol.

Each column of a data frame is a tensor of its own, with a row an element; a tensor stays a tensor. Texts, times and
nested values are BYTES: times as ISO 8601, arrays, objects and maps as JSON, which the adapter reads again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}
_TENSORS = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "object": "BYTES",
    "str": "BYTES",
}
_MAX_COLUMNS = 10_000


@dataclass(frozen=True)
class Said:
    """Both sides as MLflow wrote them. ``columns``: the input is a data frame. ``plain``: every column is a number, a
    truth value or a text, which needs no adapter."""

    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    parameters: tuple[str, ...]

    @property
    def columns(self) -> bool:
        return not all(row.get("type") == "tensor" for row in self.inputs)

    @property
    def plain(self) -> bool:
        types = [row.get("type") for row in (*self.inputs, *self.outputs)]
        return all(kind == "tensor" or (kind in _COLUMNS and kind not in ("binary", "datetime")) for kind in types)

    def to_json(self, *, inputs: str, outputs: str) -> dict[str, Any] | None:
        """A signature here; the names are for a side's only tensor that has none. None where outputs are not told."""
        if not self.inputs or not self.outputs:
            return None
        given, answered = _tensors(self.inputs, inputs), _tensors(self.outputs, outputs)
        batched = all(tensor["shape"] and tensor["shape"][0] == -1 for tensor in (*given, *answered))
        return {"inputs": given, "outputs": answered, "batched": batched}


def read(body: Mapping[str, Any]) -> Said | None:
    """None for a model that was logged without a signature."""
    signature = body.get("signature")
    if not isinstance(signature, dict) or not signature.get("inputs"):
        return None
    parameters = [str(row.get("name")) for row in _rows(signature.get("params"))]
    return Said(tuple(_rows(signature["inputs"])), tuple(_rows(signature.get("outputs"))), tuple(parameters))


def _rows(text: Any) -> list[Mapping[str, Any]]:
    try:
        rows = json.loads(text) if isinstance(text, str) else text or []
    except RecursionError:
        raise ValueError("the signature in MLmodel is nested too deeply") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or len(rows) > _MAX_COLUMNS:
        raise ValueError("the signature in MLmodel is no list of columns or tensors")
    return rows


def _tensors(rows: Sequence[Mapping[str, Any]], only: str) -> list[dict[str, Any]]:
    found = []
    for index, row in enumerate(rows):
        name = row.get("name")
        name = str(name) if name is not None else only if len(rows) == 1 else f"{only}_{index}"
        found.append({"name": name, **_tensor(row, name)})
    return found


def _tensor(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    if row.get("type") != "tensor":
        return {"datatype": _COLUMNS.get(str(row.get("type")), "BYTES"), "shape": [-1]}
    spec = row.get("tensor-spec")
    spec = spec if isinstance(spec, dict) else {}
    datatype = _TENSORS.get("str" if str(spec.get("dtype")).startswith(("str", "<U")) else str(spec.get("dtype")))
    shape = spec.get("shape")
    if datatype is None or not isinstance(shape, list):
        raise ValueError(f"the signature in MLmodel has a tensor {name!r} of {spec}, which is not taken here")
    return {"datatype": datatype, "shape": shape}


def example(body: Any, signature: Mapping[str, Any] | None, *, bare: bool = False) -> Any:
    """The inputs of a request, out of an input example as MLflow saves it; None where it does not fit.

    ``bare``: the artifact knows its inputs' names and types, so that a single tensor needs none."""
    tensors = list(signature["inputs"]) if signature else None
    if isinstance(body, dict) and isinstance(body.get("columns"), list) and isinstance(body.get("data"), list):
        return _of_frame([str(name) for name in body["columns"]], body["data"], tensors)
    if isinstance(body, dict) and isinstance(body.get("inputs"), dict | list):
        body = body["inputs"]
    if tensors is not None and len(tensors) > 1:
        named = isinstance(body, dict) and body.keys() >= {tensor["name"] for tensor in tensors}
        return {tensor["name"]: body[tensor["name"]] for tensor in tensors} if named else None
    if isinstance(body, dict):
        return body
    if tensors is not None:
        return {tensors[0]["name"]: body}
    return body if bare else [_untyped("x", body)]


def _of_frame(columns: list[str], rows: list[Any], tensors: list[Any] | None) -> Any:
    if tensors is not None and [tensor["name"] for tensor in tensors] != columns:
        return {tensors[0]["name"]: rows} if len(tensors) == 1 else None
    named = {name: [row[index] for row in rows] for index, name in enumerate(columns)}
    if tensors is None:
        return [_untyped(name, values) for name, values in named.items()]
    nested = {tensor["name"] for tensor in tensors if tensor["datatype"] == "BYTES"}
    return {
        name: [value if isinstance(value, str) else json.dumps(value) for value in values] if name in nested else values
        for name, values in named.items()
    }


def _untyped(name: str, values: Any) -> dict[str, Any]:
    """A tensor that says its own type: JSON numbers are doubles to whoever trained on them."""
    shape, inner = [], values
    while isinstance(inner, list):
        shape.append(len(inner))
        inner = inner[0] if inner else None
    flat = _flat(values)
    if any(isinstance(value, str) for value in flat):
        return {"name": name, "datatype": "BYTES", "shape": shape, "data": flat}
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in flat)
    return {"name": name, "datatype": "INT64" if whole else "FP64", "shape": shape, "data": flat}


def _flat(values: Any) -> list[Any]:
    if not isinstance(values, list):
        return [values]
    return [item for value in values for item in _flat(value)]
