"""``GET /metrics``: both formats, beside the event loop, one rendering for many scrapers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.clock import ManualClock
from gateway.telemetry.exposition import MetricsEndpoint


class Gate(Collector):
    """One gauge that counts how often it is collected, on which thread, and may be held back."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.asked = threading.Event()
        self.threads: list[str] = []
        self.fault: Exception | None = None

    def collect(self) -> Iterator[Metric]:
        self.threads.append(threading.current_thread().name)
        self.asked.set()
        self.open.wait(60)
        if self.fault is not None:
            raise self.fault
        yield GaugeMetricFamily("asked", "How often.", len(self.threads))


class Scraped:
    def __init__(self) -> None:
        self.gate = Gate()
        self.clock = ManualClock()
        registry = CollectorRegistry()
        registry.register(self.gate)
        self.gate.threads.clear()
        self.endpoint = MetricsEndpoint(registry, clock=self.clock)

    async def get(self, path: str = "/metrics", *, method: str = "GET", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.endpoint)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
            return await client.request(method, path, headers=headers)

    async def until_asked(self) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.gate.asked.wait, 60)


@pytest.fixture
async def scraped() -> AsyncIterator[Scraped]:
    found = Scraped()
    yield found
    found.gate.open.set()
    found.endpoint.close()


async def test_plain_text_unless_open_metrics_is_accepted(scraped: Scraped) -> None:
    """Exemplars exist in OpenMetrics alone; everything else reads the plain format."""
    plain = await scraped.get(accept="*/*")
    full = await scraped.get(accept="application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3")
    assert plain.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert full.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert "asked 1.0" in plain.text
    assert full.text.endswith("# EOF\n")


async def test_rendering_happens_on_a_thread_of_its_own(scraped: Scraped) -> None:
    """Tens of milliseconds that would otherwise be added to every request under way."""
    await scraped.get()
    assert scraped.gate.threads == ["turnout-metrics_0"]


async def test_a_storm_of_scrapes_costs_one_rendering_until_it_is_stale(scraped: Scraped) -> None:
    """At most one rendering in 0.2 s for each format."""
    bodies = [(await scraped.get()).text for _ in range(50)]
    assert len(set(bodies)) == 1
    scraped.clock.advance(0.19)
    assert "asked 1.0" in (await scraped.get()).text
    scraped.clock.advance(0.02)
    assert "asked 2.0" in (await scraped.get()).text
    assert repr(scraped.endpoint) == "<MetricsEndpoint [52 scrapes | 2 renderings]>"


async def test_scrapes_that_come_while_one_is_rendered_share_it_and_the_loop_goes_on(scraped: Scraped) -> None:
    """Nobody waits for the gate but the scrapers; one of them leaving takes nothing from the others."""
    scraped.gate.open.clear()
    scrapes = [asyncio.ensure_future(scraped.get()) for _ in range(5)]
    await scraped.until_asked()
    scrapes[0].cancel()
    await asyncio.wait({scrapes[0]})
    scraped.gate.open.set()
    answers = await asyncio.gather(*scrapes[1:])
    assert [answer.status_code for answer in answers] == [200] * 4
    assert len(scraped.gate.threads) == 1


async def test_a_failed_rendering_is_the_scrapers_error_and_is_not_kept(scraped: Scraped) -> None:
    """The next scrape tries again."""
    scraped.gate.fault = RuntimeError("a source failed")
    with pytest.raises(RuntimeError, match="a source failed"):
        await scraped.get()
    scraped.gate.fault = None
    assert (await scraped.get()).status_code == 200


async def test_head_tells_the_length_and_other_methods_are_refused(scraped: Scraped) -> None:
    """Metrics are read, never written."""
    head, post = await scraped.get(method="HEAD"), await scraped.get(method="POST")
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0
    assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD")


async def test_anything_but_http_is_refused(scraped: Scraped) -> None:
    """A websocket to this path is a mistake of whoever mounted it."""

    async def nothing(*_: Any) -> Any:
        raise AssertionError("not to be called")

    with pytest.raises(ValueError, match="served over HTTP, not 'websocket'"):
        await scraped.endpoint({"type": "websocket"}, nothing, nothing)


async def test_samples_that_are_named_come_alone(scraped: Scraped) -> None:
    """In both formats; beside the whole text, which stays whole. Names that nothing has leave an empty page."""
    selected = await scraped.get("/metrics?name[]=asked&name[]=other")
    assert selected.text.splitlines()[-1] == "asked 1.0"
    assert "asked 2.0" in (await scraped.get("/metrics?name%5B%5D=asked", accept="application/openmetrics-text")).text
    assert (await scraped.get("/metrics?name[]=other")).content == b""
    assert "asked 4.0" in (await scraped.get()).text


async def test_any_number_of_selections_is_no_more_work_than_a_few(scraped: Scraped) -> None:
    """Past the fourth that is rendered, who names samples shares the whole text with others."""
    scraped.gate.open.clear()
    asked = [asyncio.ensure_future(scraped.get(f"/metrics?name[]=x{number}&name[]=asked")) for number in range(20)]
    await scraped.until_asked()
    scraped.gate.open.set()
    answers = await asyncio.gather(*asked)
    assert all("asked" in answer.text for answer in answers)
    assert scraped.endpoint.statistics().renderings == 5


async def test_selections_one_after_the_other_are_no_more_work_either(scraped: Scraped) -> None:
    """As many as may be rendered at once may be within a while; those that were are had again, and a while later others
    are rendered."""
    pages = [(await scraped.get(f"/metrics?name[]=x{number}&name[]=asked")).text for number in range(20)]
    assert scraped.endpoint.statistics().renderings == 5
    assert (await scraped.get("/metrics?name[]=x0&name[]=asked")).text == pages[0]
    assert scraped.endpoint.statistics().renderings == 5
    scraped.clock.advance(1.0)
    assert (await scraped.get("/metrics?name[]=x19&name[]=asked")).text.splitlines()[-1] == "asked 6.0"
