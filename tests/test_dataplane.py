"""The story of a request: decide, lease, submit, respond; fallback; swaps under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest

from gateway.dataplane import Current, Dataplane, Decode, Trail
from gateway.errors import (
    DeadlineExceeded,
    DecisionLogFull,
    InvalidInput,
    LoadError,
    ModelError,
    QueueFull,
    ServiceDraining,
    UnknownRoute,
    VersionCrashed,
    VersionHung,
    VersionUnavailable,
)
from gateway.messages import Arrays, InferRequest, InferResponse, Signature, VersionRef
from gateway.routing.table import Arm, Limits, Recording, Route, RoutingTable
from gateway.serving.engine import BatchPolicy
from gateway.serving.handle import Handle
from gateway.serving.scripted_engine import double
from tests.serving.stage import Stage, first_column, rows, turns, until

GOOD, BAD = VersionRef("digits", 3), VersionRef("digits", 4)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


@pytest.fixture
def dataplane(stage: Stage) -> Dataplane:
    return Dataplane(observer=stage.observer, clock=stage.clock)


def route(version: int, **fields: object) -> Route:
    return Route("digits", "digits", (Arm(version, 100),), **fields)  # type: ignore[arg-type]


def current(one: Route, handles: Mapping[VersionRef, Handle], revision: int = 1) -> Current:
    return Current(RoutingTable({one.name: one}, one.name, revision), handles)


def request(**fields: object) -> InferRequest:
    defaults: dict[str, object] = {"route": "digits", "request_id": "r", "decision_id": "d", "deadline": None}
    return InferRequest(**{**defaults, **fields})  # type: ignore[arg-type]


def decode(*values: float) -> Decode:
    def typed(signature: Signature) -> tuple[Arrays, int]:
        return rows(*values), len(values)

    return typed


async def pair(stage: Stage) -> dict[VersionRef, Handle]:
    return {ref: await stage.active(ref) for ref in (GOOD, BAD)}


def asking(dataplane: Dataplane, *values: float, trail: Trail | None = None, **fields: object):
    return asyncio.ensure_future(dataplane.infer(request(**fields), decode(*values), trail or Trail()))


async def test_a_request_is_decided_leased_run_and_answered(stage: Stage, dataplane: Dataplane):
    """Version, reason and revision are on the answer; the trail tells the same; the lease is over."""
    handles = await pair(stage)
    dataplane.install(current(route(3), handles, revision=7))
    trail = Trail()
    response = await asking(dataplane, 1, 2, trail=trail, route=None)
    assert isinstance(response, InferResponse)
    assert (response.decision.version, response.decision.reason, response.decision.revision) == (GOOD, "split", 7)
    assert first_column(response.outputs) == [2.0, 4.0]
    assert (response.rows, response.fallback_from, response.signature) == (2, None, handles[GOOD].signature)
    assert (trail.route, trail.decision, trail.answered_by, trail.rows) == ("digits", response.decision, GOOD, 2)
    assert (trail.chosen_failure, trail.slow) == (None, False)
    assert (trail.batch > 0, trail.batch_rows) == (True, 2)
    assert stage.observer.started == ["digits"]
    assert stage.observer.revisions == [7]
    assert handles[GOOD].statistics().leases == 0
    assert repr(dataplane) == "<Dataplane revision 7 [open | 0 in flight]>"


async def test_nothing_is_told_of_a_route_that_does_not_exist(stage: Stage, dataplane: Dataplane):
    """Unknown names never mint series."""
    trail = Trail()
    with pytest.raises(UnknownRoute):
        await asking(dataplane, 1, trail=trail, route="nobody")
    assert (trail.route, trail.decision, trail.answered_by) == (None, None, None)
    assert stage.observer.started == []


def _kills(inputs: Arrays) -> Arrays:
    raise VersionCrashed("signal 9")


def _hangs(inputs: Arrays) -> Arrays:
    raise VersionHung("no answer within 0.6 s")


def _raises(inputs: Arrays) -> Arrays:
    raise ModelError("the model raised")


@pytest.mark.parametrize(
    ("model", "cause"), [(_kills, "VersionCrashed"), (_hangs, "VersionHung"), (_raises, "ModelError")]
)
async def test_a_version_that_fails_is_covered_by_the_fallback_and_counted_as_its_failure(
    stage: Stage, dataplane: Dataplane, model: Callable[[Arrays], Arrays], cause: str
):
    """The answer says fallback; the failure stays with the version that was chosen."""
    dataplane.install(current(route(4, fallback=3), await pair(stage)))
    stage.script(BAD).model = model
    trail = Trail()
    response = await asking(dataplane, 5, trail=trail)
    assert (response.decision.version, response.decision.reason, response.fallback_from) == (GOOD, "fallback", BAD)
    assert first_column(response.outputs) == [10.0]
    assert trail.decision is not None
    assert (trail.decision.version, trail.chosen_failure, trail.answered_by) == (BAD, cause, GOOD)
    assert stage.observer.fallbacks == [(trail.decision, cause)]


async def test_a_version_that_is_not_there_is_covered_by_the_fallback(stage: Stage, dataplane: Dataplane):
    """Not loaded, or dying at each start: the route goes on."""
    handles = await pair(stage)
    dataplane.install(current(route(4, fallback=3), {GOOD: handles[GOOD]}))
    assert (await asking(dataplane, 1)).decision.reason == "fallback"
    dataplane.install(current(route(4, fallback=3), handles))
    stage.script(BAD).every_load = LoadError("dies at each start")
    stage.script(BAD).kill()
    await turns()
    trail = Trail()
    assert (await asking(dataplane, 1, trail=trail)).decision.version == GOOD
    assert trail.chosen_failure == "VersionUnavailable"


@pytest.mark.parametrize("fields", [{}, {"fallback": 4}, {"fallback": 3, "quarantined": frozenset({3})}])
async def test_without_another_way_the_failure_stands(stage: Stage, dataplane: Dataplane, fields: Mapping[str, Any]):
    """No fallback, itself as fallback, or a quarantined one."""
    dataplane.install(current(route(4, **fields), await pair(stage)))
    stage.script(BAD).model = _raises
    with pytest.raises(ModelError):
        await asking(dataplane, 1)
    assert stage.observer.fallbacks == []


async def test_a_fallback_that_fails_too_fails_the_request_once(stage: Stage, dataplane: Dataplane):
    """Its error names the first as its cause; there is no loop."""
    dataplane.install(current(route(4, fallback=3), await pair(stage)))
    stage.script(BAD).model = stage.script(GOOD).model = _raises
    trail = Trail()
    with pytest.raises(ModelError) as raised:
        await asking(dataplane, 1, trail=trail)
    assert isinstance(raised.value.__cause__, ModelError)
    assert (trail.chosen_failure, trail.answered_by) == ("ModelError", None)
    assert len(stage.observer.fallbacks) == 1


async def test_bad_input_does_not_fall_back(stage: Stage, dataplane: Dataplane):
    """It is the caller's fault, whoever answers."""

    def refuses(signature: Signature) -> tuple[Arrays, int]:
        raise InvalidInput("x: expected FP32")

    handles = await pair(stage)
    dataplane.install(current(route(4, fallback=3), handles))
    with pytest.raises(InvalidInput):
        await dataplane.infer(request(), refuses, Trail())
    assert stage.observer.fallbacks == []
    assert handles[BAD].statistics().leases == 0


