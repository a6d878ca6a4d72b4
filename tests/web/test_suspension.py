"""A request that waits keeps its failure to itself: nothing of it is still being handled, by whoever comes then."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, MutableMapping
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.dataplane import Current, Dataplane, Trail
from gateway.errors import NotFound
from gateway.messages import Arrays, InferRequest, Signature, VersionRef
from gateway.routing.table import Arm, Route, RoutingTable
from gateway.trace_context import Contexts
from gateway.web.exchange import AsgiExchange
from gateway.web.inference import Asked, Inference
from gateway.web.predict import PredictDialect
from tests.serving.stage import Stage, rows
from tests.web.stage import LIMITS

GOOD = VersionRef("digits", 3)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


class _Services:
    """As much as a request needs that finds no route."""

    def __init__(self, stage: Stage) -> None:
        self.clock, self.limits, self.observer = SystemClock(), LIMITS, stage.observer


def _nowhere(path: str) -> Asked:
    raise NotFound(f"nothing at {path}")


def _ends(story: Coroutine[Any, Any, None], taken: Iterable[asyncio.Future[None]]) -> bool:
    for future in taken:
        if not future.done():
            future.set_result(None)
    try:
        story.send(None)
    except StopIteration:
        return True
    return False


async def test_answers_that_wait_for_their_clients_leave_no_failure_behind(stage: Stage):
    """Two that end in the order in which they began: the first took the second's place as what is being handled."""
    inference = Inference(_Services(stage))  # type: ignore[arg-type]
    taken: list[asyncio.Future[None]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        taken.append(asyncio.get_running_loop().create_future())
        await taken[-1]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    stories = []
    for path in ("/first", "/second"):
        scope = {"type": "http", "method": "POST", "path": path, "headers": []}
        exchange = AsgiExchange(scope, receive, send, contexts=Contexts(0.0))
        exchange.whole = True
        stories.append(inference.serve(exchange, _nowhere, PredictDialect(LIMITS.codec)))
    for story in stories:
        story.send(None)
        assert sys.exc_info() == (None, None, None)
    for story in stories:
        while not _ends(story, taken):
            assert len(taken) < 8
        assert sys.exc_info() == (None, None, None)
    with pytest.raises(NotFound) as met:
        _nowhere("/third")
    assert met.value.__context__ is None


async def test_a_fallback_is_waited_for_without_the_failure_that_asked_for_it(stage: Stage):
    """Nothing that fails meanwhile has it as its context."""
    route = Route("digits", "digits", (Arm(4, 100),), fallback=3)
    dataplane = Dataplane(observer=stage.observer, clock=stage.clock)
    dataplane.install(Current(RoutingTable({"digits": route}, "digits", 1), {GOOD: await stage.active(GOOD)}))
    request = InferRequest(route="digits", request_id="r", decision_id="d", deadline=None)

    def typed(_: Signature) -> tuple[Arrays, int]:
        return rows(1.0), 1

    asked = dataplane.infer(request, typed, Trail())
    assert asyncio.isfuture(asked.send(None))
    assert sys.exc_info() == (None, None, None)
    with pytest.raises(asyncio.CancelledError):
        asked.throw(asyncio.CancelledError())
    assert sys.exc_info() == (None, None, None)
