"""Counting in a child: between batches, for the plans that the gateway sent, told over the main line once a second.

What is told never waits for the gateway: a part that finds no room is kept, and what is counted meanwhile adds up. A
child that dies takes along what it counted since it last told, a second's worth.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from runtimes.base import Arrays
from runtimes.counting import BUSY_SHARE, Plan
from runtimes.counting_buffer import Buffer, Counts
from runtimes.counting_capture import Capture
from runtimes.line import Line
from runtimes.packets import TAIL_BYTES, Op, Packet
from runtimes.pressure import Shortage, processors_are_short
from runtimes.signature import Signature

__all__ = ["PART_BYTES", "TELL_S", "Counting"]

TELL_S = 1.0
PART_BYTES = TAIL_BYTES // 8 * 8
_NO_ROOM_S = 0.05
_FAULTS = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)
"""What a fault of counting may raise. It ends the counting, and never a child that answers well."""


class Counting:
    """Of one child. Without plans it costs a batch one look at an empty tuple."""

    def __init__(
        self,
        line: Line,
        *,
        short: Callable[[], bool] = processors_are_short,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """``short``: are processors short, so that counting gives way although nothing waits here?"""
        self._line = line
        self._clock = clock
        self._shortage = Shortage(short, clock=clock)
        self._number = 0
        self._buffers: tuple[Buffer, ...] = ()
        self._places: tuple[int, ...] = ()  # of each, among the plans that were sent
        self._unsent: deque[Packet] = deque()
        self._capture: Capture | None = None
        self._capture_number = 0
        self._captured: deque[Packet] = deque()
        self._tell_at = 0.0
        self._silent = True  # nothing ran, nor waited, between the last two tellings

    def __repr__(self) -> str:
        return f"<Counting {list(self._buffers)}>"

    @property
    def waits(self) -> bool:
        """Something is to be counted or told."""
        return not self._silent or bool(self._unsent or self._captured)

    def plan(self, plans: Sequence[Mapping[str, Any]], number: int, share: float = BUSY_SHARE) -> None:
        """Counts with these from now on. One that was there goes on; of others, what is not told yet is lost."""
        known = {buffer.plan.digest: buffer for buffer in self._buffers}
        buffers: dict[int, Buffer] = {}
        for place, body in enumerate(plans):
            digest = str(body["digest"])
            try:
                if digest not in known:
                    known[digest] = Buffer(Plan.from_json(body["profile"], digest), share=share, clock=self._clock)
                buffers[place] = known[digest]
            except (ValueError, KeyError) as error:
                sys.stderr.write(f"profile {digest} is not counted: {error}\n")
        self._places, self._buffers, self._number = tuple(buffers), tuple(buffers.values()), number
        self._unsent.clear()

    def capture(self, signature: Signature, rows: int, seed: int, number: int) -> None:
        """Makes a profile of the next rows, in place of one under way."""
        self._capture, self._capture_number = Capture(signature, rows, seed), number
        self._captured.clear()

    def note(self, inputs: Arrays, outputs: Arrays, rows: int | None) -> None:
        """A batch has run, and is about to be answered: what is to be counted of it is copied."""
        if not self._buffers and self._capture is None:
            return
        if self._silent:
            self._silent, self._tell_at = False, self._clock() + TELL_S
        if self._capture is not None and not self._capture.done:
            self._capture.note(inputs, outputs, rows)
        try:
            for buffer in self._buffers:
                buffer.note(inputs, outputs, rows)
        except _FAULTS as fault:
            self._give_up(fault)

    def answered(self) -> None:
        """It is answered, and more work may wait."""
        try:
            for buffer in self._buffers:
                while buffer.count_beside_work():
                    pass
        except _FAULTS as fault:
            self._give_up(fault)
        if self._clock() >= self._tell_at:
            self._tell()

    def patience_ms(self) -> int | None:
        """How long there is nothing to do here: 0 for something now, None for ever."""
        if not self.waits:
            return None
        if self._capture is not None and self._capture.due:
            return 0
        short = self._shortage.known
        due = [due for buffer in self._buffers if (due := buffer.due_in_s(short=short)) is not None]
        due.append(_NO_ROOM_S if self._unsent or self._captured else max(0.0, self._tell_at - self._clock()))
        return int(min(due) * 1000 + 0.999)

    def work(self) -> None:
        """Nothing else is to be done here: counts a slice, unless others want the processor, and tells what is due."""
        short = self._shortage.look()
        try:
            for buffer in self._buffers:
                if buffer.due_in_s(short=short) == 0.0:
                    buffer.count()
        except _FAULTS as fault:
            self._give_up(fault)
        if self._capture is not None and self._capture.due:
            self._work_on(self._capture)
        while self._captured and self._line.try_to_tell(self._captured[0]):
            self._captured.popleft()
        if self._clock() >= self._tell_at:
            self._tell()

    def _tell(self) -> None:
        while self._unsent:
            if not self._line.try_to_tell(self._unsent[0]):
                return
            self._unsent.popleft()
        self._silent = True
        for place, buffer in zip(self._places, self._buffers, strict=True):
            counts = buffer.take()
            if counts is not None:
                self._silent = False
                self._unsent.extend(self._parts(place, counts))
        self._tell_at = self._clock() + TELL_S
        while self._unsent and self._line.try_to_tell(self._unsent[0]):
            self._unsent.popleft()

    def _give_up(self, fault: BaseException) -> None:
        sys.stderr.write(f"nothing is counted any more: {type(fault).__name__}: {fault}\n")
        self._buffers, self._places = (), ()

    def _work_on(self, capture: Capture) -> None:
        capture.work()
        if not capture.done:
            return
        self._capture = None
        if capture.profile is None:
            told = capture.problem.encode()[:PART_BYTES]
            self._captured.append(Packet(Op.PROFILE, flags=1, layout=self._capture_number, tail=told))
            return
        size = len(capture.profile)
        for at in range(0, size, PART_BYTES):
            part = capture.profile[at : at + PART_BYTES]
            self._captured.append(Packet(Op.PROFILE, layout=self._capture_number, size_bytes=size, tail=part))

    def _parts(self, place: int, counts: Counts) -> list[Packet]:
        octets = np.ascontiguousarray(counts.vector, "<i8").tobytes() if counts.counted else b""
        parts = max(1, -(-len(octets) // PART_BYTES))
        return [
            Packet(
                Op.COUNTS,
                place,
                part,
                parts,
                self._number,
                counts.counted,
                counts.seen,
                0.0,
                octets[part * PART_BYTES : (part + 1) * PART_BYTES],
            )
            for part in range(parts)
        ]
