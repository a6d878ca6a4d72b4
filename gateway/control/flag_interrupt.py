"""Ends an evaluation of a flag that does not end by itself, so that a provider that hangs hangs no gateway.

A flag is evaluated on the event loop's thread, so while one waits, or computes for ever, nobody else gets a turn, and
no timer of the loop rings. A thread beside it looks on, and sends the loop's thread a signal: Python runs its handler
in the middle of a loop as well as of a system call, of a sleep, and of a lock, and the handler raises.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

__all__ = ["Interrupted", "Interrupter"]

SIGNAL = signal.SIGRTMIN + 5
"""One that nobody has a use for."""
_SIGHTS = 3
"""So often an evaluation is seen before it is ended: after a pause of the machine it has two looks' time left."""


class Interrupted(BaseException):
    """The evaluation was ended. No Exception: a provider's own handlers are not to take it for its fault."""


class Interrupter:
    """``began`` and ``ended`` stand around each evaluation, on the thread that ``start`` was called on, which must be
    the main one: others get no signals, and there nothing is ended. ``asked`` is written by that thread only,
    ``_ringing`` by the one that looks on."""

    __slots__ = ("_before", "_closed", "_limit_s", "_ringing", "_serial", "asked")

    def __init__(self, limit_s: float) -> None:
        """An evaluation is ended between ``limit_s`` and half as long again after it began."""
        self._limit_s = limit_s
        self._serial = 0
        self._ringing = 0
        self._closed = threading.Event()
        self._before: object = None
        self.asked = 0

    def __repr__(self) -> str:
        return f"<Interrupter [{self._limit_s * 1000:g} ms | {'evaluating' if self.asked else 'idle'}]>"

    def start(self) -> bool:
        """Whether it can end anything."""
        if threading.current_thread() is not threading.main_thread():
            return False
        self._before = signal.signal(SIGNAL, self._rang)
        main = threading.get_ident()
        threading.Thread(target=self._look_on, args=(main,), name="turnout-flags-watch", daemon=True).start()
        return True

    def close(self) -> None:
        self._closed.set()
        if self._before is not None and signal.getsignal(SIGNAL) == self._rang:
            # Not the default, which would end the process: one may still be on its way.
            signal.signal(SIGNAL, signal.SIG_IGN)

    def began(self) -> None:
        self._serial += 1
        self.asked = self._serial

    def ended(self) -> None:
        self.asked = 0

    def _look_on(self, main: int) -> None:
        seen, sights = 0, 0
        while not self._closed.wait(self._limit_s / (_SIGHTS - 1)):
            asked = self.asked
            sights = sights + 1 if asked == seen else 1
            seen = asked
            if asked and sights >= _SIGHTS:  # and again, as long as it lasts: a handler may have swallowed it
                self._ringing = asked
                signal.pthread_kill(main, SIGNAL)

    def _rang(self, number: int, frame: FrameType | None) -> None:
        """Between two steps of the loop's thread, so what it reads stands still; a late one finds another, or none."""
        if self.asked and self.asked == self._ringing:
            raise Interrupted
