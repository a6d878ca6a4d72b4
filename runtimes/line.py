"""One channel as the child holds it: its memories, its layouts, and the batches that came over it.

A line never waits for its other end. An answer that finds its memory too small is kept until a larger one has
come, and meanwhile other lines are served.
"""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from runtimes.base import Array, ModelFailed, RuntimeFailure
from runtimes.channel import pack_strings
from runtimes.layout import LAYOUTS, RESERVED_BYTES, ROOM_BYTES, Layout, Placed, Shapes, string_sizes
from runtimes.memory import MAX_BYTES, Memory
from runtimes.packets import ChannelFault, Op, Packet, Reader, failure, send
from runtimes.signature import Signature

__all__ = ["Line", "Run"]

_MEMORIES = 16
_RUNS = 16
# As plain numbers: a packet's operation is compared for every batch.
_RUN, _INPUT, _OUTPUT, _LAYOUT = int(Op.RUN), int(Op.INPUT), int(Op.OUTPUT), int(Op.LAYOUT)


class Run:
    """One batch as it came. ``alone`` forbids running it together with another's, ``uncounted`` counting it."""

    __slots__ = ("alone", "inputs", "layout", "line", "output", "rows", "slot", "uncounted")

    def __init__(self, line: Line, packet: Packet, layout: Layout, inputs: Placed) -> None:
        self.line = line
        self.slot = packet.slot
        self.output = packet.output
        self.rows = packet.rows
        self.alone = bool(packet.flags & 1)
        self.uncounted = bool(packet.flags & 2)
        self.layout = layout
        self.inputs = inputs.views(packet.rows, string_sizes(packet.tail))


@dataclass(slots=True, eq=False)
class _Answer:
    """Outputs that are ready to be written. ``ran`` rows were computed together, in ``seconds``."""

    run: Run
    outputs: Mapping[str, Array]
    packed: list[bytes]
    layout: Layout
    seconds: float
    ran: int

    @property
    def needed_bytes(self) -> int:
        return self.layout.string_places([*map(len, self.packed)])[1] if self.packed else self.layout.end


