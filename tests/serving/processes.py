"""What tests of real processes count and wait for."""

from __future__ import annotations

import asyncio
import fcntl
import termios
import threading
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from gateway.serving.inline_engine import InlineEngine

LONG_S = 120.0


def descriptors() -> int:
    """Open descriptors of this process (the one that lists them left out)."""
    return len(list(Path("/proc/self/fd").iterdir())) - 1


def descriptors_of(pid: int | None) -> int:
    """Open descriptors of another process."""
    with suppress(FileNotFoundError):
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return 0


def own_bytes(pid: int | None = None) -> int:
    """What a process holds in memory of its own and shared with a child. Not the pages of files, which the system takes
    and brings back as the machine's other processes need room."""
    lines = text_of(f"/proc/{pid or 'self'}/status").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem")))


def lying(engine: Any) -> int:
    """What has come from an engine and was not taken in: bytes from a child, answers from a thread."""
    if isinstance(engine, InlineEngine):
        return sum(work.outcome is not None for work in engine._underway)
    came = array("i", [0])
    fcntl.ioctl(engine._conversation._channel, termios.FIONREAD, came)
    return came[0]


def stand_still_until(condition: Callable[[], bool]) -> None:
    """Blocks the loop itself until then."""
    end = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.001)


def children() -> list[psutil.Process]:
    """Processes below this one, at any depth, that serve versions: not those that other tests keep (a warm command, a
    Redis, a gateway of their own)."""
    return [process for process in psutil.Process().children(recursive=True) if _is_ours(process)]


def _is_ours(process: psutil.Process) -> bool:
    """A fork server of this process, or what it has forked."""
    try:
        return process.name().startswith("turnout") and psutil.Process().pid in _ancestors(process)[:2]
    except psutil.Error:  # gone meanwhile
        return False


def _ancestors(process: psutil.Process) -> list[int]:
    return [parent.pid for parent in process.parents()]


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid)


def ended(pid: int) -> bool:
    """Gone, or dead and waiting for a parent that is not ours to reap it."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def eventually(condition: Callable[[], bool]) -> None:
    """Waits, bounded, for what another process or thread does: there is no event to wait on."""
    async with asyncio.timeout(LONG_S):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.002)


def text_of(path: Path | str) -> str:
    return Path(path).read_text("ascii")


def overwrite(path: Path | str, content: bytes) -> None:
    Path(path).write_bytes(content)
