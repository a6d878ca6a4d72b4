"""What is at fault fails alone; its neighbours get what they would have got alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import (
    DeadlineExceeded,
    DeviceMemoryExhausted,
    FieldProblem,
    InvalidInput,
    LoadError,
    ModelError,
    VersionCrashed,
    VersionHung,
    VersionUnavailable,
)
from gateway.messages import Arrays
from gateway.serving.batcher import Batcher
from gateway.serving.engine import BatchPolicy
from gateway.serving.scripted_engine import double
from tests.serving.stage import DIGITS, Stage, ask, first_column, rows, turns, until

RAISES, REFUSED, KILLS, HANGS = 666.0, 422.0, 9.0, 7777.0


def touchy(inputs: Arrays) -> Arrays:
    """A model that some values upset."""
    values = set(inputs["x"][:, 0].tolist())
    if KILLS in values:
        raise VersionCrashed("the child died: signal 11")
    if HANGS in values:
        raise VersionHung("no answer within 0.6 s; the child was killed")
    if RAISES in values:
        raise ModelError("the model raised ValueError: 666")
    if REFUSED in values:
        raise InvalidInput("x may not be 422", FieldProblem("x", "not 422", "422"))
    return double(inputs)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        stage.script().model = touchy
        yield stage


async def together(stage: Stage, batcher: Batcher, *requests: Sequence[float]) -> list[object]:
    """The requests in one batch; what each client got."""
    gate = stage.script().hold()
    blocker = ask(batcher, 0)
    await until(lambda: stage.script().running)
    clients = [ask(batcher, *values) for values in requests]
    await turns()
    stage.script().runs.clear()
    gate.set()
    outcomes = await asyncio.gather(*clients, return_exceptions=True)
    await blocker
    return list(outcomes)


async def test_a_row_that_makes_the_model_raise_fails_alone(stage: Stage):
    """Its neighbours are answered; it gets the model's own error, as an exception of its own."""
    batcher = await stage.batcher()
    outcomes = await together(stage, batcher, [1], [2], [RAISES], [4])
    assert [outcomes[0], outcomes[1], outcomes[3]] == [[2.0], [4.0], [8.0]]
    assert isinstance(outcomes[2], ModelError)
    assert str(outcomes[2]) == "the model raised ValueError: 666"
    assert isinstance(outcomes[2].__cause__, ModelError)
    assert stage.script().runs == [(1, 1, 1, 1), (1, 1), (1, 1), (1,), (1,)]


async def test_a_row_the_model_refuses_fails_alone_with_its_fields(stage: Stage):
    """The caller's fault stays InvalidInput, with what was expected and what came."""
    batcher = await stage.batcher()
    outcomes = await together(stage, batcher, [REFUSED], [2], [3])
    assert outcomes[1:] == [[4.0], [6.0]]
    assert isinstance(outcomes[0], InvalidInput)
    assert outcomes[0].problems == (FieldProblem("x", "not 422", "422"),)


