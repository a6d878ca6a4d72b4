"""Rows staged before their batch is formed, answers read in place, and nothing left behind by either."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.messages import VersionRef
from gateway.serving.engine import BatchPolicy, VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.gather import Gather
from gateway.serving.process_engine import ProcessEngine
from gateway.serving.slot import COPIED_BYTES, InputSlot
from runtimes.base import LoadSpec
from tests.runtimes.versions import signature
from tests.serving.processes import LONG_S, descriptors, own_bytes, text_of

WIDE = 20_000
SIGNATURE = signature({"x": ("FP32", ("batch", "w"))}, {"y": ("FP32", ("batch", "w"))})


@pytest.fixture
async def forks():
    server = ForkServer(preload=())
    yield server
    await server.close()


@asynccontextmanager
async def running(forks: ForkServer, signature_: Any = SIGNATURE, max_rows: int = 8, **options: Any):
    load = LoadSpec("echo", "", (), signature=signature_, options=options)
    engine = ProcessEngine(
        VersionSpec(VersionRef("m", 1), "0", load, batch=BatchPolicy(max_rows=max_rows)), forks, print
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def rows(value: float, count: int = 1, width: int = WIDE):
    return {"x": np.full((count, width), value, np.float32)}


async def first_of_each_row(engine: ProcessEngine, *parts: Any) -> list[float]:
    return (await engine.run(parts, limit_s=LONG_S)).outputs["y"][:, 0].tolist()


async def test_what_lies_at_its_place_already_is_not_copied_again(forks: ForkServer):
    """Seen by what only a test may do: the item changes after it was staged, and its batch has the staged rows."""
    async with running(forks) as engine:
        one, two, late = rows(1), rows(2, 2), rows(3)
        engine.stage(one)
        engine.stage(two)
        one["x"][:] = two["x"][:] = 9
        assert await first_of_each_row(engine, one, two, late) == [1, 2, 2, 3]
        assert await first_of_each_row(engine, one, two, late) == [9, 9, 9, 3]


async def test_rows_are_staged_while_two_batches_are_under_way(forks: ForkServer):
    """That is when there is time for it; the batches under way are not touched by it."""
    async with running(forks, delay_ms=30) as engine:
        first = asyncio.ensure_future(engine.run([rows(1), rows(2)], limit_s=LONG_S))
        second = asyncio.ensure_future(engine.run([rows(3)], limit_s=LONG_S))
        await asyncio.sleep(0)
        item = rows(4)
        engine.stage(item)
        item["x"][:] = 9
        assert (await first).outputs["y"][:, 0].tolist() == [1, 2]
        assert (await second).outputs["y"][:, 0].tolist() == [3]
        assert await first_of_each_row(engine, item) == [4]


@pytest.mark.parametrize("order", [(1, 0), (0, 2, 1), (2, 0, 1), (1,), (3, 1), (0, 0, 1), (4, 1), (0, 4)], ids=str)
async def test_staging_in_vain_does_no_harm(forks: ForkServer, order: tuple[int, ...]):
    """Another order, items left out, others between, one twice, of another shape: the batch is what was launched."""
    async with running(forks) as engine:
        staged = [rows(value, count) for value, count in ((1, 1), (2, 3), (3, 2), (4, 1))]
        items = [*staged, {"x": np.full((2, WIDE), 5, np.float32)}]
        for item in staged:
            engine.stage(item)
        engine.stage(rows(7, 1, 3))
        engine.stage({"z": np.zeros(1)})
        engine.stage(rows(8, 9))
        chosen = [items[index] for index in order]
        expected = np.concatenate([item["x"][:, 0] for item in chosen]).tolist()
        assert await first_of_each_row(engine, *chosen) == expected
        assert await first_of_each_row(engine, rows(6, 2, 3)) == [6, 6]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=8),
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=5), min_size=1, max_size=4),
)
def test_a_slot_holds_what_was_launched_whatever_was_staged(stages: list[tuple[int, bool]], batches: list[list[int]]):
    """Any items staged in any order, batches of any others after: always the items' own rows."""
    sent: list[Any] = []
    gather = Gather(SIGNATURE, 16, sent.append)
    slot = InputSlot(0, lambda *_: True)
    items = [rows(number, number % 3 + 1, 5) for number in range(10)]
    for number, wide in stages:
        gather.stage(rows(50, 1, 7) if wide else items[number], slot)
    for batch in batches:
        parts = [items[number] for number in batch]
        layout, count, _ = gather.fill(parts, slot)
        lying = slot._on(layout, layout.end).views(count)["x"]
        assert lying.tolist() == np.concatenate([part["x"] for part in parts]).tolist()
        del lying
    slot.close()


