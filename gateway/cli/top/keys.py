"""What is typed while the view stands, key by key; the terminal is given back as it was.

Ctrl-Z does nothing meanwhile: a stopped view would leave its screen to the shell.
"""

from __future__ import annotations

import asyncio
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

__all__ = ["read_keys", "typed"]

_KEYS = {
    b"q": "quit",
    b"Q": "quit",
    b"\x03": "quit",
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b" ": "page-down",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"g": "home",
}
_LONGEST = max(map(len, _KEYS))


def typed(data: bytes) -> Iterator[str]:
    """Names of the keys in what a terminal sent; what is none of ours is passed over."""
    while data:
        found = next((size for size in range(min(_LONGEST, len(data)), 0, -1) if data[:size] in _KEYS), 0)
        if found:
            yield _KEYS[data[:found]]
        data = data[found or 1 :]


@contextmanager
def read_keys(pressed: Callable[[str], None]) -> Iterator[None]:
    """On a running loop. Without a terminal to type at there are no keys."""
    if not sys.stdin.isatty():
        yield
        return
    loop, number = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def read() -> None:
        data = os.read(number, 256)
        if not data:  # the terminal is gone
            loop.remove_reader(number)
            pressed("quit")
        for key in typed(data):
            pressed(key)

    try:
        tty.setcbreak(number)
        _without_stopping(number)
        loop.add_reader(number, read)
        yield
    finally:
        loop.remove_reader(number)
        with suppress(termios.error):  # it is gone, and nobody misses its settings
            termios.tcsetattr(number, termios.TCSADRAIN, before)


def _without_stopping(number: int) -> None:
    settings = termios.tcgetattr(number)
    settings[6][termios.VSUSP] = os.fpathconf(number, "PC_VDISABLE").to_bytes(1, "big")
    termios.tcsetattr(number, termios.TCSADRAIN, settings)
