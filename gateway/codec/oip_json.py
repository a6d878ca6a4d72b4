"""Open Inference Protocol v2: an infer request, read once, then fitted to the signature of whichever version answers.

Source: kserve/open-inference-protocol ``inference_rest.md``; binary data, classification,
parameters and schedule policy as Triton's protocol extensions describe them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.codec.faults import Faults, describe, shorten
from gateway.codec.json_inputs import read_context, read_key, read_name, refuse_duplicates
from gateway.codec.limits import CodecLimits, Document, count_strings, read_document
from gateway.codec.oip_binary import read_binary, read_raw_request, split_body
from gateway.codec.parameters import read_priority, read_size, read_timeout, refuse_unsupported, wrong
from gateway.codec.shapes import check_count, count_rows, show_shape
from gateway.codec.values import Wanted, find_faults, read_values
from gateway.errors import BadRequest, TooLarge
from gateway.messages import DATATYPES, Array, Arrays, Signature, TensorSpec

__all__ = ["InferEnvelope", "RequestedOutput", "WireTensor", "read_infer"]

_MAX_TENSORS = 1024
_MAX_RANK = 32


@dataclass(frozen=True, slots=True)
class WireTensor:
    """One input as sent: ``data`` from JSON, or ``raw`` from behind it."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    raw: memoryview | None


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """``classification`` 0: the tensor itself; n: its n best classes."""

    name: str
    binary: bool
    classification: int


@dataclass(frozen=True, slots=True)
class InferEnvelope:
    """``outputs`` None: all of them, binary as ``binary_default`` says. ``timeout_s`` None: the route's.

    ``raw_request`` holds the whole body of a request without JSON (header length 0): one
    input's binary data, shaped by the signature.
    """

    id: str | None
    inputs: tuple[WireTensor, ...]
    outputs: tuple[RequestedOutput, ...] | None
    binary_default: bool
    key: str | None
    context: Mapping[str, Any]
    timeout_s: float | None
    priority: str | None
    plain: bool
    raw_request: memoryview | None
    limits: CodecLimits

    def fit(self, signature: Signature) -> tuple[Arrays, int]:
        """Arrays in the signature's order and types, and how many rows they are. Binary tensors are views of the body.

        Raises InvalidInput naming each field that does not fit, TooLarge past the limits.
        Changes nothing: it may run again for another version.
        """
        faults = Faults()
        where = {spec.name: f"inputs.{spec.name}" for spec in signature.inputs}
        self._check_outputs(signature, faults)
        arrays = self._read(signature, faults)
        if faults:
            raise faults.error()
        check_count({name: array.shape for name, array in arrays.items()}, self.limits)
        rows = count_rows(signature, arrays, faults, where)
        if faults:
            raise faults.error()
        return arrays, rows

    def _read(self, signature: Signature, faults: Faults) -> dict[str, Array]:
        if self.raw_request is not None:
            return read_raw_request(self.raw_request, signature, faults)
        sent = {tensor.name: tensor for tensor in self.inputs}
        _check_names(signature, sent, faults)
        arrays: dict[str, Array] = {}
        for spec in signature.inputs:
            tensor = sent.get(spec.name)
            if tensor is None:
                continue
            if tensor.datatype != spec.datatype:
                faults.add(f"inputs.{spec.name}.datatype", spec.datatype, tensor.datatype)
            elif not _may_fit(tensor.shape, spec):
                wanted, got = show_shape(spec.shape), show_shape(tensor.shape)
                faults.add(f"inputs.{spec.name}", f"shape {wanted}", f"shape {got}")
            else:
                array = _read_tensor(tensor, self.plain, faults, self.limits)
                if array is not None:
                    arrays[spec.name] = array
        return arrays

    def _check_outputs(self, signature: Signature, faults: Faults) -> None:
        known = {spec.name for spec in signature.outputs}
        for output in self.outputs or ():
            if output.name not in known:
                names = ", ".join(repr(spec.name) for spec in signature.outputs)
                field = f"outputs.{shorten(output.name)}"
                faults.add(field, f"one of {names}", "an output that the model does not have")


def read_infer(body: bytes, header_length: int | None, limits: CodecLimits) -> InferEnvelope:
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


def _read_tensor(tensor: WireTensor, plain: bool, faults: Faults, limits: CodecLimits) -> Array | None:
    where = f"inputs.{tensor.name}"
    if tensor.raw is not None:
        return read_binary(tensor.raw, tensor.datatype, tensor.shape, where, faults)
    data = tensor.data
    count = math.prod(tensor.shape)
    nested = type(data) is list and len(tensor.shape) > 1 and bool(data) and type(data[0]) is list
    shape = tensor.shape if nested or not isinstance(data, list) else (count,)
    array = read_values(data, tensor.datatype, len(shape), plain=plain)
    if array is not None and array.shape == shape:
        return array.reshape(tensor.shape)
    before = len(faults.problems)
    find_faults(data, Wanted(f"{where}.data", tensor.datatype, shape), faults, limits)
    if len(faults.problems) == before:
        faults.add(f"{where}.data", f"{tensor.datatype} {show_shape(tensor.shape)}", describe(data))
    return None


def _check_names(signature: Signature, sent: Mapping[str, WireTensor], faults: Faults) -> None:
    for spec in signature.inputs:
        if spec.name not in sent:
            faults.add(f"inputs.{spec.name}", f"{spec.datatype} {show_shape(spec.shape)}", "nothing")
    known = {spec.name for spec in signature.inputs}
    for name in sent:
        if name not in known:
            names = ", ".join(repr(spec.name) for spec in signature.inputs)
            faults.add(f"inputs.{shorten(name)}", f"only {names}", "an input that the model does not have")


def _may_fit(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(spec.shape, shape, strict=True)
    )


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
