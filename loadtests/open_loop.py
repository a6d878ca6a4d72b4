"""An open loop: requests leave when a Poisson process says so, whatever became of the ones before.

A closed loop slows down with its server and so hides how long people wait; this one does not. Each request takes an
idle keep-alive connection, or a new one. Latency counts from when the bytes were handed to the
kernel; how late that was (``late_p99_ms``) tells whether the generator itself kept up, and a run
in which it did not is no measurement. Raw sockets and epoll: some 30 µs a request.

``python -m loadtests.open_loop plan.json answers.npy`` runs one plan, so that it can be pinned to a core.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import random
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from loadtests.measurement import Ask

__all__ = ["BROKEN", "Answers", "open_loop"]

BROKEN = 0
"""The status of a request whose connection failed, or that was not answered in time."""

_GRACE_S = 10.0
_CONNECTIONS = 8192
_NICE = -10
"""Where it may: real clients have machines of their own, and do not wait for the server's processor."""
_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answers:
    """One entry a request, in the order of sending: seconds after the start, milliseconds, HTTP status."""

    sent_s: np.ndarray[Any, np.dtype[np.float64]]
    took_ms: np.ndarray[Any, np.dtype[np.float64]]
    status: np.ndarray[Any, np.dtype[np.float64]]
    late_ms: np.ndarray[Any, np.dtype[np.float64]]

    def __len__(self) -> int:
        return len(self.sent_s)

    def during(self, begin_s: float, end_s: float) -> Answers:
        """Those sent from ``begin_s`` on and before ``end_s``."""
        chosen = (self.sent_s >= begin_s) & (self.sent_s < end_s)
        return Answers(self.sent_s[chosen], self.took_ms[chosen], self.status[chosen], self.late_ms[chosen])

    def percentile_ms(self, percent: float, *, status: int = 200) -> float:
        """Of the answers with this status; NaN when there is none."""
        times = self.took_ms[self.status == status]
        return float(np.percentile(times, percent)) if len(times) else float("nan")

    def count(self, status: int) -> int:
        return int((self.status == status).sum())

    def within(self, deadline_ms: float) -> int:
        """Good answers that came in time."""
        return int(((self.status == 200) & (self.took_ms <= deadline_ms)).sum())

    @property
    def late_p99_ms(self) -> float:
        return float(np.percentile(self.late_ms, 99)) if len(self) else 0.0


class OpenLoop:
    """A load that runs in a process of its own from ``__enter__`` on; ``answers`` waits for its end.

    ``began`` is the monotonic time of its first second's start (the clock is the machine's, so other processes can
    place events on it). ``source`` is the address that it calls from.
    """

    def __init__(
        self,
        port: int,
        ask: Ask,
        *,
        rate: float,
        seconds: float,
        prefix: Sequence[str],
        seed: int,
        source: str = "127.0.0.1",
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="turnout-load-")
        plan, self._result = Path(self._folder.name) / "plan.json", Path(self._folder.name) / "answers.npy"
        body = Path(self._folder.name) / "body"
        body.write_bytes(_request(ask))
        settings = {
            "port": port,
            "request": str(body),
            "rate": rate,
            "seconds": seconds,
            "seed": seed,
            "source": source,
        }
        plan.write_text(json.dumps(settings), encoding="utf-8")
        self._limit_s = seconds + _GRACE_S + 30
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "loadtests.open_loop", str(plan), str(self._result)],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"the open-loop generator ended at its start with {self._process.wait(10)}")
        self.began = float(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)
        if self._process.stdout:
            self._process.stdout.close()
        self._folder.cleanup()

    def answers(self) -> Answers:
        if self._process.wait(self._limit_s):
            raise RuntimeError(f"the open-loop generator ended with {self._process.returncode}")
        return Answers(*np.load(self._result))


