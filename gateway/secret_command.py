"""A secret out of a command (``vault read …``): an argument list and no shell, a time limit, and nothing that it prints
is ever shown.

The command gets this process's environment and no input. It and whatever it has started are ended at the time limit, or
when it prints more than a secret has.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from gateway.errors import SettingsError

__all__ = ["MAX_SECRET_BYTES", "printed_by"]

MAX_SECRET_BYTES = 64 * 1024
_AT_ONCE_BYTES = 16 * 1024
_LOOK_S = 0.1

Stopped = Callable[[], bool]
"""Whether nobody wants the secret any more."""


def _never() -> bool:
    return False


def printed_by(command: Sequence[str], place: str, *, timeout_s: float, stopped: Stopped = _never) -> bytes:
    """What it prints on its standard output, less the last line break. Blocks, and soon ends the command when
    ``stopped`` says so. Raises SettingsError, with the name of
    the program and never with what it or its arguments say."""
    deadline, who = time.monotonic() + timeout_s, f"{place}: the command {command[0]!r}"
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            bufsize=0,
        )
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        raise SettingsError(f"{who} cannot be run: {why}; name a program by its path") from None
    try:
        said = _read(process, who, deadline, stopped)
        if said is None and stopped():
            raise SettingsError(f"{who} was ended, since nobody waits for it any more")
        if said is None:
            raise SettingsError(
                f"{who} did not end within {timeout_s:g} s and was ended; does it ask for something? It gets no input. "
                "Raise timeout_s if it is slow"
            )
    finally:
        _end(process)
    if process.returncode != 0:
        raise SettingsError(
            f"{who} ended with status {process.returncode}; what it said is not shown, since a secret may stand in it: "
            "run it by hand"
        )
    return said.rstrip(b"\r\n")


def _read(process: subprocess.Popen[bytes], who: str, deadline: float, stopped: Stopped) -> bytes | None:
    """All that it prints until it ends; None when that takes too long, or nobody wants it."""
    out = process.stdout
    if out is None:
        return b""
    held = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(out, selectors.EVENT_READ)
        while _ready(ready, deadline, stopped):
            chunk = os.read(out.fileno(), _AT_ONCE_BYTES)
            if not chunk:
                return bytes(held) if _ended(process, deadline, stopped) else None
            held += chunk
            if len(held) > MAX_SECRET_BYTES:
                raise SettingsError(f"{who} printed more than {MAX_SECRET_BYTES} bytes, which is no secret")
    return None


def _ready(ready: selectors.BaseSelector, deadline: float, stopped: Stopped) -> bool:
    """Waits for it; False when it is too late, or nobody wants it."""
    while not stopped():
        left = deadline - time.monotonic()
        if ready.select(max(0.0, min(left, _LOOK_S))):
            return True
        if left <= 0:
            return False
    return False


def _ended(process: subprocess.Popen[bytes], deadline: float, stopped: Stopped) -> bool:
    """Whether it ends in time after it has closed its output: its status says whether that was all. It is not reaped
    yet: until its group was ended, nobody else may have its number."""
    descriptor = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as ending:
            ending.register(descriptor, selectors.EVENT_READ)
            return _ready(ending, max(deadline, time.monotonic() + 0.05), stopped)
    finally:
        os.close(descriptor)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The whole group: what it started has the pipe open, too."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
