"""How a batch lies in the memory that gateway and child share.

A layout is said once and numbered: the trailing shape of every tensor (names and datatypes are the
signature's), and for how many rows there is room. From that both sides know every offset, so a batch is
described by a number and a count of rows, and read through arrays that were made when the layout was new.
BYTES tensors have no fixed size: they follow the others, and their sizes travel in the packet.

What comes from a child is believed in nothing: shapes are held against the signature, sizes against the
memory, and strings and truth values are read from copies.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence

import numpy as np

from runtimes.base import Array
from runtimes.channel import ALIGNMENT, aligned, unpack_strings
from runtimes.memory import MAX_BYTES, Memory
from runtimes.packets import ChannelFault
from runtimes.signature import DATATYPES, TensorSpec

__all__ = [
    "LAYOUTS",
    "RESERVED_BYTES",
    "ROOM_BYTES",
    "Layout",
    "Placed",
    "Shapes",
    "string_sizes",
]

LAYOUTS = 64
"""Numbers that one side may have in use at once."""
RESERVED_BYTES = 64
"""At the head of every output: its first byte is 1 once the batch that it belongs to has begun to run."""

ROOM_BYTES = 256 << 20
"""A layout has room for the largest batch from the start, unless that takes more. Untouched memory costs nothing."""

Shapes = tuple[tuple[int, ...], ...]


class Layout:
    """Places for up to ``capacity`` rows. ``shapes`` are without the first axis, whole when there is no batch axis.

    Raises ``ValueError`` when a shape does not fit its tensor, or no memory is large enough.
    """

    __slots__ = ("batched", "capacity", "end", "number", "offsets", "row_bytes", "shapes", "specs", "strings")

    def __init__(
        self,
        specs: Sequence[TensorSpec],
        shapes: Shapes,
        *,
        batched: bool,
        capacity: int,
        start: int = 0,
        number: int = 0,
    ) -> None:
        self.specs = tuple(specs)
        self.shapes = shapes
        self.batched = batched
        self.capacity = capacity
        self.number = number
        self.row_bytes = 0
        self.strings = sum(spec.datatype == "BYTES" for spec in specs)
        offsets: list[int] = []
        end = start
        for spec, shape in zip(specs, shapes, strict=True):
            _check_fits(spec, shape, batched)
            offsets.append(end)
            if spec.datatype != "BYTES":
                size = math.prod(shape) * DATATYPES[spec.datatype].itemsize
                self.row_bytes += size
                end = aligned(end + size * capacity)
        if end > MAX_BYTES:
            raise ValueError(f"{capacity} rows take {end} bytes, more than the {MAX_BYTES} that a slot can hold")
        self.offsets = tuple(offsets)
        self.end = end

    def describe(self) -> bytes:
        """The shapes, as LAYOUT carries them."""
        return json.dumps(self.shapes, separators=(",", ":")).encode()

    @classmethod
    def parse(
        cls, raw: bytes, specs: Sequence[TensorSpec], *, batched: bool, capacity: int, start: int = 0, number: int
    ) -> Layout:
        """What the other side described, checked. ``ChannelFault`` otherwise."""
        if number >= LAYOUTS:
            raise ChannelFault(f"layout {number}: there are {LAYOUTS}")
        try:
            shapes = tuple(tuple(map(_count, shape)) for shape in json.loads(raw))
            return cls(specs, shapes, batched=batched, capacity=capacity, start=start, number=number)
        except (ValueError, TypeError, RecursionError) as error:
            raise ChannelFault(f"layout {number}: {error}") from None

    def string_places(self, sizes: Sequence[int]) -> tuple[list[int], int]:
        """Where the BYTES tensors begin, and where all ends."""
        places: list[int] = []
        end = self.end
        for size in sizes:
            places.append(end)
            end = aligned(end + size)
        return places, end


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_BYTES:
        raise ValueError(f"expected the size of an axis, got {str(value)[:100]}")
    return value


def _check_fits(spec: TensorSpec, shape: tuple[int, ...], batched: bool) -> None:
    promised = spec.shape[1:] if batched else spec.shape
    fits = len(promised) == len(shape) and all(
        isinstance(axis, str) or axis == size for axis, size in zip(promised, shape, strict=True)
    )
    if not fits:
        told = ["rows", *shape] if batched else [*shape]
        raise ValueError(f"tensor {spec.name!r} has shape {told}, the signature says {[*spec.shape]}")
    # Zero-sized axes count as one, so that no product numpy could not hold passes behind a zero.
    if math.prod(max(1, axis) for axis in shape) > MAX_BYTES:
        raise ValueError(f"tensor {spec.name!r}: shape {[*shape]} is too large")


class Placed:
    """A layout on a memory: an array for each tensor over all rows, made once; a batch is slices of them."""

    __slots__ = ("_arrays", "_memory", "layout")

    def __init__(self, layout: Layout, memory: Memory) -> None:
        """``ChannelFault`` when the memory is too small."""
        if layout.end > memory.size_bytes:
            raise ChannelFault(f"the layout takes {layout.end} bytes, the memory has {memory.size_bytes}")
        self.layout = layout
        self._memory = memory
        self._arrays: list[tuple[str, Array | None]] = [
            (spec.name, None if spec.datatype == "BYTES" else memory.array(self._whole(shape), spec.datatype, offset))
            for spec, shape, offset in zip(layout.specs, layout.shapes, layout.offsets, strict=True)
        ]

    def _whole(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.layout.capacity, *shape) if self.layout.batched else shape

    def views(self, rows: int, sizes: Sequence[int] = ()) -> dict[str, Array]:
        """Arrays straight on the memory (BYTES are copied). For the child, whose mapping cannot be written."""
        if self.layout.strings:
            return self._with_strings({n: self._cut(a, rows) for n, a in self._arrays if a is not None}, rows, sizes)
        if self.layout.batched:
            return {name: array[:rows] for name, array in self._arrays if array is not None}
        return {name: array for name, array in self._arrays if array is not None}

    def copies(self, rows: int, sizes: Sequence[int] = ()) -> dict[str, Array]:
        """Arrays of one's own."""
        found = {
            name: _truths(self._cut(array, rows)) if array.dtype == np.bool_ else self._cut(array, rows).copy()
            for name, array in self._arrays
            if array is not None
        }
        return self._with_strings(found, rows, sizes) if self.layout.strings else found

    def leased(self, rows: int, sizes: Sequence[int] = ()) -> tuple[dict[str, Array], Array]:
        """Arrays on the memory, and the array below them all, which lives for as long as any of them does.

        Truth values and strings are copied: of them not every pattern of bits is one.
        """
        base = self._memory.octets()
        found: dict[str, Array] = {}
        for (name, array), offset in zip(self._arrays, self.layout.offsets, strict=True):
            if array is None:
                continue
            cut = self._cut(array, rows)
            if cut.dtype == np.bool_:
                found[name] = _truths(cut)
            else:
                found[name] = base[offset : offset + cut.nbytes].view(cut.dtype).reshape(cut.shape)
        return (self._with_strings(found, rows, sizes) if self.layout.strings else found), base

    def join(self, parts: Sequence[Mapping[str, Array]], rows: int, packed: Sequence[bytes] = ()) -> None:
        """Copies parts in one behind the other; ``packed`` holds all parts of each BYTES tensor.

        ``ValueError`` or ``TypeError`` when they differ in type or shape, ``KeyError`` when one lacks a name.
        """
        single = parts[0] if len(parts) == 1 else None
        for name, array in self._arrays:
            if array is None:
                continue
            target = self._cut(array, rows)
            if single is None:
                np.concatenate([part[name] for part in parts], out=target, casting="equiv")
            else:
                _put(target, single[name])
        self._join_strings(packed)

    def put(self, part: Mapping[str, Array], at: int, rows: int) -> None:
        """Copies one part to the rows from ``at``; no BYTES. Raises what ``join`` does."""
        for name, array in self._arrays:
            if array is not None:
                _put(array[at : at + rows], part[name])

    def _join_strings(self, packed: Sequence[bytes]) -> None:
        if packed:
            places, _ = self.layout.string_places([*map(len, packed)])
            for place, octets in zip(places, packed, strict=True):
                self._memory.buffer[place : place + len(octets)] = octets

    def _cut(self, array: Array, rows: int) -> Array:
        return array[:rows] if self.layout.batched else array

    def _with_strings(self, found: dict[str, Array], rows: int, sizes: Sequence[int]) -> dict[str, Array]:
        """``found`` in the signature's order, with the strings."""
        layout = self.layout
        if len(sizes) != layout.strings:
            raise ChannelFault(f"{len(sizes)} sizes came for {layout.strings} tensors of BYTES")
        places, end = layout.string_places(sizes)
        if end - ALIGNMENT >= self._memory.size_bytes or any(
            place + size > self._memory.size_bytes for place, size in zip(places, sizes, strict=True)
        ):
            raise ChannelFault(f"tensors of BYTES end at {end} in a memory of {self._memory.size_bytes}")
        where = iter(zip(places, sizes, strict=True))
        complete: dict[str, Array] = {}
        for spec, shape in zip(layout.specs, layout.shapes, strict=True):
            if spec.datatype != "BYTES":
                complete[spec.name] = found[spec.name]
                continue
            place, size = next(where)
            whole = (rows, *shape) if layout.batched else shape
            complete[spec.name] = unpack_strings(self._memory.buffer[place : place + size], spec.name, whole)
        return complete


def _put(target: Array, source: Array) -> None:
    if source.shape != target.shape:
        raise ValueError(f"shape {[*source.shape]} where {[*target.shape]} was expected")
    np.copyto(target, source, casting="equiv")


def _truths(array: Array) -> Array:
    """A byte that is neither 0 nor 1 would be an undefined bool in our hands."""
    truths: Array = np.not_equal(array.view(np.uint8), 0)
    return truths


def string_sizes(tail: bytes) -> tuple[int, ...]:
    """The sizes of BYTES tensors out of a packet. ``ChannelFault`` when they are none."""
    if not tail:
        return ()
    if len(tail) % 8:
        raise ChannelFault(f"{len(tail)} bytes are no list of sizes")
    return struct.unpack(f"<{len(tail) // 8}Q", tail)
