"""Warming: the grid of sizes, what it measures, and what it says when it fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest

from gateway.errors import DeviceMemoryExhausted, InvalidInput, LoadError, ModelError, TurnoutError
from gateway.messages import Arrays, Signature, TensorSpec
from gateway.serving.engine import BatchPolicy
from gateway.serving.scripted_engine import DOUBLING, double
from gateway.serving.warmup import Rehearsal, grid
from tests.serving.stage import Stage, spec


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


def test_the_grid_doubles_up_to_the_limit_itself():
    """No batch size up to the limit is farther than a factor of two from a warm one."""
    assert grid(1) == (1,)
    assert grid(8) == (1, 2, 4, 8)
    assert grid(24) == (1, 2, 4, 8, 16, 24)


def test_an_example_is_repeated_row_by_row():
    """One row of the example fills a batch of any size."""
    rehearsal = Rehearsal(spec(example={"x": np.array([[1.0, 2.0]], np.float32)}), DOUBLING)
    assert rehearsal.inputs(3)["x"].tolist() == [[1.0, 2.0]] * 3


def test_an_example_of_a_version_that_is_not_batched_is_taken_whole():
    """There are no rows to repeat."""
    tensor = TensorSpec("x", "FP32", (3, 2))
    example = {"x": np.zeros((3, 2), np.float32)}
    rehearsal = Rehearsal(spec(example=example), Signature((tensor,), (tensor,), batched=False))
    assert rehearsal.inputs(8) is example
    assert rehearsal.sizes == (1,)


async def test_every_size_is_run_twice_and_the_second_run_is_timed(stage: Stage):
    """The first run of a size pays for what is set up lazily; the curve must not."""
    seen: list[int] = []

    def slower_at_first(inputs: Arrays) -> Arrays:
        rows = len(inputs["x"])
        stage.clock.advance(rows / 100 if rows in seen else 5.0)
        seen.append(rows)
        return double(inputs)

    stage.script().model = slower_at_first
    handle = await stage.active(batch=BatchPolicy(max_rows=8))
    assert seen == [1, 1, 2, 2, 4, 4, 8, 8, 1], "the last one is the self-inference through the queue"
    assert handle.statistics().costs_s == pytest.approx({1: 0.01, 2: 0.02, 4: 0.04, 8: 0.08})


async def test_the_device_sets_the_row_limit_where_it_has_less_memory(stage: Stage):
    """A size that does not fit ends the grid; batches stay below it from then on."""

    def model(inputs: Arrays) -> Arrays:
        if len(inputs["x"]) > 4:
            raise DeviceMemoryExhausted("no memory")
        return double(inputs)

    stage.script().model = model
    handle = await stage.active(batch=BatchPolicy(max_rows=32))
    assert handle.statistics().max_rows == 4


async def test_a_version_without_memory_for_one_row_does_not_load(stage: Stage):
    """It could never answer."""
    stage.script().model = _raising(DeviceMemoryExhausted("no memory for 1 rows"))
    with pytest.raises(LoadError, match="one row does not fit the device"):
        await stage.handle().start()


async def test_a_model_that_raises_on_made_up_input_says_what_to_do(stage: Stage):
    """The message names the input and the way out: an example."""
    stage.script().model = _raising(ModelError("the model raised KeyError"))
    with pytest.raises(LoadError, match=r"failed its warm-up at 1 row: .*x float32\[1, \d+\].*with an example input"):
        await stage.handle().start()


async def test_a_model_that_raises_on_its_own_example_does_not_load(stage: Stage):
    """Nothing is made up here, so nothing is blamed on that."""
    stage.script().model = _raising(InvalidInput("not this"))
    with pytest.raises(LoadError, match=r"failed its warm-up at 1 row: not this$"):
        await stage.handle(example={"x": np.zeros((1, 2), np.float32)}).start()


async def test_a_model_that_refuses_made_up_input_is_alive(stage: Stage):
    """A refusal is an answer: a model with checks of its own serves without an example, at no known cost."""
    stage.script().model = _raising(InvalidInput("text expected"))
    handle = await stage.active()
    assert handle.ready
    assert handle.statistics().costs_s == {}


def _raising(failure: TurnoutError) -> Callable[[Arrays], Arrays]:
    def model(inputs: Arrays) -> Arrays:
        raise failure

    return model
