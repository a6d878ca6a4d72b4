"""``GET /metrics``: the registry as text, rendered on a thread of its own and kept for a moment.

Rendering takes tens of milliseconds once there are many series. On the event loop that would
delay every request, so it happens beside it, one at a time; scrapes that come while one is
rendered, or within ``fresh_s`` of it, share its result, so that no number of scrapers can
cost more than one.

``?name[]=…``, once for each sample wanted, asks for these alone, as Prometheus's own clients have it: who looks every
two seconds at a gateway of many routes has a quarter of the text written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from gateway.clock import Clock

__all__ = ["ExpositionStatistics", "MetricsEndpoint"]

Message = MutableMapping[str, Any]

TEXT, OPEN_METRICS = exposition.CONTENT_TYPE_PLAIN_0_0_4, openmetrics.CONTENT_TYPE_LATEST
_RENDER: dict[str, Callable[[Any], bytes]] = {
    TEXT: exposition.generate_latest,
    OPEN_METRICS: openmetrics.generate_latest,
}
_SELECTIONS = 4
"""Rendered within ``fresh_s``, beside the whole; who asks for another then gets the whole."""

_Asked = tuple[str, frozenset[str]]
"""A content type, and the samples wanted; none: all."""


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
        self._rendered: dict[_Asked, tuple[float, bytes]] = {}
        self._rendering: dict[_Asked, asyncio.Task[bytes]] = {}
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
        names = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("name[]", ())
        body = await self.render(content_type, frozenset(names))
        await _answer(send, 200, body if scope["method"] == "GET" else b"", content_type, length=len(body))

    async def render(self, content_type: str = TEXT, names: frozenset[str] = frozenset()) -> bytes:
        """The registry in one of the two formats, at most ``fresh_s`` old.

        Cancelling one caller leaves the rendering to the others.
        """
        self._scrapes += 1
        asked = (content_type, names)
        shared = self._shared()
        if names and asked not in shared and sum(bool(of) for _, of in shared) >= _SELECTIONS:
            asked = (content_type, frozenset())
        kept = self._rendered.get(asked)
        if kept is not None and self._is_fresh(kept[0]):
            return kept[1]
        task = self._rendering.get(asked)
        if task is None:
            task = asyncio.ensure_future(self._render(asked))
            self._rendering[asked] = task
            task.add_done_callback(lambda done: self._done(asked, done))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Ends the thread once it is idle; scrapes after this fail."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _render(self, asked: _Asked) -> bytes:
        self._renderings += 1
        at = self._clock.monotonic()
        self._before()
        content_type, names = asked
        wanted = _Selection(self._registry, names) if names else self._registry
        body = await asyncio.get_running_loop().run_in_executor(self._thread, _RENDER[content_type], wanted)
        self._rendered = {what: kept for what, kept in self._rendered.items() if self._is_fresh(kept[0])}
        self._rendered[asked] = (at, body)
        return body

    def _shared(self) -> set[_Asked]:
        """What is had without another rendering."""
        return {*self._rendering, *(what for what, (at, _) in self._rendered.items() if self._is_fresh(at))}

    def _is_fresh(self, at: float) -> bool:
        return self._clock.monotonic() - at < self._fresh_s

    def _done(self, asked: _Asked, task: asyncio.Task[bytes]) -> None:
        del self._rendering[asked]
        if not task.cancelled():
            task.exception()  # raised in whoever waits; nobody does when every scraper has left


class _Selection(Collector):
    """What a registry collects, of samples of these names. prometheus_client's own restriction asks collectors to
    describe themselves beforehand, which would collect them twice."""

    def __init__(self, registry: CollectorRegistry, names: frozenset[str]) -> None:
        self._registry = registry
        self._names = names

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            samples = [sample for sample in family.samples if sample.name in self._names]
            if samples:
                selected = Metric(family.name, family.documentation, family.type, family.unit)
                selected.samples = samples
                yield selected


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
