"""``GET /metrics``: the registry as text, rendered on a thread of its own and kept for a moment.

Rendering takes tens of milliseconds once there are many series. On the event loop that would
delay every request, so it happens beside it, one at a time; scrapes that come while one is
rendered, or within ``fresh_s`` of it, share its result, so that no number of scrapers can
cost more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics import exposition as openmetrics

from gateway.clock import Clock

__all__ = ["ExpositionStatistics", "MetricsEndpoint"]

Message = MutableMapping[str, Any]

TEXT, OPEN_METRICS = exposition.CONTENT_TYPE_PLAIN_0_0_4, openmetrics.CONTENT_TYPE_LATEST
_RENDER: dict[str, Callable[[CollectorRegistry], bytes]] = {
    TEXT: exposition.generate_latest,
    OPEN_METRICS: openmetrics.generate_latest,
}


@dataclass(frozen=True, slots=True)
class ExpositionStatistics:
    """How often metrics were asked for, and how often that led to a rendering."""

    scrapes: int
    renderings: int


class MetricsEndpoint:
    """An ASGI application for one path. Exemplars are shown where OpenMetrics is accepted, plain text otherwise."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        clock: Clock,
        fresh_s: float = 0.2,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """``before``: called on the loop before the registry is rendered, so that what has gathered is in it."""
        self._registry = registry
        self._clock = clock
        self._fresh_s = fresh_s
        self._before = before
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="turnout-metrics")
        self._rendered: dict[str, tuple[float, bytes]] = {}
        self._rendering: dict[str, asyncio.Task[bytes]] = {}
        self._scrapes = 0
        self._renderings = 0

    def __repr__(self) -> str:
        return f"<MetricsEndpoint [{self._scrapes} scrapes | {self._renderings} renderings]>"

    def statistics(self) -> ExpositionStatistics:
        return ExpositionStatistics(self._scrapes, self._renderings)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            raise ValueError(f"metrics are served over HTTP, not {scope['type']!r}")
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, b"metrics are read with GET\n", "text/plain; charset=utf-8", allow=b"GET, HEAD")
            return
        accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
        content_type = OPEN_METRICS if b"application/openmetrics-text" in accepted else TEXT
        body = await self.render(content_type)
        await _answer(send, 200, body if scope["method"] == "GET" else b"", content_type, length=len(body))

    async def render(self, content_type: str = TEXT) -> bytes:
        """The registry in one of the two formats, at most ``fresh_s`` old.

        Cancelling one caller leaves the rendering to the others.
        """
        self._scrapes += 1
        kept = self._rendered.get(content_type)
        if kept is not None and self._clock.monotonic() - kept[0] < self._fresh_s:
            return kept[1]
        task = self._rendering.get(content_type)
        if task is None:
            task = asyncio.ensure_future(self._render(content_type))
            self._rendering[content_type] = task
            task.add_done_callback(lambda done: self._done(content_type, done))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Ends the thread once it is idle; scrapes after this fail."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _render(self, content_type: str) -> bytes:
        self._renderings += 1
        asked = self._clock.monotonic()
        self._before()
        loop = asyncio.get_running_loop()
        body = await loop.run_in_executor(self._thread, _RENDER[content_type], self._registry)
        self._rendered[content_type] = (asked, body)
        return body

    def _done(self, content_type: str, task: asyncio.Task[bytes]) -> None:
        del self._rendering[content_type]
        if not task.cancelled():
            task.exception()  # raised in whoever waits; nobody does when every scraper has left


async def _answer(
    send: Callable[[Message], Awaitable[None]],
    status: int,
    body: bytes,
    content_type: str,
    *,
    allow: bytes | None = None,
    length: int | None = None,
) -> None:
    headers = [
        (b"content-type", content_type.encode("ascii")),
        (b"content-length", str(len(body) if length is None else length).encode("ascii")),
    ]
    if allow is not None:
        headers.append((b"allow", allow))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