async def test_a_full_queue_does_not_fall_back_and_is_counted_as_rejected(stage: Stage, dataplane: Dataplane):
    """Pushing a flood on to the known good would take that down too. The route's own bound holds."""
    dataplane.install(current(route(4, fallback=3, limits=Limits(queue_rows=2)), await pair(stage)))
    gate = stage.script(BAD).hold()
    clients = [asking(dataplane, 1)]
    await until(lambda: stage.script(BAD).running)
    clients.append(asking(dataplane, 1, 2))
    await turns()
    with pytest.raises(QueueFull):
        await asking(dataplane, 1)
    assert stage.observer.rejections == [("digits", "queue-full")]
    gate.set()
    await asyncio.gather(*clients)


async def test_the_deadline_is_the_requests_else_the_routes(stage: Stage, dataplane: Dataplane):
    """Counted from when the request came."""
    handles = {BAD: await stage.active(BAD, batch=BatchPolicy(hang_floor_ms=60_000))}
    dataplane.install(current(route(4, limits=Limits(timeout_ms=2000)), handles))
    stage.script(BAD).hold()
    patient = asking(dataplane, 1)
    hurried = asking(dataplane, 1, deadline=stage.clock.monotonic() + 0.5)
    await until(lambda: stage.script(BAD).running)
    stage.clock.advance(0.5)
    with pytest.raises(DeadlineExceeded):
        await hurried
    stage.clock.advance(1.25)
    await turns()
    assert not patient.done()
    stage.clock.advance(0.25)
    with pytest.raises(DeadlineExceeded):
        await patient


async def test_a_fallback_answers_within_the_same_deadline(stage: Stage, dataplane: Dataplane):
    """The time the chosen version took is gone."""
    handles = {GOOD: await stage.active(GOOD, batch=BatchPolicy(hang_floor_ms=60_000)), BAD: await stage.active(BAD)}
    dataplane.install(current(route(4, fallback=3, limits=Limits(timeout_ms=1000)), handles))
    for ref in (GOOD, BAD):
        stage.script(ref).hold()
    client = asking(dataplane, 1)
    await until(lambda: stage.script(BAD).running)
    stage.clock.advance(0.625)
    await until(lambda: stage.script(GOOD).running)
    stage.clock.advance(0.375)
    with pytest.raises(DeadlineExceeded) as raised:
        await client
    assert isinstance(raised.value.__cause__, VersionHung)


