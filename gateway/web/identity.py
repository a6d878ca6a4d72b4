"""Names for a request: the client's request id if it is fit to be repeated, and a decision id of our own."""

from __future__ import annotations

import random
import secrets
from string import ascii_letters, digits

from gateway.clock import Clock

__all__ = ["MAX_REQUEST_ID_CHARS", "DecisionIds", "request_id_of"]

MAX_REQUEST_ID_CHARS = 128
_REQUEST_ID_CHARS = frozenset(ascii_letters + digits + "-_.:/+=@~,;#")

_RANDOM_BITS = 74
_STEP_BITS = 32


class DecisionIds:
    """UUIDs of version 7 (RFC 9562), each greater than the last: 48 bits of milliseconds, 74 random bits.

    Within one millisecond, and while the wall clock stands or jumps back, the random part grows
    by a random step (the RFC's method 2); when it would run over, the time goes one millisecond ahead.
    Where a millisecond starts is the system's randomness, the steps are not: asking it costs seven microseconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._milliseconds = 0
        self._random = 0

    def __repr__(self) -> str:
        return f"<DecisionIds [last at {self._milliseconds} ms]>"

    def __call__(self) -> str:
        now = int(self._clock.wall() * 1000)
        if now > self._milliseconds:
            self._milliseconds = now
            self._random = secrets.randbits(_RANDOM_BITS - 1)  # the top bit stays free for steps
        else:
            self._random += 1 + random.getrandbits(_STEP_BITS)
            if self._random >> _RANDOM_BITS:
                self._milliseconds += 1
                self._random = secrets.randbits(_RANDOM_BITS - 1)
        high, low = self._random >> 62, self._random & ((1 << 62) - 1)
        number = (self._milliseconds << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def request_id_of(sent: str | None) -> str:
    """The client's id when it is short and of plain characters (it goes into headers and logs), else a new one."""
    if sent and len(sent) <= MAX_REQUEST_ID_CHARS and _REQUEST_ID_CHARS.issuperset(sent):
        return sent
    return f"{random.getrandbits(128):032x}"
