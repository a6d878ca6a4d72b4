"""Listening: sockets of our own, uvicorn on top of them, and an end that answers what was admitted.

uvicorn would bind a second server silently beside a first one with SO_REUSEPORT, and ends at
once on a signal; here a busy address is an error, and a signal drains first.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import os
import resource
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import uvicorn
from starlette.types import ASGIApp

from gateway.errors import SettingsError
from gateway.settings import ServerSettings
from gateway.web.wire import WireProtocol

__all__ = [
    "ASGIApplication",
    "Listener",
    "SharedAddress",
    "allow_descriptors",
    "bind",
    "hold_home",
    "spare_the_collector",
]


ASGIApplication = ASGIApp


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class _Server(uvicorn.Server):
    """Leaves signals to the composition root, which drains before it tells uvicorn to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


_KEEP_ALIVE_S = 75
"""How long an idle connection stays. uvicorn's 5 s are shorter than the pauses of many a client's pool, and a request
that is sent while its connection is being closed is lost: 3 of 486,000 in an hour's soak."""


class Listener:
    """One application on one socket. ``serve`` runs until ``stop``; connections that are idle then are closed.

    Raises SettingsError when the TLS files cannot be used.
    """

    def __init__(self, application: ASGIApp, listening: socket.socket, settings: ServerSettings) -> None:
        config = uvicorn.Config(
            application,
            http=WireProtocol,
            interface="asgi3",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            backlog=settings.backlog,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=max(1, int(settings.drain_s)),
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
        )
        _load(config)
        self._scheme = _scheme(settings)
        self._server = _Server(config)
        self._socket = listening
        host, port = listening.getsockname()[:2]
        self.address = Address(host, port)

    def __repr__(self) -> str:
        return f"<Listener {self.url}>"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.address}"

    async def serve(self) -> None:
        """Cancellation closes the socket and drops its connections."""
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            self._socket.close()

    def stop(self) -> None:
        self._server.should_exit = True


def _scheme(settings: ServerSettings) -> str:
    return "https" if settings.tls_certificate else "http"


def _load(config: uvicorn.Config) -> None:
    """What uvicorn would do on its first step, where a bad certificate ends in a traceback."""
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror if type(error) is not ssl.SSLError and error.strerror else str(error)
        raise SettingsError(
            f"server.tls_certificate {config.ssl_certfile} and server.tls_key {config.ssl_keyfile} cannot be used: "
            f"{reason}; expected two PEM files that this user may read, the key that of the certificate"
        ) from None


def allow_descriptors() -> None:
    """As many as the system lets this process have: past the soft limit connections are dropped without a word."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def spare_the_collector() -> None:
    """What start has made stays, so no collection need walk it: that was a quarter of a small request's cost.
    Requests make a hundred objects each and no cycles; a wider young generation lets them die young. What start has
    used and left goes back to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # no glibc, no trim
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


class SharedAddress:
    """An address that several listening sockets share (SO_REUSEPORT), and nobody but us.

    The kernel would let any other program of this user join in. So the address is first bound alone, which a
    foreigner's socket denies; and an abstract Unix socket named after it is held to the end, which keeps
    out a second gateway that starts at the same moment. It is no file: nothing is left behind, however we end.
    """

    def __init__(self, host: str, port: int, backlog: int) -> None:
        """Raises SettingsError when the address cannot be had."""
        self._host, self._backlog = host, backlog
        alone = bind(host, port, backlog)
        self.port: int = alone.getsockname()[1]
        try:
            self._claim = _claimed(f"turnout/{host}:{self.port}")
        finally:
            alone.close()

    def __repr__(self) -> str:
        return f"<SharedAddress {self._host}:{self.port}>"

    def listen(self) -> socket.socket:
        """One more socket. Raises SettingsError."""
        return bind(self._host, self.port, self._backlog, shared=True)

    def url(self, settings: ServerSettings) -> str:
        return f"{_scheme(settings)}://{Address(self._host, self.port)}"

    def close(self) -> None:
        self._claim.close()


def _claimed(name: str) -> socket.socket:
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0{name}")
    except OSError:
        claim.close()
        raise SettingsError(f"{name.removeprefix('turnout/')} is taken: another gateway starts there") from None
    return claim


def bind(host: str, port: int, backlog: int, *, shared: bool = False) -> socket.socket:
    """A listening socket; ``shared`` with others of ours. Raises SettingsError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"{host}:{port} is taken: another program listens there; choose another --port"
            ) from None
        raise SettingsError(
            f"cannot listen on {host}:{port}: {error.strerror}; check server.host and server.port"
        ) from None
    listening.setblocking(False)
    return listening


def hold_home(home: Path) -> IO[str]:
    """The home's lock: one gateway a home. Keep the file open; the system lets go of it when the process ends.

    Raises SettingsError naming the process that holds it.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "gateway.lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"home {home}: cannot be made or written: {error.strerror}; set home or TURNOUT_HOME"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        lock.close()
        raise SettingsError(f"home {home} is served by process {holder}; stop it, or set another home") from None
    with contextlib.suppress(OSError):  # a full disk must not keep a gateway from starting
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock
