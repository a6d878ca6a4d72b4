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

from gateway.errors import (
    DeviceMemoryExhausted,
    IntegrityError,
    InvalidInput,
    LoadError,
    ModelError,
    NotBegun,
    TurnoutError,
    VersionCrashed,
    VersionHung,
)
from gateway.messages import Arrays, Signature, VersionRef
from gateway.serving.engine import BatchResult, Done
from gateway.serving.hang_watch import HangWatch
from gateway.serving.slot import Slot
from runtimes.channel import Header, Plan, read_header, read_json
from runtimes.memory import MAX_BYTES
from runtimes.packets import ChannelFault, Op, Packet, receive, send

__all__ = ["DEPTH", "FAILURES", "Conversation"]

DEPTH = 2

FAILURES: dict[str, type[TurnoutError]] = {
    "load-failed": LoadError,
    "integrity": IntegrityError,
    "invalid-input": InvalidInput,
    "out-of-memory": DeviceMemoryExhausted,
    "model-error": ModelError,
}

_FIRST_BYTES = 256 * 1024


@dataclass(slots=True, eq=False)
class _Work:
    """A batch under way. ``outcome`` is known where it failed before it could be sent; ``slot`` is None until it is."""

    done: Done
    limit_s: float
    slot: Slot | None
    rows: int | None = None
    outcome: TurnoutError | None = None


