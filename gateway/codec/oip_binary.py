"""The binary tensor data extension: little-endian tensors behind the JSON, read as views and written without copies.

Source: Triton's ``extension_binary_data.md``. BYTES elements carry a four-byte length each;
a BOOL is one byte, 0 or 1. Views may lie unaligned in the body: numpy reads them so.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from gateway.codec import bfloat
from gateway.codec.faults import Faults
from gateway.codec.shapes import show_shape
from gateway.errors import BadRequest
from gateway.messages import DATATYPES, Array, Signature

__all__ = ["read_binary", "read_header_length", "read_raw_request", "split_body", "write_binary"]

_LENGTH = struct.Struct("<I")

_WIRE_TYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(np.uint16) if name == "BF16" else dtype.newbyteorder("<")
    for name, dtype in DATATYPES.items()
    if name != "BYTES"
}


def read_header_length(text: str | None) -> int | None:
    """The Inference-Header-Content-Length header; BadRequest unless it is a whole number."""
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise BadRequest(f"inference-header-content-length: expected a whole number, got {text[:40]!r}")
    return int(text)


def split_body(body: bytes | memoryview, header_length: int | None) -> tuple[bytes | memoryview, memoryview]:
    """The JSON, and what follows it. No copy of what follows."""
    if header_length is None:
        return body, memoryview(b"")
    if header_length > len(body):
        raise BadRequest(f"inference-header-content-length is {header_length}, the body has only {len(body)} bytes")
    view = memoryview(body)
    return view[:header_length], view[header_length:]


def read_binary(raw: memoryview, datatype: str, shape: tuple[int, ...], where: str, faults: Faults) -> Array | None:
    """The tensor, read-only; None after a fault. A view for every type but BYTES and BF16 (widened)."""
    count = math.prod(shape)
    if datatype == "BYTES":
        return _read_strings(raw, count, shape, where, faults)
    wire = _WIRE_TYPES[datatype]
    if len(raw) != count * wire.itemsize:
        wanted = f"{count * wire.itemsize} bytes for {datatype} {show_shape(shape)}"
        faults.add(where, wanted, f"{len(raw)} bytes")
        return None
    if datatype == "BOOL":
        flags = np.frombuffer(raw, dtype=np.uint8)
        if flags.size and int(flags.max()) > 1:
            index = int(np.argmax(flags > 1))
            faults.add(f"{where}[{index}]", "a byte 0 or 1", str(int(flags[index])))
            return None
        return flags.view(np.bool_).reshape(shape)
    array: Array = np.frombuffer(raw, dtype=wire).reshape(shape)
    return bfloat.widen(array) if datatype == "BF16" else array


def _read_strings(raw: memoryview, count: int, shape: tuple[int, ...], where: str, faults: Faults) -> Array | None:
    if len(raw) < 4 * count:  # before an array of the claimed size is made
        faults.add(where, f"at least {4 * count} bytes for {count} strings", f"{len(raw)} bytes")
        return None
    array = np.empty(count, dtype=object)
    offset = 0
    for index in range(count):
        start = offset + 4
        if start > len(raw):
            faults.add(f"{where}[{index}]", "a four-byte length", f"{len(raw) - offset} bytes left")
            return None
        (length,) = _LENGTH.unpack_from(raw, offset)
        offset = start + length
        if offset > len(raw):
            faults.add(f"{where}[{index}]", f"{length} bytes, as its length says", f"{len(raw) - start} bytes left")
            return None
        array[index] = bytes(raw[start:offset])
    if offset != len(raw):
        faults.add(where, f"{count} strings in {offset} bytes", f"{len(raw)} bytes")
        return None
    return array.reshape(shape)


def read_raw_request(raw: memoryview, signature: Signature, faults: Faults) -> dict[str, Array]:
    """A body without JSON: the data of the model's only input, whose one open axis its length tells.

    With more than one open axis the first counts one row.
    """
    if len(signature.inputs) != 1:
        faults.add("inputs", f"a JSON header, since the model has {len(signature.inputs)} inputs", "binary data alone")
        return {}
    spec = signature.inputs[0]
    where = f"inputs.{spec.name}"
    if spec.datatype == "BYTES":
        shape: tuple[int, ...] | None = (1,) * len(spec.shape)
    else:
        shape = _raw_shape(spec.shape, len(raw), _WIRE_TYPES[spec.datatype].itemsize)
    if shape is None:
        faults.add(where, f"{spec.datatype} {show_shape(spec.shape)}", f"{len(raw)} bytes")
        return {}
    array = read_binary(raw, spec.datatype, shape, where, faults)
    return {} if array is None else {spec.name: array}


def _raw_shape(wanted: tuple[int | str, ...], size_bytes: int, item_bytes: int) -> tuple[int, ...] | None:
    open_axes = [axis for axis, size in enumerate(wanted) if isinstance(size, str)]
    shape = [1 if isinstance(size, str) else size for size in wanted]
    if len(open_axes) > 2 or (len(open_axes) == 2 and open_axes[0] != 0):
        return None
    if open_axes:
        step = math.prod(shape) * item_bytes
        if step == 0 or size_bytes % step:
            return None
        shape[open_axes[-1]] = size_bytes // step
    return tuple(shape)


def write_binary(array: Array, datatype: str) -> bytes | memoryview:
    """The wire's bytes of a tensor; a view where its memory already is what the wire wants."""
    if datatype == "BYTES":
        return b"".join(part for item in array.ravel().tolist() for part in _length_and_bytes(item))
    if datatype == "BF16":
        array = bfloat.narrow(array)
    ready = np.ascontiguousarray(array, dtype=_WIRE_TYPES[datatype])
    return ready.reshape(-1).view(np.uint8).data if ready.size else b""


def _length_and_bytes(item: bytes | str) -> tuple[bytes, bytes]:
    encoded = item.encode() if isinstance(item, str) else item
    return _LENGTH.pack(len(encoded)), encoded
