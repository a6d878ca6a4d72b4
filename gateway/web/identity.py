"""Names for a request: the client's request id if it is fit to be repeated, and a decision id of our own."""

from __future__ import annotations

import random
from string import ascii_letters, digits

from gateway.clock import Clock
from gateway.trace_context import TraceContext

__all__ = ["MAX_REQUEST_ID_CHARS", "DecisionIds", "request_id_of"]

MAX_REQUEST_ID_CHARS = 128
_REQUEST_ID_CHARS = frozenset(ascii_letters + digits + "-_.:/+=@~,;#")

_RANDOM_BITS = 62
_STEP_BITS = 32
_VARIANT = 0b10 << 62
_LAST = _VARIANT | (1 << _RANDOM_BITS) - 1


class DecisionIds:
    """UUIDs of version 7 (RFC 9562), each greater than the last: 48 bits of milliseconds, 74 random bits.

    Within one millisecond, and while the wall clock stands or jumps back, the random part grows
    by a random step (the RFC's method 2); when it would run over, the time goes one millisecond ahead.
    They name and do not protect, so the system's randomness, at seven microseconds a call, only seeds the generator.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._milliseconds = 0
        # The last 64 bits of the last id: the variant, then 62 random ones.
        self._tail = 0
        # The text before them, made once for all ids of a millisecond.
        self._prefix = ""

    def __repr__(self) -> str:
        return f"<DecisionIds [last at {self._milliseconds} ms]>"

    def __call__(self) -> str:
        now = int(self._clock.wall() * 1000)
        if now > self._milliseconds:
            self._begin(now)
        else:
            self._tail += 1 + random.getrandbits(_STEP_BITS)
            if self._tail > _LAST:
                self._begin(self._milliseconds + 1)
        text = f"{self._tail:016x}"
        return f"{self._prefix}{text[:4]}-{text[4:]}"

    def _begin(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        self._tail = _VARIANT | random.getrandbits(_RANDOM_BITS - 1)  # the top bit stays free for steps
        self._prefix = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7{random.getrandbits(12):03x}-"


def request_id_of(sent: bytes | None, trace: TraceContext) -> str:
    """The client's id when it is short and of plain characters (it goes into headers and logs), else a new one:
    the trace's where the trace starts here, so that one name finds both."""
    if sent and len(sent) <= MAX_REQUEST_ID_CHARS:
        text = sent.decode("latin-1")
        if _REQUEST_ID_CHARS.issuperset(text):
            return text
    return trace.trace_id if trace.parent_span_id is None else f"{random.getrandbits(128):032x}"
