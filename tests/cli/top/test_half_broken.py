"""``turnout top`` at a gateway whose admin plane fails in part: the rest is shown, and what is missing is said."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from gateway.cli.admin_client import AdminClient
from gateway.cli.top.asking import Asking
from gateway.cli.top.live import looked
from gateway.cli.top.rates import Window
from gateway.clock import ManualClock
from tests.cli.top.scene import ADDRESS, ready, route_view

NOTHING_THERE = JSONResponse({"type": "urn:turnout:not-found", "detail": "there is nothing at this path"}, 404)
BROKEN = JSONResponse({"type": "urn:turnout:internal", "detail": "the log cannot be read"}, 500)
STORE_DOWN = JSONResponse({"type": "urn:turnout:store-unavailable", "detail": "the store does not answer"}, 503)
RECORD = {"at": 1.0, "actor": "me", "action": "route-create", "subject": "route/digits", "reason": ""}
ANOTHERS = HTMLResponse("<h1>Welcome</h1>")


class Plane:
    """A gateway with one route, whose list of events answers as told."""

    def __init__(self, events: Response) -> None:
        self.events = events
        self.clock = ManualClock()

    def answer(self, request: Request) -> Response:
        lists = {
            "/readyz": JSONResponse(ready({"digits": [{"version": 1, "weight": 1}]})),
            "/admin/routes": JSONResponse({"routes": [route_view("digits")]}),
            "/admin/versions": JSONResponse({"versions": [{"model": "digits", "version": 1, "pid": 4001}]}),
            "/admin/replicas": JSONResponse({"replicas": [{}, {}]}),
            "/admin/audit": self.events,
        }
        return lists.get(request.url.path) or PlainTextResponse("process_start_time_seconds 1\n")

    def client(self) -> httpx.AsyncClient:
        application = Starlette(routes=[Route("/{path:path}", self.answer)])
        return httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url=ADDRESS)


@pytest.mark.parametrize(
    ("events", "why"),
    [
        (NOTHING_THERE, "there is nothing at this path"),
        (BROKEN, "the log cannot be read"),
        (ANOTHERS, "/admin/audit?limit=20 answered without 'records'"),
        (STORE_DOWN, ""),
    ],
    ids=["an older release", "a fault", "another's answer", "the store is down"],
)
async def test_a_list_that_cannot_be_told_costs_the_view_that_list_alone(events: Response, why: str) -> None:
    """It is asked for again, though nothing has changed, and once it is told nothing more is said. Of a store that is
    down the head line tells."""
    plane = Plane(events)
    async with plane.client() as client:
        asking = Asking(AdminClient(client, ADDRESS, token_given=True), plane.clock)
        _, picture = await looked(asking, Window(), ())
        assert [row.pid for row in picture.versions] == [4001]
        assert picture.gateway.replicas == 2
        assert [(text[:21], why in text) for text in picture.withheld] == (
            [("not told now: events ", True)] if why else []
        )
        plane.events = JSONResponse({"records": [RECORD]})
        plane.clock.advance(60)
        _, picture = await looked(asking, Window(), ())
        assert picture.withheld == ()
        assert [event.subject for event in picture.events] == ["route/digits"]