def open_loop(
    port: int, ask: Ask, *, rate: float, seconds: float, prefix: Sequence[str] = (), seed: int = 1
) -> Answers:
    """``rate`` requests a second on average for ``seconds``, then waits for what is outstanding."""
    with OpenLoop(port, ask, rate=rate, seconds=seconds, prefix=prefix, seed=seed) as load:
        return load.answers()


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """The moments of a Poisson process."""
    source, moments, moment = random.Random(seed), [], 0.0
    while (moment := moment + source.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


def _request(ask: Ask) -> bytes:
    headers = "".join(f"{name}: {value}\r\n" for name, value in ask.headers.items())
    head = f"POST {ask.path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{headers}content-length: {len(ask.body)}\r\n\r\n"
    return head.encode() + ask.body


class _Generator:
    """One thread: sends what is due, takes what has come. ``_asked`` maps a connection to its request's number."""

    def __init__(self, port: int, request: bytes, moments: list[float], source: str) -> None:
        self._source = (source, 0)
        self._address = ("127.0.0.1", port)
        self._request = request
        self._moments = moments
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._received: dict[int, bytes] = {}
        self._asked: dict[int, int] = {}
        self._idle: list[int] = []
        count = len(moments)
        self.sent, self.took = np.zeros(count), np.zeros(count)
        self.status, self.late = np.zeros(count), np.zeros(count)

    def run(self, began: float) -> None:
        following, moments, count = 0, self._moments, len(self._moments)
        limit = began + moments[-1] + _GRACE_S if moments else began
        while following < count or self._asked:
            now = time.monotonic()
            while following < count and moments[following] <= now - began:
                self._send(following, began)
                following += 1
            if now > limit:
                break
            wait = 0.1 if following >= count else max(0.0, began + moments[following] - time.monotonic())
            for descriptor, _ in self._poll.poll(min(wait, 0.1)):
                self._take(descriptor, began)
        for descriptor in list(self._asked):
            self._finish(descriptor, BROKEN, began, keep=False)

    def _send(self, number: int, began: float) -> None:
        descriptor = self._idle.pop() if self._idle else self._connect()
        self.sent[number] = now = time.monotonic() - began
        self.late[number] = (now - self._moments[number]) * 1000
        if descriptor is None:
            return
        self._asked[descriptor] = number
        try:
            self._sockets[descriptor].sendall(self._request)
        except OSError:
            self._finish(descriptor, BROKEN, began, keep=False)

    def _connect(self) -> int | None:
        """None: no more connections to be had; the request counts as broken."""
        if len(self._sockets) >= _CONNECTIONS:
            return None
        try:
            connection = socket.create_connection(self._address, timeout=5, source_address=self._source)
        except OSError:
            return None
        connection.settimeout(None)  # with one, Python would poll before each call
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = connection.fileno()
        self._sockets[descriptor] = connection
        self._poll.register(descriptor, select.EPOLLIN)
        return descriptor

    def _take(self, descriptor: int, began: float) -> None:
        try:
            data = self._sockets[descriptor].recv(65536)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EINTR):
                return
            data = b""
        if not data:
            self._finish(descriptor, BROKEN, began, keep=False)
            return
        data = self._received.pop(descriptor, b"") + data
        end = data.find(_HEAD_END)
        if end < 0 or len(data) < end + len(_HEAD_END) + _length(data[:end]):
            self._received[descriptor] = data
            return
        self._finish(descriptor, int(data[9:12]), began, keep=b"connection: close" not in data[:end].lower())

    def _finish(self, descriptor: int, status: int, began: float, *, keep: bool) -> None:
        number = self._asked.pop(descriptor, None)
        if number is not None:
            self.status[number] = status
            self.took[number] = (time.monotonic() - began - self.sent[number]) * 1000
        if keep:
            self._idle.append(descriptor)
            return
        self._received.pop(descriptor, None)
        if descriptor in self._idle:
            self._idle.remove(descriptor)
        connection = self._sockets.pop(descriptor)
        self._poll.unregister(descriptor)
        connection.close()


def _length(head: bytes) -> int:
    lowered = head.lower()
    at = lowered.find(b"content-length:")
    if at < 0:
        return 0
    return int(lowered[at + 15 :].split(b"\r\n", 1)[0])


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    request = Path(plan["request"]).read_bytes()
    moments = arrivals(plan["rate"], plan["seconds"], plan["seed"])
    generator = _Generator(plan["port"], request, moments, plan["source"])
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    gc.disable()
    began = time.monotonic() + 0.05
    print(began, flush=True)
    generator.run(began)
    np.save(sys.argv[2], np.stack([generator.sent, generator.took, generator.status, generator.late]))


if __name__ == "__main__":
    main()
