"""Counting for a version that runs in the gateway itself: noted as it runs, counted in slices by the loop's timer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from gateway.messages import Arrays
from gateway.serving.counts import Counting
from runtimes.counting_buffer import SLICE_S, Buffer
from runtimes.pressure import Shortage, processors_are_short

__all__ = ["InlineCounting"]

TELL_S = 1.0
_LOOK_S = 0.25
_NEXT_SLICE_S = 0.02
"""Between slices of a millisecond: a twentieth of the loop's time at most, unless more is asked for."""


class InlineCounting:
    """``note`` is for the thread that runs batches, the rest for the loop. A fault in counting ends the counting."""

    def __init__(
        self,
        counting: Counting,
        loop: asyncio.AbstractEventLoop,
        *,
        short: Callable[[], bool] = processors_are_short,
    ) -> None:
        """``short``: are processors short, so that counting gives way? ValueError for a profile that is none."""
        self._counting = counting
        self._loop = loop
        self._shortage = Shortage(short)
        self._buffers = tuple(Buffer(plan.parsed(), share=counting.busy_share) for plan in counting.plans)
        self._pace_s = min(_NEXT_SLICE_S, SLICE_S / counting.busy_share)
        self._tell_at = loop.time() + TELL_S
        self._timer = loop.call_later(_LOOK_S, self._look) if self._buffers else None

    def __repr__(self) -> str:
        return f"<InlineCounting {list(self._buffers)}>"

    @property
    def probe(self) -> Arrays | None:
        return self._counting.probe

    def note(self, inputs: Arrays, outputs: Arrays, rows: int | None) -> None:
        for buffer in self._buffers:
            buffer.note(inputs, outputs, rows)

    def stop(self) -> None:
        """Tells what was counted; what was only noted is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._tell()

    def _look(self) -> None:
        short = self._shortage.look()
        for buffer in self._buffers:
            if buffer.due_in_s(short=short) == 0.0:
                buffer.count()
        if self._loop.time() >= self._tell_at:
            self._tell()
        due = [due for buffer in self._buffers if (due := buffer.due_in_s(short=short)) is not None]
        self._timer = self._loop.call_later(max(self._pace_s, min([_LOOK_S, *due])), self._look)

    def _tell(self) -> None:
        self._tell_at = self._loop.time() + TELL_S
        for buffer in self._buffers:
            counts = buffer.take()
            if counts is not None:
                octets = np.ascontiguousarray(counts.vector, "<i8").tobytes() if counts.counted else b""
                self._counting.told(counts.digest, counts.seen, counts.counted, octets)