class Line:
    """See the module. ``OSError`` from any of it: the other end is gone; ``ChannelFault``: it is to be left."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._reader = Reader(channel, fds=True)
        self._signature: Signature | None = None
        self._inputs: dict[int, Memory] = {}
        self._outputs: dict[int, Memory] = {}
        self._layouts: dict[int, Layout] = {}
        self._placed: dict[tuple[bool, int, Layout], Placed] = {}
        # By trailing shapes and capacity, the layouts that this side has numbered; the oldest number is given anew.
        self._numbered: dict[tuple[Shapes, int], Layout] = {}
        self._numbers = 0
        self._kept: _Answer | None = None
        self._wanted: bytes | None = None
        self.runs: deque[Run] = deque()

    def __repr__(self) -> str:
        return f"<Line [{len(self.runs)} waiting]>"

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def ready(self) -> bool:
        """A batch may be run: one waits, and the answer before it is out."""
        return bool(self.runs) and self._kept is None

    def loaded(self, signature: Signature) -> None:
        """From here on batches may come."""
        self._signature = signature

    def take(self) -> tuple[Packet, int | None] | None:
        """Takes in one packet, waiting for it if the socket does. Gives back what is not a line's own business.

        ``ConnectionResetError`` at the end of the channel.
        """
        packet, fd = self._reader.read_with_fd()
        if packet is None:
            raise ConnectionResetError("the other end closed the channel")
        if packet.op == _RUN:
            if fd is not None:
                os.close(fd)
            self._take_run(packet)
        elif packet.op in (_INPUT, _OUTPUT):
            self._take_memory(packet, fd)
        elif packet.op == _LAYOUT:
            if fd is not None:
                os.close(fd)
            self._take_layout(packet)
        else:
            return packet, fd
        return None

    def body(self, packet: Packet) -> Memory:
        """The memory in which the body of a LOAD lies."""
        memory = self._inputs.get(packet.slot)
        if memory is None:
            raise ChannelFault("work came before the memory it lies in")
        return memory

    def begin(self, run: Run) -> None:
        """Leaves word that this batch is no longer a waiting one, for whoever asks after our death."""
        output = self._outputs.get(run.output)
        if output is not None:
            output.buffer[0] = 1

    def answer(self, run: Run, outputs: Mapping[str, Array], seconds: float, ran: int) -> None:
        """Sends outputs for a run; ``ran`` rows were computed together. ModelFailed when they cannot be sent."""
        signature = self._signature
        if signature is None:
            raise ChannelFault("an answer before anything was loaded")
        try:
            packed = [pack_strings(s.name, outputs[s.name]) for s in signature.outputs if s.datatype == "BYTES"]
            layout = self._layout_of(outputs, signature, run)
        except ValueError as error:
            raise ModelFailed(f"the outputs cannot be sent: {error}") from error
        answer = _Answer(run, outputs, packed, layout, seconds, ran)
        if packed and answer.needed_bytes > MAX_BYTES:
            raise ModelFailed(f"the outputs take {answer.needed_bytes} bytes; a batch may give {MAX_BYTES} at most")
        self._deliver(answer)

    def fail(self, run: Run, error: RuntimeFailure) -> None:
        send(self._channel, failure(error.kind, str(error), slot=run.slot))

    def tell(self, packet: Packet) -> None:
        """One packet as it is."""
        send(self._channel, packet)

    def try_to_tell(self, packet: Packet) -> bool:
        """One packet as it is, if there is room for it now."""
        try:
            send(self._channel, packet, wait=False)
        except BlockingIOError:
            return False
        return True

    def tell_loaded(self, body: bytes) -> None:
        """LOADED, as soon as there is room for its body."""
        output = self._outputs.get(0)
        if output is None or output.size_bytes < RESERVED_BYTES + len(body):
            self._wanted = body
            self.tell(Packet(Op.GROW, size_bytes=RESERVED_BYTES + len(body)))
            return
        output.buffer[RESERVED_BYTES : RESERVED_BYTES + len(body)] = body
        self.tell(Packet(Op.LOADED, size_bytes=len(body)))

    def close(self) -> None:
        self._channel.close()
        self._placed.clear()
        self.runs.clear()
        for memory in (*self._inputs.values(), *self._outputs.values()):
            memory.close()

    def _take_run(self, packet: Packet) -> None:
        layout = self._layouts.get(packet.layout)
        if layout is None or len(self.runs) >= _RUNS:
            raise ChannelFault(f"a batch of layout {packet.layout} behind {len(self.runs)} others")
        if packet.rows > layout.capacity:
            raise ChannelFault(f"a batch of {packet.rows} rows in a layout for {layout.capacity}")
        self.runs.append(Run(self, packet, layout, self._placed_on(self._inputs, packet.slot, layout)))

    def _take_memory(self, packet: Packet, fd: int | None) -> None:
        if fd is None:
            raise ChannelFault("a memory came without its descriptor")
        memories = self._inputs if packet.op == _INPUT else self._outputs
        memory = Memory.attach(fd, writable=packet.op == _OUTPUT)
        if packet.slot >= _MEMORIES:
            memory.close()
            raise ChannelFault(f"memory {packet.slot}: there are {_MEMORIES}")
        self._placed.clear()
        old = memories.pop(packet.slot, None)
        if old is not None:
            old.close()
        memories[packet.slot] = memory
        if packet.op == _OUTPUT:
            self._try_again(packet.slot)

    def _take_layout(self, packet: Packet) -> None:
        if self._signature is None:
            raise ChannelFault("a layout came before anything was loaded")
        signature = self._signature
        self._layouts[packet.layout] = Layout.parse(
            packet.tail, signature.inputs, batched=signature.batched, capacity=packet.rows, number=packet.layout
        )

    def _try_again(self, output: int) -> None:
        """A memory came: the one that was asked for, or one for a batch further behind."""
        if self._wanted is not None and output == 0:
            body, self._wanted = self._wanted, None
            self.tell_loaded(body)
        elif self._kept is not None and output == self._kept.run.output:
            kept, self._kept = self._kept, None
            self._deliver(kept)

    def _deliver(self, answer: _Answer) -> None:
        run, output = answer.run, self._outputs.get(answer.run.output)
        if output is None or output.size_bytes < answer.needed_bytes:
            # What the runtime gave may be memory of its own, which its next batch writes over.
            answer.outputs = {name: array.copy() for name, array in answer.outputs.items()}
            self._kept = answer
            self.tell(Packet(Op.GROW, output=run.output, size_bytes=answer.needed_bytes))
            return
        self._placed_on(self._outputs, run.output, answer.layout).join([answer.outputs], run.rows, answer.packed)
        tail = struct.pack(f"<{len(answer.packed)}Q", *map(len, answer.packed)) if answer.packed else b""
        layout, seconds = answer.layout.number, answer.seconds
        send(self._channel, Packet(Op.DONE, run.slot, run.output, 0, layout, answer.ran, 0, seconds, tail))

    def _layout_of(self, outputs: Mapping[str, Array], signature: Signature, run: Run) -> Layout:
        """One that was said before, or a new one, said now; for as many rows as the inputs', unless these are huge."""
        if signature.batched:
            shapes = tuple([array.shape[1:] for array in outputs.values()])
        else:
            shapes = tuple([array.shape for array in outputs.values()])
        capacity = run.layout.capacity
        layout = self._numbered.get((shapes, capacity)) or self._numbered.get((shapes, run.rows))
        if layout is None:
            if capacity * sum(array[:1].nbytes for array in outputs.values() if array.ndim) > ROOM_BYTES:
                capacity = run.rows
            layout = self._new_layout(signature, shapes, capacity)
        return layout

    def _new_layout(self, signature: Signature, shapes: Shapes, capacity: int) -> Layout:
        number, batched = self._numbers % LAYOUTS, signature.batched
        start = RESERVED_BYTES
        layout = Layout(signature.outputs, shapes, batched=batched, capacity=capacity, start=start, number=number)
        self._numbers += 1
        if len(self._numbered) == LAYOUTS:
            del self._numbered[next(iter(self._numbered))]
        self._numbered[shapes, capacity] = layout
        self.tell(Packet(Op.LAYOUT, layout=number, rows=capacity, tail=layout.describe()))
        return layout

    def _placed_on(self, memories: dict[int, Memory], number: int, layout: Layout) -> Placed:
        key = (memories is self._inputs, number, layout)
        placed = self._placed.get(key)
        if placed is None:
            memory = memories.get(number)
            if memory is None:
                raise ChannelFault(f"work came before memory {number}, in which it lies")
            if len(self._placed) >= 4 * LAYOUTS:
                self._placed.clear()
            placed = self._placed[key] = Placed(layout, memory)
        return placed
