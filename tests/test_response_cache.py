"""The response cache on a request's way: never across versions, nothing stale after a change, nothing of a fallback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from gateway.dataplane import Current, Dataplane, Trail
from gateway.errors import DeadlineExceeded, ModelError
from gateway.messages import Arrays, InferRequest, InferResponse, VersionRef
from gateway.routing.table import Arm, CachePolicy, Limits, Route, RoutingTable
from gateway.serving.handle import Handle
from tests.serving.stage import Stage, first_column, rows, turns, until

GOOD, NEW = VersionRef("digits", 3), VersionRef("digits", 4)
CACHE = CachePolicy(1 << 20)


class Asked:
    """A data plane with two versions: 3 doubles its input, 4 trebles it."""

    def __init__(self, stage: Stage, handles: Mapping[VersionRef, Handle]) -> None:
        self.stage = stage
        self.handles = handles
        self.dataplane = Dataplane(observer=stage.observer, clock=stage.clock)

    def route(self, version: int, **fields: Any) -> None:
        cache = fields.pop("cache", CACHE)
        here = fields.pop("here", self.handles)
        one = Route("digits", "digits", (Arm(version, 1),), pinnable=frozenset({3, 4}), cache=cache, **fields)
        self.dataplane.install(Current(RoutingTable({one.name: one}, one.name, 1), here))

    def ask(self, *values: float, trail: Trail | None = None, **fields: Any) -> asyncio.Task[InferResponse]:
        request = InferRequest("digits", "r", "d", fields.pop("deadline", None), **fields)
        asking = self.dataplane.infer(request, lambda _: (rows(*values), len(values)), trail or Trail())
        return asyncio.ensure_future(asking)

    async def answer(self, *values: float, **fields: Any) -> list[float]:
        return first_column((await self.ask(*values, **fields)).outputs)

    @property
    def outcomes(self) -> list[str]:
        told, self.stage.observer.cache_outcomes = self.stage.observer.cache_outcomes, []
        return [outcome for _, outcome in told]

    @property
    def runs(self) -> int:
        return sum(len(self.stage.script(ref).runs) for ref in (GOOD, NEW))


def trebled(inputs: Arrays) -> Arrays:
    return {"y": inputs["x"] * 3}


@pytest.fixture
async def asked() -> AsyncIterator[Asked]:
    async with Stage() as stage:
        handles = {ref: await stage.active(ref) for ref in (GOOD, NEW)}
        stage.script(NEW).model = trebled
        built = Asked(stage, handles)
        built.route(3)
        yield built


async def test_a_kept_answer_is_the_versions_answer_and_asks_nobody(asked: Asked) -> None:
    """The decision and the trail are the request's own; it neither waited nor computed."""
    assert await asked.answer(1, 2) == [2.0, 4.0]
    trail = Trail()
    response = await asked.ask(1, 2, trail=trail)
    assert first_column(response.outputs) == [2.0, 4.0]
    assert (response.decision.version, response.decision.reason, response.rows) == (GOOD, "split", 2)
    assert (trail.answered_by, trail.rows, trail.queue_s, trail.compute_s) == (GOOD, 2, 0.0, 0.0)
    assert (asked.runs, asked.outcomes) == (1, ["miss", "hit"])
    assert asked.handles[GOOD].statistics().leases == 0


async def test_without_a_cache_every_request_is_computed_and_nothing_is_told(asked: Asked) -> None:
    """Off by default."""
    asked.route(3, cache=None)
    for _ in range(2):
        await asked.answer(1)
    assert (asked.runs, asked.outcomes) == (2, [])
    assert asked.dataplane.answers.statistics() == {}


async def test_weights_that_move_bring_the_other_versions_answer_and_back_again(asked: Asked) -> None:
    """Each version has its own answers, and keeps them while the route names it."""
    assert await asked.answer(1) == [2.0]
    asked.route(4)
    assert await asked.answer(1) == [3.0]
    asked.route(3)
    assert await asked.answer(1) == [2.0]
    assert (asked.runs, asked.outcomes) == (2, ["miss", "miss", "hit"])


