"""HTTP to whom an operator has named: webhooks, a place for checkpoints. Answers are not read beyond their status.

The client is imported when something is first sent: it takes 15 MB, and most gateways send nothing.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

__all__ = ["Outgoing"]

MAX_TEXT = 200


class Outgoing:
    """Each attempt ends within ``limit_s``, whatever comes; nobody is sent elsewhere by a redirect."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._client: httpx.AsyncClient | None = None
        self._faults: tuple[type[Exception], ...] = ()

    def __repr__(self) -> str:
        return f"<Outgoing [{'unused' if self._client is None else 'open'} | {self._limit_s:g} s each]>"

    async def post(self, url: str, content: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Status (0: none came), and what was answered or was the matter, for people."""
        client = self._opened()
        try:
            async with (
                asyncio.timeout(self._limit_s),
                client.stream("POST", url, content=content, headers=dict(headers)) as response,
            ):
                return response.status_code, str(response.status_code)
        except TimeoutError:
            return 0, f"no answer within {self._limit_s:g} s"
        except self._faults as error:
            return 0, f"{type(error).__name__}: {error}"[:MAX_TEXT]

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            vendor: Any = importlib.import_module("httpx")
            self._faults = (vendor.HTTPError, vendor.InvalidURL, OSError)
            self._client = vendor.AsyncClient(timeout=self._limit_s, follow_redirects=False, trust_env=False)
        return self._client
