"""Which of the two a command talks to: the gateway of ``TURNOUT_URL``, or the store of ``TURNOUT_HOME``."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from gateway.cli.backend import Backend
from gateway.cli.failures import USAGE, CommandFailed
from gateway.control.token_file import secret_in
from gateway.environment import ClientSettings, client_settings

__all__ = ["connect", "local_home", "perform", "token_for"]

T = TypeVar("T")

_HTTP, _LOCAL = "gateway.cli.http_backend", "gateway.cli.local_backend"
"""A command needs one of them; each takes half a second to import."""


def perform(work: Callable[[Backend], Awaitable[T]], *, creates: bool = False, config: Path | None = None) -> T:
    """Runs one command's work on the backend that the environment names. ``creates``: a missing home is made.
    ``config``: settings for work on a home; a gateway has its own."""

    async def _run() -> T:
        async with connect(client_settings(), creates=creates, config=config) as backend:
            return await work(backend)

    return asyncio.run(_run())


@asynccontextmanager
async def connect(
    client: ClientSettings, *, creates: bool = False, config: Path | None = None
) -> AsyncIterator[Backend]:
    """Opens the one that fits and closes it at the end. Raises CommandFailed when there is nothing to open."""
    if client.url is not None:
        if config is not None:
            raise CommandFailed(
                "--config is for work on a home; the gateway of TURNOUT_URL has settings of its own", status=USAGE
            )
        there: AbstractAsyncContextManager[Backend] = _http().open_http(client.url, token_for(client))
        async with there as remote:
            yield remote
        return
    if not creates:
        _require_home(client.home)
    here: AbstractAsyncContextManager[Backend] = importlib.import_module(_LOCAL).open_local(client.home, config)
    async with here as local:
        yield local


def _http() -> Any:
    return importlib.import_module(_HTTP)


def local_home(what: str) -> Path:
    """The home of a command that works on files only. CommandFailed when a gateway is named, or no home is there."""
    client = client_settings()
    if client.url is not None:
        raise CommandFailed(
            f"{what} works on the files of a home, not over HTTP. Run it on the gateway's machine, "
            f"with TURNOUT_URL unset and TURNOUT_HOME set to the gateway's home."
        )
    _require_home(client.home)
    return client.home


def token_for(client: ClientSettings) -> str | None:
    """``TURNOUT_TOKEN``; else, for a gateway on this machine, the admin token that it left in the home."""
    if client.token is not None or client.url is None or not _http().is_loopback(client.url):
        return client.token
    return secret_in(client.home)


def _require_home(home: Path) -> None:
    if not home.is_dir():
        raise CommandFailed(
            f"no home at {home}: register a model (turnout register), start a gateway (turnout serve), "
            f"or set TURNOUT_HOME to an existing home or TURNOUT_URL to a running gateway."
        )
