"""A decision log on disk for those who follow it, receivers that answer as they are told, and bounded waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from gateway.checkpoints import SigningKey
from gateway.clock import SystemClock
from gateway.telemetry.decisions.fields import COLUMNS, encoded
from gateway.telemetry.decisions.log import DecisionLog, LogOptions

__all__ = ["Written", "eventually", "lines", "receiving"]


def lines(first: int, count: int, **fields: Any) -> list[bytes]:
    """Records as they stand in the log, the n-th of decision ``d-n``."""
    made = []
    for number in range(first, first + count):
        record = dict.fromkeys(COLUMNS) | {
            "decision": f"d-{number}",
            "request": f"r-{number}",
            "started": 1_700_000_000_000_000 + number,
            "duration_us": 1200,
            "route": "digits",
            "model": "digits",
            "version": 3,
            "answered": 3,
            "code": 200,
            "reason": "split",
            "slow": False,
            "rows": 1,
        }
        made.append(encoded([*(record | fields).values()]))
    return made


def eventually(condition: Callable[[], object], *, within_s: float = 60.0) -> None:
    """For what threads and sockets do; bounded, and not judged by how long it took."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("the condition did not come true")
        threading.Event().wait(0.005)


class Written:
    """A log that is written to here; ``write`` returns when it is durable."""

    def __init__(self, home: Path, *, segment_bytes: int = 64 * 1024 * 1024) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.folder = home / "decisions"
        self.log = DecisionLog(
            self.folder, SigningKey.of(home), clock=SystemClock(), options=LogOptions(segment_bytes=segment_bytes)
        )
        self.count = 0

    def write(self, count: int, **fields: Any) -> None:
        self.append(lines(self.count, count, **fields))

    def append(self, made: list[bytes]) -> None:
        self.log.append(made)
        self.count += len(made)
        if not self.log.sync(timeout_s=60.0):
            raise AssertionError("it is not durable")

    def durable(self) -> int:
        return self.log.statistics().durable

    def close(self) -> None:
        self.log.close()


class Receiving:
    """``answer`` gets the body and says the status, or the status and a body; None: no answer at all."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], int | tuple[int, bytes] | None] = lambda _: 200
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.port = 0
        self.released = threading.Event()
        self.arrive: Callable[[], None] = lambda: None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def bodies(self) -> list[bytes]:
        return [body for _, body in list(self.got)]


@contextmanager
def receiving(*, away: bool = False) -> Iterator[Receiving]:
    """A real server on a free port, a thread a connection, connections kept open. ``away``: its port is taken and
    refuses every connection until ``arrive``."""
    receiver = Receiving()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            said = receiver.answer(body)
            if said is None:
                receiver.released.wait(60)
                self.close_connection = True
                return
            status, content = said if isinstance(said, tuple) else (said, b"")
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Not to the terminal."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A sink that is ended hangs up."""

    server = Server(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.server_bind()
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})

    def arrive() -> None:
        server.server_activate()
        thread.start()

    receiver.arrive = arrive
    if not away:
        arrive()
    try:
        yield receiver
    finally:
        receiver.released.set()
        if thread.is_alive():
            server.shutdown()
            thread.join()
        server.server_close()
