"""Runs a client of another system in a process of its own, and reads what it says."""

from __future__ import annotations

import json
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import IO, Any

from gateway.environment import foreign_environment
from gateway.errors import InvalidRegistration, RegistryError, SourceUnavailable, StorageFull
from gateway.registry import canonical
from gateway.registry.inspection import end_group, tail_of
from gateway.registry.sources.access import ForeignPlace, SourceAccess
from gateway.registry.sources.file import SourceLimits

__all__ = ["call"]

_CHILD = Path(__file__).parent / "clients" / "child.py"
_LOOK_S = 0.5
"""How often the size of what was fetched is looked at: between two looks a client can write what a disk takes in that
time, and no more."""
_END_S = 2.0
_MOST_SAID_BYTES = 64 * 1024 * 1024
_MAX_LINE = canonical.MAX_BYTES

Progress = Callable[[int, int], None]


def call(
    verb: str,
    place: ForeignPlace,
    access: SourceAccess,
    *,
    folder: Path | None = None,
    limits: SourceLimits | None = None,
    progress: Progress | None = None,
    more: Mapping[str, Any] | None = None,
) -> Any:
    """The result of ``verb`` (``fetch``, ``resolve``, ``tell``) as the client gave it: JSON that nobody has checked.

    Blocks. SourceUnavailable: the system did not answer, or not in time. InvalidRegistration: it answered, and what is
    asked for is not there or not to be had. The process and all that it started are gone on return.
    """
    bounds = limits or SourceLimits()
    request = {
        "verb": verb,
        "place": place.name,
        "folder": None if folder is None else str(folder),
        "limits": {"files": bounds.files, "bytes": bounds.bytes},
        "directories": None if access.directories is None else [str(found) for found in access.directories],
        "settings": dict(access.settings.get(place.client, {})),
        **(more or {}),
    }
    timeout_s = access.timeout_s if verb == "fetch" else access.resolve_timeout_s
    with tempfile.TemporaryFile() as said:
        child = _started(place, access, said, bounds)
        try:
            conversation = _Conversation(child, place, folder, bounds, progress)
            conversation.stopping = access.stopping
            return conversation.hold(json.dumps(request).encode(), time.monotonic() + timeout_s, timeout_s, said)
        finally:
            end_group(child)


def _started(
    place: ForeignPlace, access: SourceAccess, said: IO[bytes], limits: SourceLimits
) -> subprocess.Popen[bytes]:
    interpreter = access.interpreters.get(place.client, sys.executable)
    try:
        child = subprocess.Popen(
            [interpreter, "-E", str(_CHILD), place.client],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            process_group=0,
            env=foreign_environment(),
        )
    except OSError as error:
        raise RegistryError(
            f"{place.text}: interpreter {interpreter} cannot be started: {error.strerror}; "
            f"check registry.interpreters.{place.client} in the settings"
        ) from error
    with suppress(ProcessLookupError, PermissionError, ValueError):
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (limits.bytes, limits.bytes))
    return child


class _Conversation:
    """One request and its answer. The child is watched for what it writes as well as for what it says."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        place: ForeignPlace,
        folder: Path | None,
        limits: SourceLimits,
        progress: Progress | None,
    ) -> None:
        self.stopping = Event()
        self._child = child
        self._place = place
        self._folder = folder
        self._limits = limits
        self._progress = progress
        self._pending = b""

    def hold(self, request: bytes, deadline: float, timeout_s: float, said: IO[bytes]) -> Any:
        self._ask(request)
        stdout = self._child.stdout
        assert stdout is not None  # noqa: S101 - it was asked for as a pipe
        os.set_blocking(stdout.fileno(), False)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                ready = selector.select(min(_LOOK_S, max(0.0, deadline - time.monotonic())))
                self._look()
                if os.fstat(said.fileno()).st_size > _MOST_SAID_BYTES:
                    raise RegistryError(f"{self._place.text}: its client talks without end{tail_of(said)}")
                if self.stopping.is_set():
                    raise SourceUnavailable(f"{self._place.text}: broken off, since the gateway is shutting down")
                if not ready and self._child.poll() is None:
                    continue
                data = stdout.read(65536)
                if not data:  # its end; None: what it left running holds its output
                    raise RegistryError(self._ended(said))
                for line in self._lines(data):
                    if "progress" not in line:
                        return self._result(line)
                    self._tell(line["progress"])
        raise SourceUnavailable(
            f"{self._place.text}: nothing came of it within {timeout_s:g} s{tail_of(said)}; try again, or allow more "
            "time (registry.fetch_timeout_s)"
        )

    def _ask(self, request: bytes) -> None:
        stdin = self._child.stdin
        assert stdin is not None  # noqa: S101 - it was asked for as a pipe
        with suppress(BrokenPipeError):  # it ended at once: what it said comes with the end of its output
            stdin.write(request)
            stdin.close()

    def _lines(self, data: bytes) -> list[dict[str, Any]]:
        *whole, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > _MAX_LINE or any(len(line) > _MAX_LINE for line in whole):
            raise InvalidRegistration(f"{self._place.text}: the system says more of it than {_MAX_LINE} bytes")
        found = []
        for line in whole:
            body = canonical.loads_any(line, what=f"what the client says of {self._place.text}")
            if not isinstance(body, dict):
                raise RegistryError(f"{self._place.text}: the client says {line[:200]!r}, which is no answer")
            found.append(body)
        return found

    def _tell(self, figures: Any) -> None:
        if self._progress is None or not isinstance(figures, dict):
            return
        done, total = figures.get("done"), figures.get("total")
        if isinstance(done, int) and isinstance(total, int):
            self._progress(done, max(done, total))

    def _result(self, line: dict[str, Any]) -> Any:
        if "result" in line:
            return line["result"]
        error = line.get("error")
        kind, message = (error.get("kind"), error.get("message")) if isinstance(error, dict) else ("failed", line)
        text = f"{self._place.text}: {message}"
        if kind == "not-installed":
            raise InvalidRegistration(
                f"{text}; install turnout[{_extra(self._place)}], or name an interpreter that has it under "
                f"registry.interpreters.{self._place.client} in the settings"
            )
        if kind == "unreachable":
            raise SourceUnavailable(text)
        if kind == "disk":
            raise StorageFull(text) if "No space" in text or "quota" in text else RegistryError(text)
        raise InvalidRegistration(text)

    def _look(self) -> None:
        if self._folder is None:
            return
        size = count = 0
        for root, _, names in os.walk(self._folder):
            for name in names:
                with suppress(OSError):
                    size += os.lstat(f"{root}/{name}").st_size
                count += 1
        if size > self._limits.bytes or count > 2 * self._limits.files:
            raise InvalidRegistration(
                f"{self._place.text} has over {self._limits.bytes} bytes or {self._limits.files} files, more than are "
                "taken for one version; nothing of it was kept"
            )

    def _ended(self, said: IO[bytes]) -> str:
        """It closed its output, which is mostly its end; one that goes on all the same is not waited for."""
        try:
            code = self._child.wait(_END_S)
        except subprocess.TimeoutExpired:
            return f"{self._place.text}: its client closed its output without an answer, and did not end{tail_of(said)}"
        how = f"signal {-code}" if code < 0 else f"exit status {code}"
        return f"{self._place.text}: its client ended without an answer, with {how}{tail_of(said)}"


def _extra(place: ForeignPlace) -> str:
    return {"gs": "gcs", "az": "azure", "abfs": "azure"}.get(place.scheme, place.scheme)