async def test_the_memory_of_an_answer_is_not_used_again_while_anybody_reads_it(forks: ForkServer):
    """Ten large answers are kept, in part or whole, through thirty batches; when they go, so do their memories."""
    assert 2 * WIDE * 4 > COPIED_BYTES
    async with running(forks) as engine:
        kept: list[Any] = []
        for number in range(30):
            answer = (await engine.run([rows(number, 2)], limit_s=LONG_S)).outputs["y"]
            assert answer.flags.writeable
            if number % 3 == 0:
                kept.append((number, memoryview(answer[1]) if number % 2 else answer[1:, 5:7]))
            del answer
        for number, piece in kept:
            assert set(np.asarray(piece).ravel().tolist()) == {number}
        assert text_of("/proc/self/maps").count("turnout output") >= 10
        kept.clear()
        piece = None
        gc.collect()
        for number in range(6):
            assert await first_of_each_row(engine, rows(number, 2)) == [number] * 2
        assert text_of("/proc/self/maps").count("turnout output") <= 4


async def test_an_answer_outlives_its_engine(forks: ForkServer):
    """The mapping goes with the last array on it."""
    async with running(forks) as engine:
        answer = (await engine.run([rows(3, 2)], limit_s=LONG_S)).outputs["y"]
    assert (answer == 3).all()
    assert "turnout" in text_of("/proc/self/maps")
    del answer
    gc.collect()
    assert "turnout" not in text_of("/proc/self/maps")


async def test_truth_values_of_a_large_answer_are_copied(forks: ForkServer):
    """Of them not every byte is one, and the child could still change it."""
    given = signature({"x": ("BOOL", ("batch", "w"))}, {"y": ("BOOL", ("batch", "w"))})
    async with running(forks, given) as engine:
        answer = (await engine.run([{"x": np.ones((2, COPIED_BYTES), bool)}], limit_s=LONG_S)).outputs["y"]
        await engine.run([{"x": np.zeros((2, COPIED_BYTES), bool)}], limit_s=LONG_S)
        assert answer.all()
        assert answer.base is None


async def test_shapes_that_change_with_every_batch_wear_nothing_out(forks: ForkServer):
    """Twice as many layouts as there are numbers, each way, and the first again."""
    async with running(forks) as engine:
        for width in [*range(1, 140), 1, 2, 3]:
            assert await first_of_each_row(engine, rows(width, 2, width)) == [width] * 2


async def test_a_thousand_batches_leave_no_descriptor_and_no_memory(forks: ForkServer):
    """Small and large ones, staged and not, answers copied and read in place, failures between."""
    async with running(forks) as engine:

        async def hundred() -> None:
            for number in range(100):
                item = rows(number, number % 3 + 1, WIDE if number % 5 == 0 else 4)
                if number % 2:
                    engine.stage(item)
                assert (await first_of_each_row(engine, item))[0] == number
                if number % 10 == 0:
                    outcome = await asyncio.gather(engine.run([item, {}], limit_s=LONG_S), return_exceptions=True)
                    assert isinstance(outcome[0], Exception)

        child = psutil.Process(engine.pid)
        for _ in range(2):
            await hundred()
        gc.collect()
        before = [descriptors(), child.num_fds()]
        memory = [own_bytes(), own_bytes(child.pid)]
        for _ in range(10):
            await hundred()
        gc.collect()
        assert [descriptors(), child.num_fds()] == before
        grown = [own_bytes() - memory[0], own_bytes(child.pid) - memory[1]]
        assert max(grown) < 3 << 20, grown
