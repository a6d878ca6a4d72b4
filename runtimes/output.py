"""Where model code's prints go: the gateway's standard error, each line with the version's name, and never a flood."""

from __future__ import annotations

import io
import time
from typing import TextIO

__all__ = ["PrefixedOutput"]


class PrefixedOutput(io.TextIOBase):
    """Passes whole lines on, at most ``lines`` in ``seconds``; what was held back is counted and told."""

    def __init__(self, target: TextIO, prefix: str, *, lines: int = 200, seconds: float = 10.0) -> None:
        self._target = target
        self._prefix = prefix
        self._limit = lines
        self._window_s = seconds
        self._window_began = time.monotonic()
        self._passed = 0
        self._held = 0
        self._rest = ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *whole, rest = (self._rest + text).split("\n")
        self._rest = rest[-4096:]
        for line in whole:
            self._pass(line)
        return len(text)

    def flush(self) -> None:
        self._target.flush()

    def fileno(self) -> int:
        return self._target.fileno()

    def _pass(self, line: str) -> None:
        now = time.monotonic()
        if now - self._window_began > self._window_s:
            if self._held:
                self._target.write(f"[{self._prefix}] ({self._held} lines held back)\n")
            self._window_began, self._passed, self._held = now, 0, 0
        if self._passed >= self._limit:
            self._held += 1
            return
        self._passed += 1
        self._target.write(f"[{self._prefix}] {line[:4096]}\n")
