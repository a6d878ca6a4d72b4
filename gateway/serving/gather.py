"""From the items' arrays to one batch in a slot: which layout it has, and whether the items fit together."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from gateway.messages import Array, Arrays, Signature
from gateway.serving.slot import InputSlot
from runtimes.channel import pack_strings
from runtimes.layout import LAYOUTS, ROOM_BYTES, Layout, Shapes

__all__ = ["Gather"]


class Gather:
    """Joins batches of one signature. ``say`` tells the child of a layout, before any batch has it."""

    def __init__(self, signature: Signature, max_rows: int, say: Callable[[Layout], None]) -> None:
        self._signature = signature
        self._batched = signature.batched
        self._names = tuple(spec.name for spec in signature.inputs)
        self._strings = tuple(spec.name for spec in signature.inputs if spec.datatype == "BYTES")
        self._max_rows = max_rows
        self._say = say
        # The oldest number is given anew; far more numbers than batches under way, so none of these has it.
        self._layouts: dict[Shapes, Layout] = {}
        self._numbers = 0

    def fill(self, parts: Sequence[Arrays], slot: InputSlot) -> tuple[Layout, int, bytes]:
        """Lays the parts into the slot: their layout, the batch's rows, and the sizes of its strings.

        ``KeyError`` when an input is missing, ``ValueError`` or ``TypeError`` when the parts do not fit
        together or not the signature, ``OSError`` when there is no memory.
        """
        layout, rows = self._measured(parts)
        packed = [self._packed(name, parts, rows) for name in self._strings]
        try:
            slot.fill(layout, parts, rows, packed)
            return layout, rows, struct.pack(f"<{len(packed)}Q", *map(len, packed)) if packed else b""
        except (ValueError, TypeError) as error:
            problem = self._difference(parts) or str(error)
        # Out here, so that no traceback keeps arrays on the memory, and with them its mapping.
        raise ValueError(problem)

    def stage(self, part: Arrays, slot: InputSlot) -> None:
        """As far as it goes: what is wrong with the item will be said when its batch is filled."""
        if self._strings:
            return
        try:
            layout, rows = self._measured([part])
            slot.stage(layout, part, rows)
        except (KeyError, ValueError, TypeError, OSError):
            return

    def _measured(self, parts: Sequence[Arrays]) -> tuple[Layout, int]:
        first, name = parts[0], self._names[0]
        if self._batched:
            rows = len(first[name]) if len(parts) == 1 else sum([len(part[name]) for part in parts])
            shapes = tuple([first[name].shape[1:] for name in self._names])
        else:
            if len(parts) != 1:
                raise ValueError(f"{len(parts)} requests in one batch of a version that takes one at a time")
            rows, shapes = 1, tuple([first[name].shape for name in self._names])
        layout = self._layouts.get(shapes)
        if layout is None or layout.capacity < rows:
            layout = self._new(shapes, rows)
        return layout, rows

    def _new(self, shapes: Shapes, rows: int) -> Layout:
        """``ValueError`` when the shapes do not fit the signature, or no slot is large enough."""
        signature = self._signature
        number = self._numbers % LAYOUTS
        capacity = 1 if not self._batched else max(1, rows)
        layout = Layout(signature.inputs, shapes, batched=self._batched, capacity=capacity, number=number)
        if self._batched:
            room = self._max_rows if self._max_rows * layout.row_bytes <= ROOM_BYTES else 1
            wider = max(room, 1 << (capacity - 1).bit_length())
            if wider * layout.row_bytes <= ROOM_BYTES:
                layout = Layout(signature.inputs, shapes, batched=True, capacity=wider, number=number)
        self._say(layout)
        self._numbers += 1
        self._layouts.pop(shapes, None)
        if len(self._layouts) == LAYOUTS:
            del self._layouts[next(iter(self._layouts))]
        self._layouts[shapes] = layout
        return layout

    def _packed(self, name: str, parts: Sequence[Arrays], rows: int) -> bytes:
        arrays = [part[name] for part in parts]
        if self._batched and sum(map(len, arrays)) != rows:
            raise ValueError(f"tensor {name!r} has {sum(map(len, arrays))} rows, the first input has {rows}")
        if any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
            raise ValueError(f"tensor {name!r}: parts of different type or shape cannot share a batch")
        return b"".join([pack_strings(name, array) for array in arrays])

    def _difference(self, parts: Sequence[Arrays]) -> str:
        """What keeps the parts from being one batch, in words; empty when it is something else."""
        for name in self._names:
            arrays: list[Array] = [part[name] for part in parts]
            if any(array.dtype != arrays[0].dtype or array.shape[1:] != arrays[0].shape[1:] for array in arrays):
                return f"tensor {name!r}: parts of different type or shape cannot share a batch"
        return ""
