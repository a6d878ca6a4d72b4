"""A collector that takes spans as a deployment's does, over OTLP, and keeps none of them."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

__all__ = ["SpanCollector"]


class SpanCollector:
    """On a free port of this machine. Use as a context manager. ``taken``: bytes so far."""

    def __init__(self) -> None:
        self.taken = 0
        self._server = _Listening(("127.0.0.1", 0), _Taking)
        self._server.collector = self
        self._thread = threading.Thread(target=self._server.serve_forever, name="span-collector", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    collector: SpanCollector


class _Taking(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listening

    def do_POST(self) -> None:
        self.server.collector.taken += len(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the library's name)
        """Nothing: it would write a line for each."""
