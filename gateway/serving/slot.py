"""The memories of a conversation: inputs that the child reads, answers that it writes.

All are made here and never there, so that no child can choose what the gateway maps. They are reused from batch
to batch; a larger one replaces one that has become too small, and is sent to the child.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence

from gateway.messages import Array, Arrays
from runtimes.layout import RESERVED_BYTES, Layout, Placed
from runtimes.memory import Memory
from runtimes.packets import Op, Packet

__all__ = ["AnswerMemories", "AnswerMemory", "InputSlot", "Send"]

Send = Callable[[Packet, Sequence[int]], bool]

FIRST_BYTES = 256 * 1024
COPIED_BYTES = 64 * 1024
"""Answers up to this size are copied: that costs less than it would to keep track of who still reads them."""
_ANSWERS = 4
_PLACED = 64


def _replaced(old: Memory | None, op: Op, number: int, needed_bytes: int, send: Send) -> Memory:
    """A new memory, known to the child. ``ValueError`` past the limit, ``OSError`` when the system has none."""
    memory = Memory.create(f"turnout {op.name.lower()}", needed_bytes, writable_by_child=op is Op.OUTPUT)
    try:
        send(Packet(op, number, size_bytes=memory.size_bytes), [memory.fd])
    except BaseException:
        memory.close()
        raise
    memory.forget_fd()
    if old is not None:
        old.close()
    return memory


class InputSlot:
    """One batch's inputs. Items may be staged: copied to where they will probably lie, before the batch is formed."""

    def __init__(self, number: int, send: Send) -> None:
        self.number = number
        self._send = send
        self._memory: Memory | None = None
        self._placed: dict[Layout, Placed] = {}
        self._staged_layout: Layout | None = None
        self._staged_rows = 0
        # By the identity of the item: the item itself, so that the identity stays its own, and its first row.
        self._staged: dict[int, tuple[Arrays, int]] = {}

    @property
    def staged(self) -> int:
        """Items that lie here before their batch is formed."""
        return len(self._staged)

    def fill(self, layout: Layout, parts: Sequence[Arrays], rows: int, packed: Sequence[bytes]) -> None:
        """Lays the parts one behind the other. Raises what ``Placed.join`` and ``Memory.create`` do."""
        staged, same = self._staged, self._staged_layout is layout
        placed = self._on(layout, layout.string_places([*map(len, packed)])[1] if packed else layout.end)
        if staged:
            self._staged = {}
            self._staged_layout, self._staged_rows = None, 0
            if same and not packed:
                _fill_rest(placed, parts, rows, staged)
                return
        placed.join(parts, rows, packed)

    def stage(self, layout: Layout, part: Arrays, rows: int) -> None:
        """Copies an item behind those staged before, if there is room. Raises what ``fill`` does."""
        if self._staged_layout is not layout:
            if self._staged:
                return
            self._staged_layout, self._staged_rows = layout, 0
        at = self._staged_rows
        if at + rows <= layout.capacity:
            self._on(layout, layout.end).put(part, at, rows)
            self._staged_rows += rows
            self._staged[id(part)] = (part, at)

    def write(self, body: bytes) -> None:
        """What LOAD carries."""
        self._of(max(FIRST_BYTES, len(body))).buffer[: len(body)] = body

    def close(self) -> None:
        self._placed.clear()
        self._staged.clear()
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    def _on(self, layout: Layout, needed_bytes: int) -> Placed:
        memory = self._of(max(FIRST_BYTES, needed_bytes))
        placed = self._placed.get(layout)
        if placed is None:
            if len(self._placed) >= _PLACED:
                self._placed.clear()
            placed = self._placed[layout] = Placed(layout, memory)
        return placed

    def _of(self, needed_bytes: int) -> Memory:
        memory = self._memory
        if memory is None or memory.size_bytes < needed_bytes:
            # The arrays on the old one hold it mapped.
            self._placed.clear()
            self._staged.clear()
            memory = self._memory = _replaced(memory, Op.INPUT, self.number, needed_bytes, self._send)
        return memory


def _fill_rest(placed: Placed, parts: Sequence[Arrays], rows: int, staged: Mapping[int, tuple[Arrays, int]]) -> None:
    """Copies what does not lie at its place already."""
    at = 0
    for part in parts:
        count = len(next(iter(part.values()))) if placed.layout.batched else rows
        known = staged.get(id(part))
        if known is None or known[1] != at:
            placed.put(part, at, count)
        at += count


class AnswerMemory:
    """One batch's outputs, and the first byte by which the child tells that it has begun that batch."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.memory: Memory | None = None
        self.busy = False
        self._placed: dict[Layout, Placed] = {}
        self._lease: weakref.ref[Array] | None = None

    @property
    def free(self) -> bool:
        """No batch is to be answered here, and nobody holds an array of the last that was."""
        return not self.busy and (self._lease is None or self._lease() is None)

    @property
    def begun(self) -> bool:
        return self.memory is not None and self.memory.buffer[0] != 0

    def taken(self) -> None:
        self.busy = True
        self._lease = None
        if self.memory is not None:
            self.memory.buffer[0] = 0

    def read(self, layout: Layout, rows: int, sizes: Sequence[int]) -> Arrays:
        """The caller's to keep: copies, or arrays on this memory, which is not written again while they live.

        ``ChannelFault`` for what does not lie in it.
        """
        placed = self._placed.get(layout)
        if placed is None:
            if self.memory is None:
                raise ValueError("an answer without a memory")
            if len(self._placed) >= _PLACED:
                self._placed.clear()
            placed = self._placed[layout] = Placed(layout, self.memory)
        if layout.row_bytes * rows <= COPIED_BYTES:
            return placed.copies(rows, sizes)
        outputs, base = placed.leased(rows, sizes)
        self._lease = weakref.ref(base)
        return outputs

    def replace(self, needed_bytes: int, send: Send) -> None:
        """Another memory; the one before lives on for as long as arrays on it do."""
        self._placed.clear()
        self._lease = None
        self.memory = _replaced(self.memory, Op.OUTPUT, self.number, needed_bytes, send)

    def close(self) -> None:
        self._placed.clear()
        if self.memory is not None:
            self.memory.close()
            self.memory = None


class AnswerMemories:
    """As many as batches are under way, and some more while answers are read in place."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._all = [AnswerMemory(number) for number in range(_ANSWERS)]
        self._needed_bytes = FIRST_BYTES

    def take(self) -> AnswerMemory:
        """One that nobody reads or writes. ``OSError`` when the system has no memory."""
        answer = next((one for one in self._all if one.free), None)
        if answer is None:
            answer = next(one for one in self._all if not one.busy)
            answer.replace(self._needed_bytes, self._send)
        elif answer.memory is None or answer.memory.size_bytes < self._needed_bytes:
            answer.replace(self._needed_bytes, self._send)
        answer.taken()
        return answer

    def grow(self, answer: AnswerMemory, needed_bytes: int) -> None:
        """A larger one for this answer, and for those to come."""
        self._needed_bytes = max(self._needed_bytes, needed_bytes)
        answer.replace(needed_bytes, self._send)
        if answer.memory is not None:
            answer.memory.buffer[0] = 1  # what wants room has begun

    def close(self) -> None:
        for answer in self._all:
            answer.close()


def body_of(answer: AnswerMemory) -> tuple[Memory, int]:
    """Where LOADED has its body."""
    if answer.memory is None:
        raise ValueError("an answer without a memory")
    return answer.memory, RESERVED_BYTES
