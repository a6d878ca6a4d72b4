"""The response of an infer request: the outputs asked for, as JSON or binary, whole or as their best classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from gateway.codec.json_outputs import jsonable
from gateway.codec.oip_binary import write_binary
from gateway.codec.oip_json import InferEnvelope, RequestedOutput
from gateway.errors import FieldProblem, InvalidInput
from gateway.messages import Array, Arrays, Signature, datatype_of

__all__ = ["write_infer"]


def write_infer(
    envelope: InferEnvelope, model: str, version: str, outputs: Arrays, signature: Signature
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON when binary tensors follow (the Inference-Header-Content-Length).

    NaN and infinity become null in JSON; ask for binary data to have them as they are.
    Raises InvalidInput for BYTES that are not UTF-8 asked for as JSON, and for classes of what has none.
    """
    datatypes = {spec.name: spec.datatype for spec in signature.outputs}
    described: list[dict[str, Any]] = []
    tails: list[bytes | memoryview] = []
    for wanted in _wanted(envelope, outputs):
        array = outputs[wanted.name]
        datatype = datatypes.get(wanted.name) or datatype_of(array)
        if wanted.classification:
            array, datatype = _best_classes(wanted, array, signature.batched), "BYTES"
        entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": list(array.shape)}
        if wanted.binary:
            tail = write_binary(array, datatype)
            entry["parameters"] = {"binary_data_size": len(tail)}
            tails.append(tail)
        else:
            entry["data"] = _flat(wanted.name, array)
        described.append(entry)
    head: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": described}
    if envelope.id is not None:
        head["id"] = envelope.id
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    if not tails:
        return text, None
    return b"".join((text, *tails)), len(text)


def _wanted(envelope: InferEnvelope, outputs: Arrays) -> tuple[RequestedOutput, ...]:
    if envelope.outputs is not None:
        return envelope.outputs
    return tuple(RequestedOutput(name, envelope.binary_default, 0) for name in outputs)


def _flat(name: str, array: Array) -> Any:
    data = jsonable(array.reshape(-1))
    if array.dtype.kind == "O" and any(type(item) is dict for item in data):
        field = f"outputs.{name}"
        raise InvalidInput(
            f"{field}: its bytes are not UTF-8, which JSON cannot carry; ask for it with the parameter binary_data",
            FieldProblem(field, "UTF-8, or binary_data true", "bytes that are not UTF-8"),
        )
    return data


def _best_classes(wanted: RequestedOutput, array: Array, batched: bool) -> Array:
    """``value:index`` of the highest values, best first, as BYTES ``[rows, n]`` (``[n]`` when not batched)."""
    if array.dtype.kind not in "iuf" or (batched and array.ndim < 2) or array.ndim == 0:
        field = f"outputs.{wanted.name}"
        raise InvalidInput(
            f"{field}: classification needs a row of numbers for each answer, the output has none; leave it out",
            FieldProblem(field, "a numeric output with classes", f"{datatype_of(array)} with {array.ndim} axes"),
        )
    rows = array.reshape(array.shape[0], -1) if batched else array.reshape(1, -1)
    if array.dtype.kind == "f":
        rank = np.where(np.isnan(rows), -np.inf, rows)
        order = np.argsort(-rank, axis=1, kind="stable")
    else:
        order = np.argsort(rows, axis=1, kind="stable")[:, ::-1]
    count = min(wanted.classification, rows.shape[1])
    best = np.empty((rows.shape[0], count), dtype=object)
    for row in range(rows.shape[0]):
        for place in range(count):
            index = int(order[row, place])
            value = rows[row, index]
            shown = f"{float(value):f}" if array.dtype.kind == "f" else str(int(value))
            best[row, place] = f"{shown}:{index}".encode()
    return best if batched else best[0]