async def test_a_row_that_kills_the_process_fails_alone(stage: Stage):
    """The batch is run again, then halved until the killer stands alone; each restart is at once."""
    batcher = await stage.batcher()
    outcomes = await together(stage, batcher, [1], [2], [3], [KILLS])
    assert outcomes[:3] == [[2.0], [4.0], [6.0]]
    assert isinstance(outcomes[3], VersionCrashed)
    assert "this request killed digits/3" in str(outcomes[3])
    assert stage.script().runs == [(1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (1, 1), (1,), (1,)]
    assert [isolating for _, _, isolating in stage.observer.crashes] == [False, True, True, True]
    assert await ask(batcher, 5) == [10.0], "the version is back at once: the killer's deaths do not count against it"


async def test_a_killed_process_costs_its_batch_nothing_but_time(stage: Stage):
    """``kill -9`` under a batch: it is run again on the restarted child, and everybody is answered."""
    batcher = await stage.batcher()
    stage.script().hold()
    clients = [ask(batcher, value) for value in (1, 2, 3)]
    await until(lambda: stage.script().running)
    stage.script().kill()
    stage.script().gate = None
    assert await asyncio.gather(*clients) == [[2.0], [4.0], [6.0]]
    assert stage.script().runs == [(1, 1, 1), (1, 1, 1)]
    assert stage.observer.crashes == [(DIGITS, "crash", False)]
    assert stage.script().alive == 1


async def test_effects_that_must_not_repeat_are_not_repeated(stage: Stage):
    """``retry`` False: one item a batch, and one under way when the child dies fails; the next is answered."""
    batcher = await stage.batcher(retry=False)
    outcomes = await together(stage, batcher, [1], [KILLS], [RAISES], [4])
    assert [outcomes[0], outcomes[3]] == [[2.0], [8.0]]
    assert [type(outcome) for outcome in outcomes[1:3]] == [VersionCrashed, ModelError]
    assert stage.script().runs == [(1,), (1,), (1,), (1,)]


async def test_a_hung_batch_fails_at_once_and_the_next_is_answered(stage: Stage):
    """Its items fall back; nothing is run a second time, since it would only hang again."""
    batcher = await stage.batcher()
    outcomes = await together(stage, batcher, [1], [HANGS])
    assert [type(outcome) for outcome in outcomes] == [VersionHung, VersionHung]
    assert stage.script().runs == [(1, 1)]
    assert stage.observer.crashes == [(DIGITS, "hang", False)]
    assert await ask(batcher, 3) == [6.0]


async def test_an_engine_that_does_not_answer_within_its_limit_is_hung(stage: Stage):
    """The limit is passed to the engine; here the clock passes it."""
    batcher = await stage.batcher(batch=BatchPolicy(hang_floor_ms=600))
    stage.script().hold()
    client = ask(batcher, 1)
    await until(lambda: stage.script().running)
    stage.clock.advance(0.6)
    with pytest.raises(VersionHung):
        await client


def fits(most: int):
    """A device with memory for so many rows."""

    def model(inputs: Arrays) -> Arrays:
        if len(inputs["x"]) > most:
            raise DeviceMemoryExhausted(f"no memory for {len(inputs['x'])} rows")
        return double(inputs)

    return model


async def test_a_batch_too_large_for_the_device_is_halved_and_goes_on(stage: Stage):
    """By items first."""
    stage.script().model = fits(2)
    batcher = await stage.batcher()
    assert await together(stage, batcher, [1], [2], [3], [4], [5]) == [[2.0], [4.0], [6.0], [8.0], [10.0]]


async def test_an_item_too_large_for_the_device_is_cut_by_rows_and_joined(stage: Stage):
    """Its client sees one answer, in order."""
    stage.script().model = fits(2)
    batcher = await stage.batcher()
    outcomes = await together(stage, batcher, [1, 2, 3, 4, 5, 6, 7], [8])
    assert outcomes == [[2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0], [16.0]]


async def test_one_row_that_does_not_fit_the_device_fails(stage: Stage):
    """There is nothing left to halve."""
    stage.script().model = fits(0)
    batcher = await stage.batcher()
    with pytest.raises(DeviceMemoryExhausted, match="no memory for 1 rows"):
        await ask(batcher, 1, 2, 3)


async def test_a_version_that_kills_itself_on_everything_is_not_isolated_forever(stage: Stage):
    """Three killers in a row with no good batch between: the version is at fault, the rest fails unrun."""
    batcher = await stage.batcher()
    stage.script().model = _dies
    outcomes = await together_running(stage, batcher, 32)
    assert all(isinstance(outcome, VersionCrashed) for outcome in outcomes)
    assert len(stage.script().runs) < 20
    assert any("3 requests in a row" in str(outcome) for outcome in outcomes)


def _dies(inputs: Arrays) -> Arrays:
    raise VersionCrashed("the child died: signal 9")


async def together_running(stage: Stage, batcher: Batcher, count: int) -> list[object]:
    """So many clients in one batch, with nothing before it."""
    return list(await asyncio.gather(*(ask(batcher, value) for value in range(count)), return_exceptions=True))


async def test_killers_in_a_row_do_not_make_their_successors_wait(stage: Stage):
    """Two bad requests, one after the other, then a good one: no back-off between."""
    batcher = await stage.batcher()
    for _ in range(2):
        with pytest.raises(VersionCrashed):
            await ask(batcher, KILLS)
    assert await ask(batcher, 1) == [2.0]


async def test_a_batch_whose_child_does_not_come_back_fails_so_that_a_fallback_can_answer(stage: Stage):
    """The restart fails: its items and those behind them are not kept waiting for the back-off."""
    batcher = await stage.batcher()
    stage.script().every_load = LoadError("no such file")
    stage.script().hold()
    clients = [ask(batcher, 1)]
    await until(lambda: stage.script().running)
    clients.append(ask(batcher, 2))
    await turns()
    stage.script().kill()
    failures = await asyncio.gather(*clients, return_exceptions=True)
    assert isinstance(failures[0], VersionCrashed)
    assert "is not back yet" in str(failures[0])
    assert "next try in 0.1 s" in str(failures[1])


async def test_items_whose_client_left_or_whose_time_is_up_drop_out_between_runs(stage: Stage):
    """Nobody waits for them, so they are not part of what is run again."""
    batcher = await stage.batcher()
    gate = stage.script().hold()
    now = stage.clock.monotonic()
    clients = [ask(batcher, 1), ask(batcher, 2, deadline=now + 0.25), ask(batcher, 3), ask(batcher, RAISES)]
    await until(lambda: stage.script().running)
    clients[0].cancel()
    stage.clock.advance(0.25)
    await turns()
    gate.set()
    outcomes = await asyncio.gather(*clients, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert outcomes[2] == [6.0]
    assert stage.script().runs == [(1, 1, 1, 1), (1, 1), (1,), (1,)], "the half that nobody waits for is not run"


async def test_waits_are_told_once_an_item_however_often_it_runs(stage: Stage):
    """The queue histogram counts requests, not attempts; every run is told, with its failure."""
    batcher = await stage.batcher()
    await together(stage, batcher, [1], [RAISES])
    told = [(record.items, len(record.waits_s), record.failure) for record in stage.observer.batches]
    assert told == [(1, 1, None), (2, 2, "ModelError"), (1, 0, None), (1, 0, "ModelError")]


values = st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, RAISES, REFUSED, KILLS])
requests = st.lists(st.lists(values, min_size=1, max_size=4), min_size=1, max_size=12)


