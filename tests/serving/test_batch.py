"""Planning and cutting batches: pure, so checked on everything hypothesis can think of."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.messages import Array
from gateway.serving.batch import cut, halve, halve_rows, join, plan, shape_key


@dataclass(frozen=True, eq=False)
class Thing:
    rows: int
    key: Hashable = "a"
    deadline: float | None = None
    left: bool = False


things = st.builds(
    Thing,
    rows=st.integers(1, 40),
    key=st.sampled_from("abc"),
    deadline=st.none() | st.floats(0, 20),
    left=st.booleans(),
)
queues = st.lists(things, max_size=40)


@given(queues, st.integers(1, 32), st.booleans())
def test_no_item_is_lost_or_doubled_until_the_queue_is_empty(queue: list[Thing], max_rows: int, alone: bool):
    """Planning again and again hands over every item exactly once, and ends."""
    rest = list(queue)
    taken: list[Thing] = []
    while rest:
        planned = plan(rest, 10.0, max_rows=max_rows, alone=alone)
        step = [*planned.batch, *planned.expired, *planned.left]
        assert step, "a plan of a queue that is not empty takes something"
        taken += step
        rest = [item for item in rest if item not in step]
    assert sorted(map(id, taken)) == sorted(map(id, queue))


@given(queues, st.integers(1, 32))
def test_rows_stay_within_the_limit_unless_one_item_is_larger(queue: list[Thing], max_rows: int):
    """A batch of several items keeps the row limit; a larger item runs alone."""
    batch = plan(queue, 10.0, max_rows=max_rows).batch
    assert len(batch) <= 1 or sum(item.rows for item in batch) <= max_rows


@given(queues, st.integers(1, 32))
def test_a_batch_is_live_of_one_shape_and_in_order(queue: list[Thing], max_rows: int):
    """Only live items of the oldest live item's shape, in the order they came, none of them overtaken."""
    batch = plan(queue, 10.0, max_rows=max_rows).batch
    live = [item for item in queue if not item.left and (item.deadline is None or item.deadline > 10.0)]
    assert bool(batch) == bool(live)
    if batch:
        group = [item for item in live if item.key == live[0].key]
        assert list(batch) == group[: len(batch)]


@given(queues, st.integers(1, 32))
def test_planning_is_work_conserving(queue: list[Thing], max_rows: int):
    """The next item of the group is left out only because its rows no longer fit."""
    batch = plan(queue, 10.0, max_rows=max_rows).batch
    live = [item for item in queue if not item.left and (item.deadline is None or item.deadline > 10.0)]
    if batch:
        behind = [item for item in live if item.key == batch[0].key][len(batch) :]
        assert not behind or sum(item.rows for item in batch) + behind[0].rows > max_rows


@given(queues)
def test_alone_means_one_item_a_batch(queue: list[Thing]):
    """Versions whose requests cannot be joined get one at a time."""
    assert len(plan(queue, 10.0, max_rows=32, alone=True).batch) <= 1


@given(st.lists(st.integers(), max_size=40))
def test_halves_put_together_are_the_whole(items: list[int]):
    """Halving keeps order, loses nothing, and makes both parts smaller from two items on."""
    first, second = halve(items)
    assert [*first, *second] == items
    assert len(first) - len(second) in (0, 1)


@given(st.integers(2, 33), st.integers(1, 4))
def test_rows_halved_and_joined_are_the_same_rows(rows: int, width: int):
    """An item cut by rows for want of memory comes back whole."""
    inputs = {"x": np.arange(rows * width).reshape(rows, width), "y": np.arange(rows)}
    (first, count), (second, others) = halve_rows(inputs, rows)
    assert (len(first["x"]), len(second["x"])) == (count, others)
    joined = join([first, second])
    assert all(np.array_equal(joined[name], inputs[name]) for name in inputs)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=10))
def test_every_item_gets_its_own_rows_as_views(counts: list[int]):
    """Cutting copies nothing and mixes nothing up."""
    whole = np.arange(sum(counts) * 2).reshape(-1, 2)
    parts = [part["y"] for part in cut({"y": whole}, counts)]
    assert [len(part) for part in parts] == counts
    assert all(part.base is not None for part in parts)
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("output", [np.zeros((3, 2)), np.float32(1).reshape(())])
def test_outputs_that_do_not_have_the_batchs_rows_are_refused(output: Array):
    """Rows handed to the wrong caller would be worse than an error."""
    with pytest.raises(ValueError, match="batch of 4 rows"):
        list(cut({"y": output}, [2, 2]))


def test_shapes_that_cannot_be_joined_have_different_keys():
    """Type and all axes but the first, of every input by name; the order of names does not matter."""
    small, wide = np.zeros((1, 2), np.float32), np.zeros((1, 3), np.float32)
    key = shape_key({"a": small, "b": wide}, batched=True)
    assert key == shape_key({"b": wide, "a": np.zeros((5, 2), np.float32)}, batched=True)
    assert key != shape_key({"a": wide, "b": wide}, batched=True)
    assert key != shape_key({"a": small.astype(np.float64), "b": wide}, batched=True)
