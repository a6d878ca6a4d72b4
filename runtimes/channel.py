"""Tensors in the memory that gateway and child share, and the header that says where they lie.

A memory starts with its header (JSON), and from the next multiple of 64 bytes the tensors
follow, each aligned to 64. A header that comes from a child is believed in nothing: sizes, offsets
and types are checked against the memory before a byte of it is read, and what is read is a copy.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtimes.base import Array, Arrays
from runtimes.memory import MAX_BYTES, Memory
from runtimes.packets import ChannelFault
from runtimes.signature import DATATYPES, datatype_of

__all__ = [
    "Header",
    "Placed",
    "Plan",
    "aligned",
    "pack_strings",
    "read_header",
    "read_json",
    "unpack_strings",
    "write_json",
]

ALIGNMENT = 64
MAX_HEADER_BYTES = 8 << 20
MAX_TENSORS = 4096
_LENGTH_BYTES = 4
_LIMIT_OF_DIMENSIONS = 32


def aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, slots=True)
class Placed:
    """Where one tensor lies; ``offset`` counts from the end of the header."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    offset: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """``rows`` is the batch's size, None when the signature has no batch axis."""

    tensors: tuple[Placed, ...]
    rows: int | None
    start: int

    def views(self, memory: Memory) -> dict[str, Array]:
        """Arrays straight on the memory (BYTES are copied). For the child, whose mapping cannot be written."""
        return {placed.name: self._view(placed, memory) for placed in self.tensors}

    def copies(self, memory: Memory) -> dict[str, Array]:
        """Arrays of one's own. For the gateway: the child may write on while they are read."""
        return {placed.name: self._copy(placed, memory) for placed in self.tensors}

    def _raw(self, placed: Placed, memory: Memory) -> bytes:
        begin = self.start + placed.offset
        return memory.buffer[begin : begin + placed.size_bytes]

    def _view(self, placed: Placed, memory: Memory) -> Array:
        if placed.datatype == "BYTES":
            return unpack_strings(self._raw(placed, memory), placed.name, placed.shape)
        return memory.array(placed.shape, placed.datatype, self.start + placed.offset)

    def _copy(self, placed: Placed, memory: Memory) -> Array:
        if placed.datatype == "BOOL":
            # A byte that is neither 0 nor 1 would be an undefined bool in our hands.
            octets = np.frombuffer(self._raw(placed, memory), np.uint8)
            return np.not_equal(octets, 0).reshape(placed.shape)
        view = self._view(placed, memory)
        return view if placed.datatype == "BYTES" else view.copy()


class Plan:
    """The layout of a batch before it is written: ``parts`` are joined along the first axis as they are copied.

    Raises ``ValueError`` when the parts cannot be joined or hold what no datatype describes, ``KeyError``
    when one lacks a name.
    """

    def __init__(self, parts: Sequence[Arrays], names: Sequence[str], *, rows: int | None) -> None:
        self._sources: list[tuple[Placed, Sequence[Array] | bytes]] = []
        end = 0
        for name in names:
            arrays = [_plain(part[name]) for part in parts]
            placed, source = _place(name, arrays, end)
            self._sources.append((placed, source))
            end = aligned(placed.offset + placed.size_bytes)
        body = {
            "rows": rows,
            "tensors": [[p.name, p.datatype, p.shape, p.offset, p.size_bytes] for p, _ in self._sources],
        }
        self.header = json.dumps(body, separators=(",", ":")).encode()
        self.total_bytes = aligned(len(self.header)) + end

    def write(self, memory: Memory) -> int:
        """Copies everything into the memory, which must be large enough; returns the header's size in bytes."""
        if self.total_bytes > memory.size_bytes:
            raise ValueError(f"the batch takes {self.total_bytes} bytes, the memory has {memory.size_bytes}")
        memory.buffer[: len(self.header)] = self.header
        start = aligned(len(self.header))
        for placed, source in self._sources:
            begin = start + placed.offset
            if isinstance(source, bytes):
                memory.buffer[begin : begin + placed.size_bytes] = source
                continue
            target = memory.array(placed.shape, placed.datatype, begin)
            if len(source) == 1:
                np.copyto(target, source[0])
            else:
                np.concatenate(source, axis=0, out=target)
        return len(self.header)


def _plain(array: Array) -> Array:
    """Native byte order; strings of any width as objects."""
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8").astype(object)
    if array.dtype.kind == "S":
        return array.astype(object)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _place(name: str, arrays: Sequence[Array], offset: int) -> tuple[Placed, Sequence[Array] | bytes]:
    first = arrays[0]
    datatype = datatype_of(first)
    shape = first.shape
    if len(arrays) > 1:
        same = all(other.dtype == first.dtype and other.shape[1:] == shape[1:] and other.ndim for other in arrays)
        if not same or not shape:
            raise ValueError(f"tensor {name!r}: parts of different type or shape cannot share a batch")
        shape = (sum(array.shape[0] for array in arrays), *shape[1:])
    if datatype == "BYTES":
        packed = b"".join(pack_strings(name, array) for array in arrays)
        return Placed(name, datatype, shape, offset, len(packed)), packed
    size = math.prod(shape) * DATATYPES[datatype].itemsize
    return Placed(name, datatype, shape, offset, size), arrays


