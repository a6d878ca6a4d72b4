"""The pair of memories that one batch uses: inputs that the child reads, outputs that it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from runtimes.memory import Memory
from runtimes.packets import Op, Packet

__all__ = ["Slot"]


class Slot:
    """Reused from batch to batch. A larger memory replaces one that has become too small, and is sent to the child.

    Both are made here and never there, so that no child can choose what the gateway maps.
    """

    def __init__(self, number: int, send: Callable[[Packet, Sequence[int]], bool]) -> None:
        self.number = number
        self._send = send
        self._input: Memory | None = None
        self._output: Memory | None = None

    @property
    def output(self) -> Memory | None:
        return self._output

    def input_of(self, needed_bytes: int) -> Memory:
        """An input of at least this size. ``ValueError`` past the limit, ``OSError`` when the system has none."""
        if self._input is None or self._input.size_bytes < needed_bytes:
            self._input = self._replaced(self._input, Op.INPUT, needed_bytes)
        return self._input

    def output_of(self, needed_bytes: int) -> None:
        """Sees to an output of at least this size."""
        if self._output is None or self._output.size_bytes < needed_bytes:
            self._output = self._replaced(self._output, Op.OUTPUT, needed_bytes)

    def close(self) -> None:
        for memory in (self._input, self._output):
            if memory is not None:
                memory.close()
        self._input = self._output = None

    def _replaced(self, old: Memory | None, op: Op, needed_bytes: int) -> Memory:
        memory = Memory.create(f"turnout {op.name.lower()}", needed_bytes, writable_by_child=op is Op.OUTPUT)
        try:
            self._send(Packet(op, self.number, size_bytes=memory.size_bytes), [memory.fd])
        except BaseException:
            memory.close()
            raise
        memory.forget_fd()
        if old is not None:
            old.close()
        return memory
