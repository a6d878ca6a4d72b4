"""What a batch says of itself: when it ran, why then, on which engine, and how full it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.messages import Signature, TensorSpec
from gateway.serving.engine import BatchPolicy
from runtimes.base import LoadSpec
from tests.serving.stage import Stage, ask, rows, turns, until

FOUR = BatchPolicy(max_rows=4)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


async def test_a_batch_says_why_it_was_released_and_how_full_it_was(stage: Stage):
    """The first since its engine was idle, the next behind it since it was full, the rest when both were done."""
    stage.script().depth = 2
    batcher = await stage.batcher(batch=FOUR)
    gate = stage.script().hold()
    clients = [ask(batcher, 0)]
    await until(lambda: stage.script().running)
    clients += [ask(batcher, value) for value in range(1, 7)]
    await turns()
    stage.clock.advance(0.25)
    gate.set()
    await asyncio.gather(*clients)
    told = stage.observer.batches
    assert [(record.release, record.rows, record.limit) for record in told] == [
        ("idle", 1, 4),
        ("full", 4, 4),
        ("idle", 2, 4),
    ]
    assert [record.took_s for record in told[:2]] == [0.25, 0.25]
    assert {record.ended_wall for record in told} == {stage.clock.wall()}


async def test_a_request_and_its_batch_have_the_same_serial_number(stage: Stage):
    """Also what ran again after a failure; each run is a batch of its own."""
    batcher = await stage.batcher(batch=FOUR)
    item = batcher.submit(rows(1), 1, None)
    answer = await item.future
    stage.script().hold()
    dying = batcher.submit(rows(2), 1, None)
    await until(lambda: stage.script().running)
    stage.script().kill()
    stage.script().gate = None
    again = await dying.future
    first, failed, repeated = stage.observer.batches
    assert (first.batch, repeated.batch) == (answer.batch, again.batch)
    assert [record.release for record in (first, failed, repeated)] == ["idle", "idle", "again"]
    assert len({record.batch for record in (first, failed, repeated)}) == 3


async def test_a_batch_names_its_engine(stage: Stage):
    """Placement, the engine's number among those of the version, and its device."""
    batcher = await stage.batcher(instances=2)
    gate = stage.script().hold()
    clients = [ask(batcher, 1)]
    await until(lambda: len(stage.script().runs) == 1)
    clients.append(ask(batcher, 2))
    await until(lambda: len(stage.script().runs) == 2)
    gate.set()
    await asyncio.gather(*clients)
    assert sorted((record.engine, record.instance, record.device) for record in stage.observer.batches) == [
        ("process", 0, "cpu"),
        ("process", 1, "cpu"),
    ]


@pytest.mark.parametrize(("device", "padding"), [("cuda:0", [1, 1, 0]), ("cpu", [0, 0, 0])])
async def test_a_device_with_graphs_fills_batches_up_and_they_say_so(stage: Stage, device: str, padding: list[int]):
    """To the next size that it has prepared; one that is larger than all runs as it is, and a processor has none."""
    stage.script().device = device
    stage.script().signature = Signature(
        inputs=(TensorSpec("x", "FP32", ("batch", 2)),), outputs=(TensorSpec("y", "FP32", ("batch", 2)),)
    )
    load = LoadSpec(format="echo", entry="model", files=(), graph_rows=(2, 4))
    batcher = await stage.batcher(batch=BatchPolicy(max_rows=8), load=load)
    await ask(batcher, 1)
    await batcher.submit(rows(1, 2, 3), 3, None).future
    await batcher.submit(rows(1, 2, 3, 4, 5), 5, None).future
    assert [record.padded_rows for record in stage.observer.batches] == padding
