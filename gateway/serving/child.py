"""A child process as the gateway holds it: by pidfd, so that it can never be mistaken for another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

__all__ = ["Child", "in_words"]

_REPORT_LIMIT_S = 2.0
_WITH_THE_SERVER = "ended with its fork server"


class Child:
    """A process that can be killed without mistaking it for another (by pidfd), and awaited."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self._loop = asyncio.get_running_loop()
        self._pidfd = pidfd
        self._watched = True
        self._ended: asyncio.Future[str] = self._loop.create_future()
        self._patience: asyncio.TimerHandle | None = None
        self._orphaned = False
        self._loop.add_reader(pidfd, self._on_exit)

    def __repr__(self) -> str:
        return f"<Child {self.pid} [{self._ended.result() if self._ended.done() else 'alive'}]>"

    @property
    def ended(self) -> asyncio.Future[str]:
        """Done when the process is gone and reaped: how it ended, in words."""
        return self._ended

    def kill(self) -> None:
        """SIGKILL. Does nothing when the process is gone."""
        if self._watched:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def reaped(self, how: str) -> None:
        """The fork server's report, or that there will be none."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not self._ended.done():
            self._unwatch()
            self._ended.set_result(how)

    def orphaned(self) -> None:
        """The fork server is gone: this child dies with it, and nobody will say how."""
        self._orphaned = True
        if self._patience is not None:
            self.reaped(_WITH_THE_SERVER)

    def _on_exit(self) -> None:
        # The process is gone; only its parent can say how, and that report is on its way.
        self._loop.remove_reader(self._pidfd)
        if self._orphaned:
            self.reaped(_WITH_THE_SERVER)
            return
        self._patience = self._loop.call_later(_REPORT_LIMIT_S, self.reaped, "ended in an unknown way")

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)


def in_words(status: int) -> str:
    """An exit code, negative for a signal, as people say it."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
