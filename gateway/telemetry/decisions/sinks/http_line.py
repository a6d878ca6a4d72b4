"""One connection of HTTP that a thread posts over: kept open, bounded in time, and never sent elsewhere.

The standard library's client: the recorder is to stay small, and needs nothing that it does not have.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

from gateway.telemetry.decisions.sinks.delivery import Refused, Unavailable

__all__ = ["Answer", "HttpLine", "checked"]

MAX_ANSWER_BYTES = 64 * 1024
MAX_PAUSE_S = 300.0


class Answer(NamedTuple):
    status: int
    body: bytes
    retry_after_s: float = 0.0


class HttpLine:
    """``certificate``: who signs the receiver's, in PEM; None: whom the system trusts."""

    def __init__(self, url: str, *, timeout_s: float, certificate: str | None = None) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context(cafile=certificate) if parts.scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None

    def __repr__(self) -> str:
        return f"<HttpLine {self._host}:{self._port or ''} [{'closed' if self._connection is None else 'open'}]>"

    def post(self, content: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises Unavailable when no answer comes. A connection that the receiver has closed meanwhile is made anew,
        once."""
        fresh = self._connection is None
        try:
            return self._post(content, headers)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as fault:
            self.close()
            if fresh:
                raise Unavailable(_said(fault)) from fault
        except (OSError, http.client.HTTPException, ValueError) as fault:
            self.close()
            raise Unavailable(_said(fault)) from fault
        return self.post(content, headers)

    def abort(self) -> None:
        connection = self._connection
        if connection is not None and (open_socket := connection.sock) is not None:
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, content: bytes, headers: Mapping[str, str]) -> Answer:
        connection = self._connection = self._connection or self._connect()
        connection.request("POST", self._path, body=content, headers=dict(headers))
        response = connection.getresponse()
        body = response.read(MAX_ANSWER_BYTES)
        if response.will_close or not response.isclosed():
            self.close()
        return Answer(response.status, body, _pause(response.getheader("retry-after")))

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls is not None:
            return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=self._tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)


def checked(answer: Answer) -> Answer:
    """The answer, if it took what was sent. What is too large or malformed is the content's fault; all else (no right,
    no such path, overload) may be mended, and is no reason to lose a record."""
    if 200 <= answer.status < 300:
        return answer
    said = f"status {answer.status} {answer.body[:200].decode('utf-8', 'replace')}".strip()
    if answer.status in (400, 413, 422):
        raise Refused(said)
    raise Unavailable(said, after_s=answer.retry_after_s)


def _pause(header: str | None) -> float:
    """Seconds of a Retry-After; its dates are not gone by."""
    return min(MAX_PAUSE_S, float(header)) if header is not None and header.strip().isdigit() else 0.0


def _said(fault: Exception) -> str:
    return f"{type(fault).__name__}: {fault}"[:300]
