"""A TCP line that can be cut: between a gateway and its Redis, each way a network goes away."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from typing import Self

__all__ = ["Cable"]

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST."""


class Cable:
    """Listens on ``port`` and leads to another port of this machine. Use as a context manager.

    ``stall``: connections are taken, bytes wait on the way, as when packets are dropped; ``mend`` lets them go on.
    ``cut``: connections are reset, new ones too, until ``mend``.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._flows = threading.Event()
        self._flows.set()
        self._refuses = False
        self._turn = threading.Lock()
        self._ends: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        with suppress(OSError):  # wakes the accept, which a close alone does not
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def stall(self) -> None:
        self._flows.clear()

    def cut(self) -> None:
        with self._turn:
            self._refuses = True
            ends, self._ends = self._ends, set()
        for end in ends:
            _reset(end)
        self._flows.set()

    def mend(self) -> None:
        self._refuses = False
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to_port))
            except OSError:
                _reset(near)
                continue
            with self._turn:
                self._ends |= {near, far}
                refused = self._refuses
            if refused:  # these two alone: by now the line may have been mended
                with self._turn:
                    self._ends -= {near, far}
                _reset(near)
                _reset(far)
                continue
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while sent := source.recv(1 << 16):
                self._flows.wait()
                target.sendall(sent)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._turn:
            self._ends -= {source, target}
        source.close()


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        end.shutdown(socket.SHUT_RD)  # wakes who reads from it
    end.close()