@settings(deadline=None, max_examples=150)
@given(requests, st.integers(1, 16), st.integers(1, 8), st.integers(1, 2))
def test_every_request_gets_what_it_would_have_got_alone(
    asked: list[list[float]], max_rows: int, memory_rows: int, depth: int
):
    """Whatever is batched with whatever, on a device of any size, with raising, refused and killing rows, and with
    one batch or two under way."""

    async def scene() -> None:
        async with Stage() as stage:
            room = fits(memory_rows)

            def model(inputs: Arrays) -> Arrays:
                touchy(inputs)
                return room(inputs)

            stage.script().model = model
            stage.script().depth = depth
            batcher = await stage.batcher(batch=BatchPolicy(max_rows=max_rows))
            clients = [asyncio.ensure_future(batcher.infer(rows(*request), len(request), None)) for request in asked]
            async with asyncio.timeout(60):
                outcomes = await asyncio.gather(*clients, return_exceptions=True)
            killers = sum(KILLS in request for request in asked)
            for request, outcome in zip(asked, outcomes, strict=True):
                check(request, outcome, killers, parted=len(request) > max_rows)
        assert stage.script().alive == 0

    asyncio.run(scene())


def check(request: list[float], outcome: object, killers: int, *, parted: bool) -> None:
    """One request's outcome is the one it would have had alone; with three killers in a row others may be given up.
    Of a request in several parts any part's fault may be told."""
    if killers >= 3 and isinstance(outcome, VersionCrashed | VersionUnavailable):
        return
    faults = {KILLS: VersionCrashed, RAISES: ModelError, REFUSED: InvalidInput}
    met = [fault for value, fault in faults.items() if value in request]
    if met:
        assert isinstance(outcome, tuple(met) if parted else met[0])
    else:
        assert not isinstance(outcome, BaseException), outcome
        assert np.allclose(first_column(outcome.outputs), [2 * value for value in request])