def pack_strings(name: str, array: Array) -> bytes:
    """Each with its length before it. ``ValueError`` for what is no string."""
    if array.dtype != object:
        array = _plain(array)
    pieces: list[bytes] = []
    for value in array.ravel().tolist():
        octets = value.encode() if isinstance(value, str) else value
        if not isinstance(octets, bytes):
            raise ValueError(f"tensor {name!r}: BYTES elements are bytes or str, got {type(value).__name__}")
        pieces.append(len(octets).to_bytes(_LENGTH_BYTES, "little"))
        pieces.append(octets)
    return b"".join(pieces)


def unpack_strings(raw: bytes, name: str, shape: tuple[int, ...]) -> Array:
    """Of a copy. ``ChannelFault`` when the lengths lie."""
    count = math.prod(shape)
    if count * _LENGTH_BYTES > len(raw):
        raise ChannelFault(f"tensor {name!r}: {count} strings in {len(raw)} bytes")
    values = np.empty(count, dtype=object)
    at = 0
    for index in range(count):
        begin = at + _LENGTH_BYTES
        at = begin + int.from_bytes(raw[at:begin], "little")
        if begin > len(raw) or at > len(raw):
            raise ChannelFault(f"tensor {name!r}: string {index} reaches past the tensor's {len(raw)} bytes")
        values[index] = raw[begin:at]
    if at != len(raw):
        raise ChannelFault(f"tensor {name!r}: {len(raw) - at} bytes left over after {count} strings")
    return values.reshape(shape)


def _raw_header(memory: Memory, header_bytes: int, start: int) -> bytes:
    if not 0 < header_bytes <= min(memory.size_bytes - start, MAX_HEADER_BYTES):
        raise ChannelFault(f"a header of {header_bytes} bytes in a memory of {memory.size_bytes}")
    return memory.buffer[start : start + header_bytes]


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ChannelFault(f"the header is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise ChannelFault(f"the header is a {type(body).__name__}, expected an object")
    return body


def write_json(body: Mapping[str, Any]) -> bytes:
    """A header that is no batch: what LOAD and LOADED carry."""
    return json.dumps(body, separators=(",", ":")).encode()


def read_json(memory: Memory, header_bytes: int, start: int = 0) -> dict[str, Any]:
    """The header as an object. ``ChannelFault`` when there is none."""
    return _parse(_raw_header(memory, header_bytes, start))


def read_header(memory: Memory, header_bytes: int) -> Header:
    """A batch's header, every number in it checked against the memory. ``ChannelFault`` otherwise."""
    body = read_json(memory, header_bytes)
    start = aligned(header_bytes)
    rows, tensors = body.get("rows"), body.get("tensors")
    if not isinstance(tensors, list) or not 0 < len(tensors) <= MAX_TENSORS:
        raise ChannelFault(f"expected 1 to {MAX_TENSORS} tensors in the header")
    if rows is not None and (type(rows) is not int or rows < 0):
        raise ChannelFault(f"rows: expected a count, got {rows!r}")
    placed = tuple(_checked(row, memory.size_bytes - start) for row in tensors)
    if len({one.name for one in placed}) != len(placed):
        raise ChannelFault("two tensors share a name")
    return Header(placed, rows, start)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_BYTES


def _checked(row: object, room_bytes: int) -> Placed:
    if not isinstance(row, list) or len(row) != 5:
        raise ChannelFault("a tensor's place has five parts: name, datatype, shape, offset, size")
    name, datatype, shape, offset, size = row
    if not isinstance(name, str) or not isinstance(datatype, str) or datatype not in DATATYPES:
        raise ChannelFault(f"tensor {str(name)[:100]!r}: unknown datatype {str(datatype)[:100]!r}")
    if not isinstance(shape, list) or len(shape) > _LIMIT_OF_DIMENSIONS or not all(map(_is_count, shape)):
        raise ChannelFault(f"tensor {name[:100]!r}: its shape is no list of sizes")
    if not (_is_count(offset) and _is_count(size)) or offset % ALIGNMENT or offset + size > room_bytes:
        raise ChannelFault(f"tensor {name[:100]!r}: offset {offset!r}, size {size!r} leave the memory of {room_bytes}")
    # Zero-sized axes count as one, so that no product numpy could not hold passes behind a zero.
    count = math.prod(max(1, axis) for axis in shape)
    if count > MAX_BYTES:
        raise ChannelFault(f"tensor {name[:100]!r}: shape {shape} is too large")
    count = math.prod(shape)
    expected = count * _LENGTH_BYTES if datatype == "BYTES" else count * DATATYPES[datatype].itemsize
    if size < expected if datatype == "BYTES" else size != expected:
        raise ChannelFault(f"tensor {name[:100]!r}: {size} bytes do not hold {datatype} {shape}")
    return Placed(name, datatype, tuple(shape), offset, size)