async def test_a_slow_answer_is_slow_of_the_chosen_version_also_when_it_failed_slowly(
    stage: Stage, dataplane: Dataplane
):
    """Counted before any fallback hides it."""
    dataplane.install(current(route(4, fallback=3, limits=Limits(slow_ms=200)), await pair(stage)))
    slow, quick = Trail(), Trail()
    stage.script(BAD).hold()
    client = asking(dataplane, 1, trail=slow)
    await until(lambda: stage.script(BAD).running)
    stage.clock.advance(0.625)
    response = await client
    assert (response.decision.reason, slow.slow, slow.chosen_failure) == ("fallback", True, "VersionHung")
    stage.script(BAD).gate.set()
    await asking(dataplane, 1, trail=quick)
    assert not quick.slow


async def test_a_request_in_flight_finishes_on_the_pair_it_began_with(stage: Stage, dataplane: Dataplane):
    """A swap neither fails nor delays nor relabels it."""
    handles = await pair(stage)
    first = current(route(3), handles, revision=1)
    dataplane.install(first)
    gate = stage.script(GOOD).hold()
    client = asking(dataplane, 1)
    await until(lambda: stage.script(GOOD).running)
    assert dataplane.install(current(route(4), {BAD: handles[BAD]}, revision=2)) is first
    retiring = asyncio.ensure_future(handles[GOOD].retire())
    assert (await asking(dataplane, 2)).decision.version == BAD
    await turns()
    assert not retiring.done()
    gate.set()
    response = await client
    await retiring
    assert (response.decision.version, response.decision.revision) == (GOOD, 1)
    assert first_column(response.outputs) == [2.0]


async def test_a_request_whose_version_is_abandoned_is_decided_anew(stage: Stage, dataplane: Dataplane):
    """A rollback from a hung version: what waited for it is answered by the newest pair, and is not its failure."""
    handles = await pair(stage)
    dataplane.install(current(route(4), handles, revision=1))
    stage.script(BAD).hold()
    trails = [Trail(), Trail()]
    clients = [asking(dataplane, 1, trail=trails[0])]
    await until(lambda: stage.script(BAD).running)
    clients.append(asking(dataplane, 2, trail=trails[1]))
    await turns()
    dataplane.install(current(route(3), {GOOD: handles[GOOD]}, revision=2))
    await handles[BAD].kill()
    responses = await asyncio.gather(*clients)
    assert [(answer.decision.version, answer.decision.reason, answer.decision.revision) for answer in responses] == [
        (GOOD, "split", 2)
    ] * 2
    assert [first_column(answer.outputs) for answer in responses] == [[2.0], [4.0]]
    assert [(trail.decision.version, trail.chosen_failure) for trail in trails if trail.decision] == [(GOOD, None)] * 2
    assert stage.observer.fallbacks == []


async def test_a_fallback_that_is_abandoned_under_a_request_is_asked_for_anew(stage: Stage, dataplane: Dataplane):
    """The chosen version failed, and its fallback is rolled back while it works: the newest table's answers."""
    handles = await pair(stage)
    last = VersionRef("digits", 5)
    handles[last] = await stage.active(last)
    dataplane.install(current(route(4, fallback=3), handles, revision=1))
    stage.script(BAD).model = _raises
    stage.script(GOOD).hold()
    trail = Trail()
    client = asking(dataplane, 1, trail=trail)
    await until(lambda: stage.script(GOOD).running)
    left = {ref: handle for ref, handle in handles.items() if ref != GOOD}
    dataplane.install(current(route(4, fallback=5, quarantined=frozenset({3})), left, revision=2))
    await handles[GOOD].kill()
    response = await client
    assert (response.decision.version, response.decision.reason, response.decision.revision) == (last, "fallback", 2)
    assert first_column(response.outputs) == [2.0]
    assert (trail.chosen_failure, trail.answered_by) == ("ModelError", last)
    assert [cause for _, cause in stage.observer.fallbacks] == ["ModelError"]


async def test_a_version_that_drains_while_still_routed_is_covered_by_the_fallback(stage: Stage, dataplane: Dataplane):
    """Nothing newer is in force, so there is nothing to decide anew."""
    handles = await pair(stage)
    dataplane.install(current(route(4, fallback=3), handles))
    await handles[BAD].retire()
    assert (await asking(dataplane, 1)).decision.reason == "fallback"


