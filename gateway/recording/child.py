"""A process of this program, started from this interpreter, held by pidfd and given one end of a socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping

from runtimes.process import out_of_reach

__all__ = ["ChildProcess"]


class ChildProcess:
    """``gone`` is done with the exit status (negative: the signal) once the process has been reaped."""

    def __init__(self, module: str, link: socket.socket, environment: Mapping[str, str] | None = None) -> None:
        """``link``: the child's end, which stays the caller's to close here. Without an ``environment`` it has ours.
        Raises OSError."""
        command = [sys.executable, "-m", module, "--fd", str(link.fileno()), "--parent", str(os.getpid())]
        with out_of_reach():
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[link.fileno()], env=environment
            )
        self._pidfd: int | None = os.pidfd_open(self._process.pid)
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[int] = loop.create_future()
        loop.add_reader(self._pidfd, self._reap)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.pid} [{'gone' if self.gone.done() else 'running'}]>"

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _reap(self) -> None:
        status = self._process.wait()
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        if not self.gone.done():
            self.gone.set_result(status)
