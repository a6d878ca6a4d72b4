"""Open Inference Protocol v2: an infer request, read once: its JSON, and where its binary tensors lie behind it.

Source: kserve/open-inference-protocol ``inference_rest.md``; binary data, classification,
parameters and schedule policy as Triton's protocol extensions describe them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.codec.faults import shorten
from gateway.codec.json_inputs import read_context, read_key, read_name, refuse_duplicates
from gateway.codec.limits import CodecLimits, Document, count_strings, read_document
from gateway.codec.oip_binary import split_body
from gateway.codec.oip_json import InferEnvelope, RequestedOutput, WireTensor
from gateway.codec.parameters import read_priority, read_size, read_timeout, refuse_unsupported, wrong
from gateway.codec.shapes import check_count
from gateway.errors import BadRequest, TooLarge
from gateway.messages import DATATYPES

__all__ = ["read_infer"]

_MAX_TENSORS = 1024
_MAX_RANK = 32


def read_infer(body: bytes | memoryview, header_length: int | None, limits: CodecLimits) -> InferEnvelope:
    """``header_length`` is the Inference-Header-Content-Length, None when the body is JSON alone.

    Raises BadRequest for a body that is no infer request, TooLarge past the limits.
    """
    if header_length == 0:
        return _raw_envelope(memoryview(body), limits)
    head, tail = split_body(body, header_length)
    document = read_document(head, limits)
    fields = document.value
    parameters = _object(fields.get("parameters"), "parameters")
    refuse_unsupported(parameters)
    tensors = _read_inputs(fields.get("inputs"), tail, limits)
    binary_default = _boolean(parameters.get("binary_data_output"), "parameters.binary_data_output", default=False)
    return InferEnvelope(
        id=read_name(fields.get("id"), "id"),
        inputs=tensors,
        outputs=_read_outputs(fields.get("outputs"), binary_default),
        binary_default=binary_default,
        key=read_key(parameters.get("key"), "parameters.key"),
        context=_context(parameters.get("context"), limits),
        timeout_s=read_timeout(parameters),
        priority=read_priority(parameters),
        plain=_is_plain(document, limits),
        raw_request=None,
        limits=limits,
    )


def _raw_envelope(body: memoryview, limits: CodecLimits) -> InferEnvelope:
    return InferEnvelope(
        id=None,
        inputs=(),
        outputs=None,
        binary_default=True,
        key=None,
        context={},
        timeout_s=None,
        priority=None,
        plain=True,
        raw_request=body,
        limits=limits,
    )


def _read_inputs(value: Any, tail: memoryview, limits: CodecLimits) -> tuple[WireTensor, ...]:
    entries = _entries(value, "inputs", required=True)
    tensors: list[WireTensor] = []
    offset = 0
    for index, entry in enumerate(entries):
        where = f"inputs[{index}]"
        name = _tensor_name(entry, where)
        parameters = _object(entry.get("parameters"), f"{where}.parameters")
        if "shared_memory_region" in parameters:
            raise BadRequest(f"input {shorten(name)!r}: shared memory is not supported; send the data in the body")
        size = read_size(parameters.get("binary_data_size"), f"{where}.parameters.binary_data_size")
        raw = None
        if size is not None:
            if "data" in entry:
                raise BadRequest(f"input {shorten(name)!r} has both data and binary_data_size; send one of them")
            raw, offset = _slice(tail, offset, size, name)
        elif "data" not in entry:
            raise BadRequest(f"input {shorten(name)!r} has neither data nor the parameter binary_data_size")
        shape = _shape(entry.get("shape"), f"{where}.shape", limits)
        tensors.append(WireTensor(name, _datatype(entry, where), shape, entry.get("data"), raw))
    if offset != len(tail):
        left = len(tail) - offset
        raise BadRequest(f"{left} bytes follow the last binary tensor; their sizes must add up to the body")
    _refuse_repeated([tensor.name for tensor in tensors], "input")
    return tuple(tensors)


def _slice(tail: memoryview, offset: int, size: int, name: str) -> tuple[memoryview, int]:
    end = offset + size
    if end > len(tail):
        raise BadRequest(
            f"input {shorten(name)!r} names {size} bytes of binary data, the body has {len(tail) - offset} left;"
            " is the Inference-Header-Content-Length header right?"
        )
    return tail[offset:end], end


def _read_outputs(value: Any, binary_default: bool) -> tuple[RequestedOutput, ...] | None:
    entries = _entries(value, "outputs", required=False)
    if not entries:
        return None
    outputs: list[RequestedOutput] = []
    for index, entry in enumerate(entries):
        where = f"outputs[{index}]"
        parameters = _object(entry.get("parameters"), f"{where}.parameters")
        if "shared_memory_region" in parameters:
            raise BadRequest(f"{where}: shared memory is not supported; outputs come in the body")
        classes = read_size(parameters.get("classification"), f"{where}.parameters.classification") or 0
        binary = _boolean(parameters.get("binary_data"), f"{where}.parameters.binary_data", default=binary_default)
        outputs.append(RequestedOutput(_tensor_name(entry, where), binary, classes))
    _refuse_repeated([output.name for output in outputs], "output")
    return tuple(outputs)


def _is_plain(document: Document, limits: CodecLimits) -> bool:
    """As for ``/predict``, with the data lists left out of the first count."""
    inputs = document.value["inputs"]
    rest = {name: value for name, value in document.value.items() if name != "inputs"}
    rest["inputs"] = [{name: value for name, value in entry.items() if name != "data"} for entry in inputs]
    outside = count_strings(rest, limits) + sum("data" in entry for entry in inputs)
    if outside == document.strings:
        return not document.words
    data = [entry["data"] for entry in inputs if "data" in entry]
    names = [*document.value, "name", "datatype", "shape", "data", "parameters"]
    refuse_duplicates(document, outside + count_strings(data, limits), names)
    return False


def _refuse_repeated(names: list[str], noun: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadRequest(f"{noun} {shorten(name)!r} is there twice; every {noun} may stand once")
        seen.add(name)


def _entries(value: Any, field: str, *, required: bool) -> list[dict[str, Any]]:
    if value is None and not required:
        return []
    if type(value) is not list or any(type(entry) is not dict for entry in value):
        raise wrong(field, "a list of tensors", value)
    if required and not value:
        raise wrong(field, "at least one tensor", value)
    if len(value) > _MAX_TENSORS:
        raise TooLarge(f"{field}: {len(value)} tensors, the limit is {_MAX_TENSORS}")
    return value


def _tensor_name(entry: Mapping[str, Any], where: str) -> str:
    name = read_name(entry.get("name"), f"{where}.name")
    if not name:
        raise wrong(f"{where}.name", "a string that is not empty", entry.get("name"))
    return name


def _datatype(entry: Mapping[str, Any], where: str) -> str:
    datatype = entry.get("datatype")
    if type(datatype) is not str or datatype not in DATATYPES:
        raise wrong(f"{where}.datatype", f"one of {', '.join(DATATYPES)}", datatype)
    return datatype


def _shape(value: Any, field: str, limits: CodecLimits) -> tuple[int, ...]:
    if type(value) is not list or len(value) > _MAX_RANK or any(type(size) is not int or size < 0 for size in value):
        raise wrong(field, f"a list of at most {_MAX_RANK} sizes, none negative", value)
    shape = tuple(value)
    check_count({"": shape}, limits)
    return shape


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if type(value) is not dict:
        raise wrong(field, "an object", value)
    return value


def _boolean(value: Any, field: str, *, default: bool) -> bool:
    if value is None:
        return default
    if type(value) is not bool:
        raise wrong(field, "true or false", value)
    return value


def _context(value: Any, limits: CodecLimits) -> Mapping[str, Any]:
    """An object, or one written into a string, since some clients' parameters take no objects."""
    if type(value) is str:
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError as fault:
            raise BadRequest(f"parameters.context: expected a JSON object: {fault}") from None
    return read_context(value, "parameters.context", limits)
