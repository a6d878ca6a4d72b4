"""The command's fixtures, and a terminal to run it in."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from loadtests.live_gateway import LiveGateway, wait_until
from tests.cli.conftest import commands, live, remote

__all__ = ["Terminal", "commands", "live", "remote", "terminal"]

ROOT = Path(__file__).parent.parent.parent.parent
STARTS_S = 90.0
_FRAME = b"\x1b[H"


class Terminal:
    """``turnout`` in a terminal of its own, which is its controlling one: what is typed there may interrupt it."""

    def __init__(self, words: tuple[str, ...], environment: Mapping[str, str], *, columns: int, rows: int) -> None:
        self._ours, self._theirs = pty.openpty()
        self.resize(columns, rows)
        self.settings = termios.tcgetattr(self._theirs)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TURNOUT_")}
        kept |= {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", *words],
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=self._theirs,
            env={name: value for name, value in kept.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one call of the system
        )
        self.written = b""

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read(self) -> bytes:
        """All that it has written."""
        while select.select([self._ours], [], [], 0.05)[0]:
            self.written += os.read(self._ours, 65536)
        return self.written

    def shows(self, wanted: Callable[[str], bool], what: str) -> str:
        """The newest picture that is whole, once it is as wanted."""

        def seen() -> str | None:
            frames = self.read().split(_FRAME)
            newest = frames[-2].decode() if len(frames) > 2 else ""
            return newest if wanted(newest) else None

        return str(wait_until(seen, within_s=STARTS_S, what=what))

    def ended(self) -> int:
        """Its exit status; what it wrote is read meanwhile, or it would wait for that."""

        def status() -> tuple[int | None] | None:
            self.read()
            return None if self._process.poll() is None else (self._process.returncode,)

        [found] = wait_until(status, within_s=STARTS_S, what="its end")
        self.read()
        return int(found)

    def settings_now(self) -> list[object]:
        return list(termios.tcgetattr(self._theirs))

    def close(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(60)
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def terminal(live: LiveGateway) -> Iterator[Callable[..., Terminal]]:
    """Runs ``turnout`` on the gateway in a terminal; ended with the test."""
    environment = {"TURNOUT_URL": live.url, "TURNOUT_TOKEN": live.token}
    with ExitStack() as ends:

        def run(*words: str, columns: int = 100, rows: int = 30) -> Terminal:
            made = Terminal(words, environment, columns=columns, rows=rows)
            ends.callback(made.close)
            return made

        yield run