@pytest.mark.parametrize("how", ["quarantined", "retired", "cache off"])
async def test_nothing_survives_what_takes_a_version_off_its_route(asked: Asked, how: str) -> None:
    """Not for a moment, and not until it comes back either."""
    asked.route(4)
    assert await asked.answer(1) == [3.0]
    if how == "quarantined":
        asked.route(3, quarantined=frozenset({4}))
    elif how == "retired":
        asked.route(3, here={GOOD: asked.handles[GOOD]})
    else:
        asked.route(3, cache=None)
    assert all(held.entries == 0 for held in asked.dataplane.answers.statistics().values())
    asked.route(4)
    assert await asked.answer(1) == [3.0]
    assert asked.outcomes == ["miss", "miss"]


async def test_what_a_version_answers_after_its_rollback_is_not_kept(asked: Asked) -> None:
    """The request was decided before, and is answered; the next one does not meet what it left."""
    asked.route(4)
    gate = asked.stage.script(NEW).gate = asyncio.Event()
    late = asked.ask(1)
    await turns()
    asked.route(3, quarantined=frozenset({4}))
    gate.set()
    assert first_column((await late).outputs) == [3.0]
    asked.route(4)
    assert asked.dataplane.answers.statistics()["digits"].entries == 0


async def test_a_failure_is_not_kept_and_neither_is_what_the_fallback_answered(asked: Asked) -> None:
    """Each request finds out for itself, and the chosen version's failures are counted for it."""

    def raises(inputs: Arrays) -> Arrays:
        raise ModelError("the model raised")

    asked.stage.script(NEW).model = raises
    asked.route(4, fallback=3)
    for _ in range(2):
        trail = Trail()
        response = await asked.ask(1, trail=trail)
        assert (response.decision.reason, first_column(response.outputs)) == ("fallback", [2.0])
        assert trail.chosen_failure == "ModelError"
    assert asked.outcomes == ["miss", "bypass"] * 2
    assert asked.dataplane.answers.statistics()["digits"].entries == 0


@pytest.mark.parametrize("sent", ["no-store", "no-cache", "Max-Age=0", "foo, No-Cache"])
async def test_a_client_may_want_an_answer_of_its_own(asked: Asked, sent: str) -> None:
    """RFC 9111's request directives; others leave the cache on."""
    for value in (sent, sent, "max-age=60", "only-if-cached"):
        assert await asked.answer(1, headers={"cache-control": value}) == [2.0]
    assert asked.outcomes == ["bypass", "bypass", "miss", "hit"]


async def test_sixty_four_equal_requests_at_once_are_one_row_of_one_batch(asked: Asked) -> None:
    """The model sees the question once."""
    gate = asked.stage.script(GOOD).gate = asyncio.Event()
    asking = [asked.ask(5) for _ in range(64)]
    await turns()
    gate.set()
    assert [first_column((await one).outputs) for one in asking] == [[10.0]] * 64
    assert [record.rows for record in asked.stage.observer.batches] == [1]
    assert sorted(asked.outcomes) == ["joined"] * 63 + ["miss"]


async def test_a_request_that_waits_for_an_equal_one_keeps_its_deadline(asked: Asked) -> None:
    """And the trail says how long the version had."""
    asked.route(3, limits=Limits(timeout_ms=60_000))
    gate = asked.stage.script(GOOD).gate = asyncio.Event()
    first = asked.ask(5)
    await until(lambda: asked.stage.script(GOOD).runs)
    trail = Trail()
    hurried = asked.ask(5, trail=trail, deadline=asked.stage.clock.monotonic() + 0.2)
    await turns()
    asked.stage.clock.advance(0.2)
    with pytest.raises(DeadlineExceeded):
        await hurried
    assert trail.queue_s == pytest.approx(0.2)
    gate.set()
    assert first_column((await first).outputs) == [10.0]
