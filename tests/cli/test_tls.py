"""Commands against a gateway that speaks TLS with a certificate that nobody has signed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from gateway.cli.failures import CommandFailed
from gateway.cli.http_backend import open_http
from gateway.server import Listener, bind
from gateway.settings import ServerSettings

PEM = Path(__file__).with_name("self-signed.pem")
"""Key and certificate for 127.0.0.1, for tests only."""


@asynccontextmanager
async def speaking(settings: ServerSettings) -> AsyncIterator[str]:
    """A listener as the gateway has it, with no routes to tell."""

    async def routes(request: Request) -> JSONResponse:
        return JSONResponse({"routes": []})

    application = Starlette(routes=[Route("/admin/routes", routes)])
    listener = Listener(application, bind("127.0.0.1", 0, 16), settings)
    serving = asyncio.ensure_future(listener.serve())
    try:
        yield listener.url
    finally:
        listener.stop()
        await serving


async def told(url: str) -> str:
    with pytest.raises(CommandFailed) as failure:
        async with open_http(url, None) as backend:
            await backend.routes()
    return str(failure.value)


async def test_a_certificate_that_nobody_signed_is_trusted_once_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the message says what to set, and does not claim that no gateway is there."""
    async with speaking(ServerSettings(tls_certificate=PEM, tls_key=PEM)) as url:
        assert url.startswith("https://127.0.0.1:")
        assert "is not trusted: self-signed certificate. Set SSL_CERT_FILE" in await told(url)
        monkeypatch.setenv("SSL_CERT_FILE", "gone.pem")
        assert "SSL_CERT_FILE or SSL_CERT_DIR cannot be used" in await told(url)
        monkeypatch.setenv("SSL_CERT_FILE", str(PEM))
        async with open_http(url, None) as backend:
            assert await backend.routes() == []


async def test_the_wrong_scheme_is_guessed_at() -> None:
    """Both ways round: the message names the other one."""
    async with speaking(ServerSettings(tls_certificate=PEM, tls_key=PEM)) as url:
        assert "then write https:// in TURNOUT_URL" in await told(url.replace("https:", "http:"))
    async with speaking(ServerSettings()) as url:
        assert "else write http:// in TURNOUT_URL" in await told(url.replace("http:", "https:"))