class Conversation:
    """The gateway's end of one channel. ``lost`` is called once, when nothing more can come over it.

    It gets what the oldest batch under way is to be told, or None when the other end is simply gone and its
    owner knows how. The owner then makes sure of the child's end, and calls ``settle``.
    """

    def __init__(
        self, ref: VersionRef, channel: socket.socket, lost: Callable[[VersionCrashed | VersionHung | None], None]
    ) -> None:
        self._ref = ref
        self._loop = asyncio.get_running_loop()
        self._channel: socket.socket | None = channel
        self._lost = lost
        self._slots = [Slot(number, self._send) for number in range(DEPTH)]
        self._free = deque(self._slots)
        self._underway: deque[_Work] = deque()
        # A child that cannot even begin says so before it is asked to load.
        self._loading: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._signature: Signature | None = None
        self._watch = HangWatch(self._loop, self.take, self._on_hang)
        channel.setblocking(False)
        self._loop.add_reader(channel, self._on_readable)

    @property
    def underway(self) -> int:
        """Batches launched and not answered."""
        return len(self._underway)

    @property
    def begun(self) -> bool:
        """The oldest batch under way may have been run."""
        return bool(self._underway) and self._underway[0].slot is not None

    @property
    def busy(self) -> bool:
        """Somebody waits for an answer."""
        return bool(self._underway) or not self._loading.done()

    def begin(self, signature: Signature) -> None:
        """From here on batches may be launched."""
        self._signature = signature

    async def load(self, body: bytes) -> dict[str, Any]:
        """The child's answer to LOAD, nothing in it checked. LoadError, ChannelFault; waits for as long as it takes."""
        slot = self._slots[0]
        slot.output_of(_FIRST_BYTES)
        memory = slot.input_of(max(_FIRST_BYTES, len(body)))
        memory.buffer[: len(body)] = body
        self._send(Packet(Op.LOAD, header_bytes=len(body)))
        return await self._loading

    def normal(self) -> None:
        """Loaded and proven: the child may take its normal priority."""
        self._send(Packet(Op.NORMAL))

    def launch(self, parts: Sequence[Arrays], limit_s: float, done: Done) -> None:
        """As the interface of engines says. ``ValueError`` for more batches than there are slots."""
        if len(self._underway) >= DEPTH:
            raise ValueError(f"{self._ref}: {len(self._underway)} batches are under way; an engine takes {DEPTH}")
        try:
            work = self._sent(parts, limit_s, done)
        except TurnoutError as error:
            work = _Work(done, limit_s, None, outcome=error)
        self._underway.append(work)
        if len(self._underway) == 1:
            self._watch_next()
            if work.outcome is not None:
                self._loop.call_soon(self._advance)

    def take(self) -> bool:
        """Takes in all that has come; True if anything had."""
        came = False
        while self._take_one():
            came = True
        return came

    def settle(self, verdict: TurnoutError) -> None:
        """The child is gone: the oldest batch under way is told so, and those behind it that they were not begun."""
        self.close()
        if not self._loading.done():
            self._loading.set_exception(verdict)
            self._loading.exception()  # seen here: whoever waits sees it too
        left, self._underway = self._underway, deque()
        for place, work in enumerate(left):
            if work.outcome is not None:
                work.done(work.outcome)
            elif place == 0 and work.slot is not None:
                work.done(verdict)
            else:
                work.done(NotBegun(f"{self._ref}: its process ended before this batch was begun: {verdict}"))

    def close(self) -> None:
        """Hangs up and gives the memories back. What is under way stays for ``settle``."""
        self.hang_up()
        self._watch.cancel()
        for slot in self._slots:
            slot.close()

    def hang_up(self) -> None:
        """Closes the channel."""
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.remove_reader(channel)
            channel.close()

    def _sent(self, parts: Sequence[Arrays], limit_s: float, done: Done) -> _Work:
        if self._signature is None:
            raise NotBegun(f"{self._ref}: nothing is loaded yet")
        slot = self._free[0]
        header_bytes, rows = self._gather(parts, self._signature, slot)
        sent = self._send(Packet(Op.RUN, slot.number, header_bytes=header_bytes))
        if sent:
            self._free.popleft()
        return _Work(done, limit_s, slot if sent else None, rows)

    def _gather(self, parts: Sequence[Arrays], signature: Signature, slot: Slot) -> tuple[int, int | None]:
        """Joins the parts in the input memory; gives the header's size and the batch's rows."""
        names = [spec.name for spec in signature.inputs]
        try:
            rows = sum(len(part[names[0]]) for part in parts) if signature.batched else None
            plan = Plan(parts, names, rows=rows)
            header_bytes = plan.write(slot.input_of(max(_FIRST_BYTES, plan.total_bytes)))
            slot.output_of(_FIRST_BYTES)
            return header_bytes, rows
        except KeyError as error:
            raise InvalidInput(f"{self._ref}: input {error.args[0]!r} is missing") from error
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{self._ref}: {error}") from error
        except OSError as error:
            raise ModelError(f"{self._ref}: no shared memory for this batch: {error.strerror}") from error

    def _send(self, packet: Packet, fds: Sequence[int] = ()) -> bool:
        """False when the other end is gone, which its owner will notice and say."""
        if self._channel is None:
            return False
        try:
            send(self._channel, packet, fds)
        except ConnectionError:
            return False
        except OSError:
            if fds:
                raise  # a memory that did not arrive: work sent after it would be done on the one before
            # The child does not read: the batch's limit will tell.
        return True

    def _on_readable(self) -> None:
        self._take_one()

    def _take_one(self) -> bool:
        """Takes in one packet; False when there is none, or the channel is closed."""
        if self._channel is None:
            return False
        try:
            received = receive(self._channel)
            if received is not None:
                self._took(received[0])
                return True
        except BlockingIOError:
            return False
        except (ChannelFault, OSError, ValueError) as error:
            self._give_up(
                None
                if isinstance(error, ConnectionError)
                else VersionCrashed(f"{self._ref}: its process broke the protocol and was ended: {error}")
            )
            return False
        self._give_up(None)
        return False

    def _took(self, packet: Packet) -> None:
        if packet.op is Op.GROW:
            self._grow(packet)
        elif self._signature is None:
            self._took_loaded(packet)
        elif not self._underway or self._underway[0].slot is None:
            raise ChannelFault(f"the child sent {packet.op.name} without being asked")
        else:
            self._answer(packet, self._underway[0], self._underway[0].slot)

    def _grow(self, packet: Packet) -> None:
        busy = self._signature is None or any(
            work.slot is not None and work.slot.number == packet.slot for work in self._underway
        )
        if not busy or packet.slot >= len(self._slots) or packet.size_bytes > MAX_BYTES:
            raise ChannelFault(f"the child wants {packet.size_bytes} bytes for its answer in slot {packet.slot}")
        self._slots[packet.slot].output_of(packet.size_bytes)

    def _took_loaded(self, packet: Packet) -> None:
        if self._loading.done():
            raise ChannelFault(f"the child sent {packet.op.name} without being asked")
        if packet.op is Op.FAILED:
            self._loading.set_exception(self._failure(packet))
            self._loading.exception()  # seen here, for a load that is never asked for
            return
        output = self._slots[0].output
        if packet.op is not Op.LOADED or output is None:
            raise ChannelFault(f"expected LOADED, got {packet.op.name}")
        self._loading.set_result(read_json(output, packet.header_bytes))

    def _answer(self, packet: Packet, work: _Work, slot: Slot) -> None:
        if packet.op is Op.FAILED:
            outcome: BatchResult | TurnoutError = self._failure(packet)
        else:
            outcome = self._result(packet, work, slot)
        self._free.append(slot)
        self._underway.popleft()
        self._watch_next()
        work.done(outcome)
        self._advance()

    def _result(self, packet: Packet, work: _Work, slot: Slot) -> BatchResult:
        output = slot.output
        if packet.op is not Op.DONE or output is None or self._signature is None or packet.slot != slot.number:
            raise ChannelFault(f"expected DONE for slot {slot.number}, got {packet.op.name} for slot {packet.slot}")
        header = read_header(output, packet.header_bytes)
        _check_promised(header, self._signature, work.rows)
        seconds = packet.seconds if 0 <= packet.seconds < float("inf") else 0.0
        return BatchResult(header.copies(output), seconds)

    def _failure(self, packet: Packet) -> TurnoutError:
        kind, message = packet.failure
        return FAILURES.get(kind, ModelError)(f"{self._ref}: {message}")

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
        self._give_up(VersionHung(f"{self._ref}: no answer within {limit_s:.3g} s; its process was ended"))

    def _give_up(self, verdict: VersionCrashed | VersionHung | None) -> None:
        self.hang_up()
        self._watch.cancel()
        self._lost(verdict)


def _check_promised(header: Header, signature: Signature, rows: int | None) -> None:
    """The child has checked this itself; one that was taken over may claim anything."""
    names = [placed.name for placed in header.tensors]
    if names != [spec.name for spec in signature.outputs]:
        raise ChannelFault(f"outputs {names} do not match the signature")
    for placed, spec in zip(header.tensors, signature.outputs, strict=True):
        expected = "FP32" if spec.datatype == "BF16" else spec.datatype
        if placed.datatype != expected or len(placed.shape) != len(spec.shape):
            raise ChannelFault(f"output {placed.name!r} is {placed.datatype} {placed.shape}, not {spec.datatype}")
        if rows is not None and placed.shape[:1] != (rows,):
            raise ChannelFault(f"output {placed.name!r} has shape {placed.shape} for {rows} rows")
