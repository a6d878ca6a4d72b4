"""The command in a process of its own without the second that its imports take: a fork of one that has done them.

What a command is given (words, environment, folder, standard streams) and what it leaves (status, output) are those
of ``python -m gateway.cli``; that the two agree is itself tested.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gateway.cli.entry import main

ROOT = Path(__file__).parent.parent.parent


class WarmCommands:
    """Runs one command at a time. ``close`` ends the process."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.warm", str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd=ROOT
            )

    def run(
        self,
        words: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        streams: Sequence[int],
        timeout_s: float,
    ) -> int:
        """The exit status. TimeoutError ends this process, and the command with it."""
        asked = json.dumps({"words": list(words), "environment": dict(environment), "folder": str(folder)})
        self._socket.settimeout(timeout_s)
        socket.send_fds(self._socket, [asked.encode()], list(streams))
        try:
            return int(self._socket.recv(64))
        except TimeoutError:
            self.close()
            raise

    def close(self) -> None:
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def serve(caller: socket.socket) -> None:
    while True:
        body, streams, _, _ = socket.recv_fds(caller, 1 << 20, 3)
        if not body:
            return
        child = os.fork()
        if child == 0:
            caller.close()
            become(json.loads(body), streams)
        for stream in streams:
            os.close(stream)
        _, status = os.waitpid(child, 0)
        caller.send(str(os.waitstatus_to_exitcode(status)).encode())


def become(asked: Mapping[str, Any], streams: Sequence[int]) -> NoReturn:
    """The rest of this process is the command."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    sys.argv[1:] = asked["words"]
    main()
    raise SystemExit(0)


if __name__ == "__main__":
    for module in ("root", "http_backend", "local_backend"):  # which ``main`` would import in each fork
        importlib.import_module(f"gateway.cli.{module}")
    gc.freeze()
    serve(socket.socket(fileno=int(sys.argv[1])))
