"""What gateway and child say to each other about counting: plans and wishes out, counts and profiles in."""

from __future__ import annotations

import asyncio

from gateway.errors import TurnoutError, VersionUnavailable
from gateway.messages import Arrays, VersionRef
from gateway.serving.counts import CaptureReader, Counting, CountsReader
from gateway.serving.slot import Send
from runtimes.memory import Memory
from runtimes.packets import ChannelFault, Op, Packet

__all__ = ["ChildCounting"]

_SETS = 1 << 16


class ChildCounting:
    """A part of one conversation. What the child sends without being asked is a ChannelFault."""

    def __init__(self, ref: VersionRef, loop: asyncio.AbstractEventLoop, send: Send) -> None:
        self._ref = ref
        self._loop = loop
        self._send = send
        self._counts: CountsReader | None = None
        self._capture: CaptureReader | None = None
        # These very inputs are not to be counted, wherever that is done.
        self.probe: Arrays | None = None

    def count(self, counting: Counting) -> None:
        """From here on the child counts with these plans. ValueError for a profile that is none; OSError."""
        self.probe = counting.probe
        if not counting.plans and self._counts is None:
            return
        number = 0 if self._counts is None else (self._counts.number + 1) % _SETS
        reader, body = CountsReader(counting, number), counting.body()
        memory = Memory.create("turnout-plans", len(body), writable_by_child=False)
        try:
            memory.buffer[: len(body)] = body
            self._send(Packet(Op.COUNT, layout=number, size_bytes=len(body)), [memory.fd])
        finally:
            memory.close()
        self._counts = reader

    def capture(self, rows: int, seed: int) -> asyncio.Future[bytes]:
        """The child makes a profile of live rows, in place of one under way, which is cancelled."""
        if self._capture is not None:
            self._capture.made.cancel()
        number = 0 if self._capture is None else (self._capture.number + 1) % _SETS
        self._capture = CaptureReader(number, self._loop.create_future())
        self._send(Packet(Op.CAPTURE, layout=number, rows=rows, size_bytes=seed), ())
        return self._capture.made

    def take_counts(self, packet: Packet) -> None:
        if self._counts is None:
            raise ChannelFault(f"the child sent {packet.name} without being asked")
        self._counts.take(packet)

    def take_profile(self, packet: Packet) -> None:
        if self._capture is None:
            raise ChannelFault(f"the child sent {packet.name} without being asked")
        self._capture.take(packet)

    def end(self, verdict: TurnoutError) -> None:
        """The child is gone: whoever waits for a profile is told."""
        if self._capture is not None and not self._capture.made.done():
            self._capture.made.set_exception(VersionUnavailable(f"{self._ref}: its process ended: {verdict}"))
            self._capture.made.exception()  # seen here: whoever waits sees it too
