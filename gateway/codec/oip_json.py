"""Open Inference Protocol v2: an infer request, fitted to the signature of whichever version answers.

Source: kserve/open-inference-protocol ``inference_rest.md``; binary data as Triton's protocol
extension describes it. ``oip_request`` reads one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.codec.faults import Faults, describe, shorten
from gateway.codec.limits import CodecLimits
from gateway.codec.oip_binary import read_binary, read_raw_request
from gateway.codec.shapes import check_count, count_rows, show_shape
from gateway.codec.values import Wanted, find_faults, read_values
from gateway.messages import Array, Arrays, Signature, TensorSpec

__all__ = ["InferEnvelope", "RequestedOutput", "WireTensor"]


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