async def test_after_a_swap_no_new_request_gets_the_old_version(stage: Stage, dataplane: Dataplane):
    """A weight of 0 means 0 on the next request, at every swap of many."""
    handles = await pair(stage)
    stage.script(BAD).model = lambda inputs: {"y": double(inputs)["y"] + 1}
    for revision in range(200):
        version = 3 + revision % 2
        dataplane.install(current(route(version), handles, revision=revision))
        responses = await asyncio.gather(*(asking(dataplane, 1) for _ in range(4)))
        assert {answer.decision.version.number for answer in responses} == {version}
        assert all(first_column(answer.outputs) == [2.0 + revision % 2] for answer in responses)


async def test_a_draining_gateway_takes_no_new_work_and_finishes_the_old(stage: Stage, dataplane: Dataplane):
    """``SIGTERM``: every admitted request is answered."""
    dataplane.install(current(route(3), await pair(stage)))
    gate = stage.script(GOOD).hold()
    client = asking(dataplane, 1)
    await until(lambda: stage.script(GOOD).running)
    dataplane.drain()
    drained = asyncio.ensure_future(dataplane.drained())
    with pytest.raises(ServiceDraining):
        await asking(dataplane, 2)
    assert stage.observer.rejections == [("digits", "draining")]
    assert repr(dataplane) == "<Dataplane revision 1 [draining | 1 in flight]>"
    assert not drained.done()
    gate.set()
    assert first_column((await client).outputs) == [2.0]
    await drained


async def test_a_client_that_leaves_takes_its_work_with_it(stage: Stage, dataplane: Dataplane):
    """Out of the queue, out of the count of what is in flight, its lease ended."""
    handles = await pair(stage)
    dataplane.install(current(route(3), handles))
    gate = stage.script(GOOD).hold()
    staying = asking(dataplane, 1)
    await until(lambda: stage.script(GOOD).running)
    leaving = asking(dataplane, 2)
    await turns()
    assert dataplane.inflight == 2
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert dataplane.inflight == 1
    statistics = handles[GOOD].statistics()
    assert (statistics.leases, statistics.batcher.queued_rows) == (1, 0)
    gate.set()
    await staying


async def test_a_route_without_any_weight_cannot_answer(stage: Stage, dataplane: Dataplane):
    """Nobody was chosen, so nobody failed."""
    dataplane.install(current(Route("digits", "digits", (Arm(3, 0),), fallback=3), await pair(stage)))
    trail = Trail()
    with pytest.raises(VersionUnavailable):
        await asking(dataplane, 1, trail=trail)
    assert (trail.route, trail.decision, trail.chosen_failure) == ("digits", None, None)


class Log:
    """Where answers are recorded, as far as the data plane knows it."""

    def __init__(self, *, full: bool = False, decisions: bool = True) -> None:
        self.full = full
        self.decisions = decisions


async def test_a_route_that_wants_no_answer_unrecorded_gives_none_while_the_log_is_full(stage: Stage):
    """Refused after the decision, which its record names; other routes answer, and so does this one when there is room,
    or no decision log at all."""
    log = Log(full=True)
    dataplane = Dataplane(observer=stage.observer, clock=stage.clock, records=log)
    handles = await pair(stage)
    dataplane.install(current(route(3, recording=Recording(refuse=True)), handles))
    trail = Trail()
    with pytest.raises(DecisionLogFull, match="'digits' gives no answer that cannot be recorded"):
        await asking(dataplane, 1, trail=trail)
    assert trail.decision is not None
    assert stage.observer.rejections == [("digits", "decision-log-full")]
    log.decisions = False
    assert first_column((await asking(dataplane, 1)).outputs) == [2.0]
    log.decisions, log.full = True, False
    assert first_column((await asking(dataplane, 1)).outputs) == [2.0]
    dataplane.install(current(route(3, recording=Recording()), handles, revision=2))
    log.full = True
    assert first_column((await asking(dataplane, 1)).outputs) == [2.0]


@pytest.mark.parametrize(
    ("log", "recording", "kept"),
    [
        (Log(), Recording(), True),
        (Log(), Recording(content="none"), False),
        (Log(), None, False),
        (Log(decisions=False), Recording(), False),
        (None, Recording(), False),
    ],
)
async def test_tensors_are_kept_where_somebody_wants_to_see_them(
    stage: Stage, log: Log | None, recording: Recording | None, kept: bool
):
    """By reference: what was asked and what was answered."""
    dataplane = Dataplane(observer=stage.observer, clock=stage.clock, records=log)
    dataplane.install(current(route(3, recording=recording), await pair(stage)))
    trail = Trail()
    response = await asking(dataplane, 4, trail=trail)
    assert (trail.inputs is not None, trail.outputs is not None) == (kept, kept)
    if kept:
        assert trail.outputs is response.outputs
        assert [array.tolist() for array in (trail.inputs or {}).values()] == [[[4.0, 4.0]]]
