"""The recorder's loop by itself, at the other end of a socket."""

from __future__ import annotations

import socket
import threading

from gateway.clock import SystemClock
from gateway.recording.desk import REST_S, Desk
from gateway.recording.frames import Down, frame


class Racing(SystemClock):
    """Each look at it is most of a rest later."""

    def __init__(self) -> None:
        self._looks = 0

    def monotonic(self) -> float:
        self._looks += 1
        return self._looks * REST_S * 0.75


def test_the_loop_rests_now_and_then_and_goes_on() -> None:
    """What is to be done between two bursts is done again and again, and the end is heard all the same."""
    mine, theirs = socket.socketpair()
    rested = threading.Semaphore(0)
    desk = Desk(theirs, lambda _options, _fds: (), Racing(), rest=rested.release)
    thread = threading.Thread(target=desk.run)
    thread.start()
    try:
        assert rested.acquire(timeout=60)
        assert rested.acquire(timeout=60)
    finally:
        mine.sendall(frame(Down.END))
        thread.join(60)
        mine.close()
    assert not thread.is_alive()
