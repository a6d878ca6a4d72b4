"""What gateway and child say to each other over one channel: batches ahead, answers in the same order.

The child finds the next batch in its socket when it has answered the current one, so it never waits for
the gateway between two. All of it runs on the event loop: one packet out and one packet in for a batch.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidInput, ModelError, NotBegun, TurnoutError, VersionCrashed, VersionHung
from gateway.messages import Arrays, Signature, VersionRef
from gateway.serving.child_counting import ChildCounting
from gateway.serving.engine import BatchResult, Done
from gateway.serving.failures import failure_of
from gateway.serving.gather import Gather
from gateway.serving.hang_watch import HangWatch
from gateway.serving.slot import AnswerMemories, AnswerMemory, InputSlot, body_of
from runtimes.channel import read_json
from runtimes.layout import RESERVED_BYTES, Layout, string_sizes
from runtimes.memory import MAX_BYTES
from runtimes.packets import ChannelFault, Op, Packet, Reader, send

__all__ = ["DEPTH", "Conversation"]

DEPTH = 2

# As plain numbers: a packet's operation is compared for every batch.
_RUN, _DONE, _FAILED = int(Op.RUN), int(Op.DONE), int(Op.FAILED)
_LOADED, _GROW, _LAYOUT, _COUNTS = int(Op.LOADED), int(Op.GROW), int(Op.LAYOUT), int(Op.COUNTS)
_PROFILE = int(Op.PROFILE)
_ALONE, _UNCOUNTED = 1, 2
_SHARED_PATIENCE = 3
_FOR_EVER = float("inf")


@dataclass(slots=True, eq=False)
class _Work:
    """A batch under way. ``outcome`` is known where it failed before it could be sent; ``slot`` is None until it is."""

    done: Done
    limit_s: float
    slot: InputSlot | None = None
    answer: AnswerMemory | None = None
    rows: int = 0
    outcome: TurnoutError | None = None
    # How often a hang was taken for the wait behind another's batch.
    excused: int = 0

    @property
    def begun(self) -> bool:
        """The child has taken it up."""
        return self.answer is not None and self.answer.begun


class Conversation:
    """The gateway's end of one channel; ``counting`` is its part that is about no batch. ``lost`` is called once, when
    nothing more can come over it.

    It gets what the oldest batch under way is to be told, or None when the other end is simply gone and its
    owner knows how. The owner then makes sure of the child's end, and calls ``settle``.
    """

    def __init__(
        self,
        ref: VersionRef,
        channel: socket.socket,
        lost: Callable[[VersionCrashed | VersionHung | None], None],
        *,
        max_rows: int,
        shared: bool = False,
    ) -> None:
        """``shared``: the child serves others as well, so a batch may wait for theirs."""
        self._ref = ref
        self._loop = asyncio.get_running_loop()
        self._channel: socket.socket | None = channel
        self._reader: Reader | None = Reader(channel)  # as long as there is a channel
        self._lost = lost
        self._max_rows = max_rows
        self.shared = shared
        # One more than batches under way: the next is staged while they run.
        self._free = deque(InputSlot(number, self._send) for number in range(DEPTH + 1))
        self._slots = tuple(self._free)
        self._answers = AnswerMemories(self._send)
        self._underway: deque[_Work] = deque()
        # A child that cannot even begin says so before it is asked to load.
        self._loading: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._loading_answer: AnswerMemory | None = None
        self._signature: Signature | None = None
        self._gather: Gather | None = None
        self._output_layouts: dict[int, Layout] = {}
        self.counting = ChildCounting(ref, self._loop, self._send)
        # The oldest batch under way is known to be the cause of the end.
        self._blamed = False
        self._watch = HangWatch(self._loop, self.take, self._on_hang)
        channel.setblocking(False)
        self._loop.add_reader(channel, self._on_readable)

    @property
    def underway(self) -> int:
        """Batches launched and not answered."""
        return len(self._underway)

    @property
    def begun(self) -> bool:
        """The oldest batch under way has been taken up by the child, as far as anybody can know."""
        return bool(self._underway) and self._underway[0].slot is not None and (self._blamed or self._underway[0].begun)

    @property
    def busy(self) -> bool:
        """Somebody waits for an answer."""
        return bool(self._underway) or self._signature is None

    def begin(self, signature: Signature) -> None:
        """From here on batches may be launched."""
        self._signature = signature
        self._gather = Gather(signature, self._max_rows, self._say_layout)

    async def load(self, body: bytes) -> dict[str, Any]:
        """The child's answer to LOAD, nothing in it checked. LoadError, ChannelFault; waits for as long as it takes."""
        slot = self._free[0]
        self._loading_answer = self._answers.take()
        slot.write(body)
        self._send(Packet(Op.LOAD, slot.number, size_bytes=len(body)))
        return await self._loading

    def normal(self) -> None:
        """Loaded and proven: the child may take its normal priority."""
        self._send(Packet(Op.NORMAL))

    def lend(self, channel: socket.socket) -> bool:
        """Gives the child one more channel to serve. False when it is gone; ``OSError`` when it does not take it."""
        self.shared = True
        return self._send(Packet(Op.CHANNEL), [channel.fileno()])

    def launch(self, parts: Sequence[Arrays], limit_s: float, done: Done, *, alone: bool = False) -> None:
        """As the interface says; ``alone``: not together with what came over other channels.

        ``ValueError`` for more batches than are taken at once.
        """
        if len(self._underway) >= DEPTH:
            raise ValueError(f"{self._ref}: {len(self._underway)} batches are under way; an engine takes {DEPTH}")
        work = _Work(done, limit_s)
        try:
            self._launch(work, parts, alone)
        except TurnoutError as error:
            work.outcome = error
        self._underway.append(work)
        if len(self._underway) == 1:
            self._watch_next()
            if work.outcome is not None:
                self._loop.call_soon(self._advance)

    def stage(self, inputs: Arrays) -> None:
        """Copies an item to where it will probably lie, while the child is busy with others. It need not help."""
        if self._gather is not None and self._channel is not None:
            self._gather.stage(inputs, self._free[0])

    def take(self) -> bool:
        """Takes in all that has come; True if anything had."""
        came = False
        while self._take_one():
            came = True
        return came

    def settle(self, verdict: TurnoutError) -> None:
        """The child is gone: the oldest batch under way is told so, and those behind it that they were not begun."""
        begun = self.begun
        self.close()
        if not self._loading.done():
            self._loading.set_exception(verdict)
            self._loading.exception()  # seen here: whoever waits sees it too
        self.counting.end(verdict)
        left, self._underway = self._underway, deque()
        for place, work in enumerate(left):
            if work.outcome is not None:
                work.done(work.outcome)
            elif place == 0 and begun:
                work.done(verdict)
            else:
                work.done(NotBegun(f"{self._ref}: its process ended before this batch was begun: {verdict}"))

    def close(self) -> None:
        """Hangs up and gives the memories back. What is under way stays for ``settle``."""
        self.hang_up()
        self._watch.cancel()
        for slot in self._slots:
            slot.close()
        self._answers.close()

    def hang_up(self) -> None:
        """Closes the channel. Its reader goes at once: its 61 kB would wait for the collector with the rest of this."""
        channel, self._channel = self._channel, None
        self._reader = None
        if channel is not None:
            self._loop.remove_reader(channel)
            channel.close()

    def _launch(self, work: _Work, parts: Sequence[Arrays], alone: bool) -> None:
        gather, slot = self._gather, self._free[0]
        if gather is None:
            raise NotBegun(f"{self._ref}: nothing is loaded yet")
        try:
            layout, rows, tail = gather.fill(parts, slot)
            answer = self._answers.take()
        except KeyError as error:
            raise InvalidInput(f"{self._ref}: input {error.args[0]!r} is missing") from error
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{self._ref}: {error}") from error
        except OSError as error:
            raise ModelError(f"{self._ref}: no shared memory for this batch: {error.strerror}") from error
        work.rows = rows
        flags = _ALONE | _UNCOUNTED if alone else _UNCOUNTED if parts[0] is self.counting.probe else 0
        if self._send(Packet(_RUN, slot.number, answer.number, flags, layout.number, rows, 0, 0.0, tail)):
            work.slot, work.answer = self._free.popleft(), answer
        else:
            answer.busy = False

    def _say_layout(self, layout: Layout) -> None:
        # Without one that arrived, what is sent under its number would be read with the one before.
        self._send(Packet(Op.LAYOUT, layout=layout.number, rows=layout.capacity, tail=layout.describe()), strict=True)

    def _send(self, packet: Packet, fds: Sequence[int] = (), *, strict: bool = False) -> bool:
        """False when the other end is gone, which its owner will notice and say."""
        if self._channel is None:
            return False
        try:
            send(self._channel, packet, fds)
        except ConnectionError:
            return False
        except OSError:
            if fds or strict:
                raise  # a memory that did not arrive: work sent after it would be done on the one before
            # The child does not read: the batch's limit will tell.
        return True

    def _on_readable(self) -> None:
        self._take_one()

    def _take_one(self) -> bool:
        """Takes in one packet; False when there is none, or the channel is closed."""
        reader = self._reader
        if reader is None:
            return False
        try:
            packet = _read(reader)
            if packet is not None:
                self._took(packet)
                return True
        except BlockingIOError:
            return False
        except (ChannelFault, OSError, ValueError) as error:
            if isinstance(error, ConnectionError):
                self._give_up(None)
            else:
                self._blamed = True
                self._give_up(VersionCrashed(f"{self._ref}: its process broke the protocol and was ended: {error}"))
            return False
        self._give_up(None)
        return False

    def _took(self, packet: Packet) -> None:
        op, head = packet.op, self._underway[0] if self._underway else None
        if op == _GROW:
            self._grow(packet, self._loading_answer if head is None else head.answer)
        elif op == _LAYOUT and self._signature is not None:
            self._take_layout(packet, self._signature)
        elif op == _COUNTS:
            self.counting.take_counts(packet)
        elif op == _PROFILE:
            self.counting.take_profile(packet)
        elif self._signature is None:
            self._took_loaded(packet)
        elif head is None or head.slot is None or head.answer is None:
            raise ChannelFault(f"the child sent {packet.name} without being asked")
        else:
            self._answer(packet, head, head.slot, head.answer)

    def _grow(self, packet: Packet, answer: AnswerMemory | None) -> None:
        if answer is None or packet.output != answer.number or packet.size_bytes > MAX_BYTES:
            raise ChannelFault(f"the child wants {packet.size_bytes} bytes for its answer in memory {packet.output}")
        # Asked for twice, it would be read where the child has not written.
        if answer.memory is not None and packet.size_bytes <= answer.memory.size_bytes:
            raise ChannelFault(f"the child wants {packet.size_bytes} bytes, and has {answer.memory.size_bytes}")
        self._answers.grow(answer, packet.size_bytes)

    def _take_layout(self, packet: Packet, signature: Signature) -> None:
        self._output_layouts[packet.layout] = Layout.parse(
            packet.tail,
            signature.outputs,
            batched=signature.batched,
            capacity=packet.rows,
            start=RESERVED_BYTES,
            number=packet.layout,
        )

    def _took_loaded(self, packet: Packet) -> None:
        if self._loading.done():
            raise ChannelFault(f"the child sent {packet.name} without being asked")
        if packet.op == _FAILED:
            self._loading.set_exception(failure_of(self._ref, *packet.failure))
            self._loading.exception()  # seen here, for a load that is never asked for
            return
        answer = self._loading_answer
        if packet.op != _LOADED or answer is None:
            raise ChannelFault(f"expected LOADED, got {packet.name}")
        memory, start = body_of(answer)
        body = read_json(memory, packet.size_bytes, start)
        answer.busy, self._loading_answer = False, None
        self._loading.set_result(body)

    def _answer(self, packet: Packet, work: _Work, slot: InputSlot, answer: AnswerMemory) -> None:
        if packet.slot != slot.number:
            raise ChannelFault(f"the child answered slot {packet.slot}; slot {slot.number} is the oldest")
        outcome: BatchResult | TurnoutError
        if packet.op == _DONE:
            outcome = self._result(packet, work, answer)
        elif packet.op == _FAILED:
            outcome = failure_of(self._ref, *packet.failure)
        else:
            raise ChannelFault(f"expected DONE, got {packet.name}")
        answer.busy = False
        # The one used last is the warmest, unless another holds what was staged for the next batch.
        self._free.insert(1 if self._free and self._free[0].staged else 0, slot)
        self._underway.popleft()
        self._watch_next()
        work.done(outcome)
        if self._underway and self._underway[0].outcome is not None:
            self._advance()

    def _result(self, packet: Packet, work: _Work, answer: AnswerMemory) -> BatchResult:
        layout, rows, seconds = self._output_layouts.get(packet.layout), work.rows, packet.seconds
        if layout is None or packet.output != answer.number or layout.capacity < rows:
            raise ChannelFault(f"an answer for {rows} rows in memory {packet.output}, layout {packet.layout}: {layout}")
        outputs = answer.read(layout, rows, string_sizes(packet.tail))
        return BatchResult(outputs, seconds if 0 <= seconds < _FOR_EVER else 0.0, max(rows, packet.rows))

    def _watch_next(self) -> None:
        head = self._underway[0] if self._underway else None
        if head is None or head.slot is None:
            self._watch.rest()
        else:
            self._watch.begin(head.limit_s)

    def _advance(self) -> None:
        """Tells those at the head of the line whose outcome was known before they were sent."""
        while self._underway and self._underway[0].outcome is not None:
            work = self._underway.popleft()
            self._watch_next()
            if work.outcome is not None:
                work.done(work.outcome)

    def _on_hang(self, limit_s: float) -> None:
        head = self._underway[0]
        if self.shared and not head.begun and head.excused < _SHARED_PATIENCE:
            head.excused += 1
            self._watch.begin(limit_s)
            return
        self._blamed = head.begun or not self.shared
        self._give_up(VersionHung(f"{self._ref}: no answer within {limit_s:.3g} s; its process was ended"))

    def _give_up(self, verdict: VersionCrashed | VersionHung | None) -> None:
        self.hang_up()
        self._watch.cancel()
        self._lost(verdict)


def _read(reader: Reader) -> Packet | None:
    try:
        return reader.read()
    except ConnectionResetError:
        # Told once when the other end closed with something unread; what it had sent before lies behind it.
        return reader.read()
