"""Batches on engines: two under way, several engines, parts of one request, and what happens when an engine ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import numpy as np
import pytest

from gateway.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    ModelError,
    QueueFull,
    VersionCrashed,
    VersionUnavailable,
)
from gateway.messages import Arrays, Signature, TensorSpec
from gateway.serving.cost import CostCurve
from gateway.serving.engine import BatchPolicy
from gateway.serving.item import Item, Priority
from gateway.serving.scripted_engine import double
from tests.serving.stage import Stage, ask, first_column, rows, turns, until


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


FOUR = BatchPolicy(max_rows=4)
TEN_MS = CostCurve(((1, 0.010), (4, 0.010)))


async def test_requests_read_in_one_turn_of_the_loop_share_a_batch(stage: Stage):
    """Though the engine is free: the first only schedules the forming."""
    batcher = await stage.batcher()
    items = [batcher.submit(rows(value), 1, None) for value in (1, 2, 3)]
    assert [(await item.future).outputs["y"][0, 0] for item in items] == [2, 4, 6]
    assert stage.script().runs == [(1, 1, 1)]


async def test_a_second_batch_is_launched_behind_the_first_only_when_it_is_full(stage: Stage):
    """Launched, it gathers no more; so three rows wait for the fourth, and the engine never idles between two."""
    stage.script().depth = 2
    batcher = await stage.batcher(batch=FOUR)
    gate = stage.script().hold()
    clients = [ask(batcher, 0)]
    await until(lambda: stage.script().running)
    clients += [ask(batcher, value) for value in (1, 2, 3)]
    await turns()
    assert repr(batcher) == "<Batcher digits/3 [active | 3 queued | 1 running]>"
    clients += [ask(batcher, value) for value in (4, 5)]
    await turns()
    assert repr(batcher) == "<Batcher digits/3 [active | 1 queued | 5 running]>"
    gate.set()
    assert await asyncio.gather(*clients) == [[2.0 * value] for value in range(6)]
    assert stage.script().runs == [(1,), (1, 1, 1, 1), (1,)]


async def test_what_waits_is_launched_half_a_millisecond_before_the_running_batch_ends(stage: Stage):
    """As the curve foresees the end: the time of the hand-over is not lost, and the batch has gathered till then."""
    stage.script().depth = 2
    stage.script().delay_s = lambda _: 0.010
    batcher = await stage.batcher(batch=FOUR, curve=TEN_MS)
    first = ask(batcher, 0)
    await until(lambda: stage.script().running)
    second = ask(batcher, 1)
    await turns()
    stage.clock.advance(0.0094)
    await turns()
    assert "1 queued | 1 running" in repr(batcher)
    stage.clock.advance(0.0002)
    await turns()
    assert "0 queued | 2 running" in repr(batcher)
    for _ in range(2):
        await turns()
        stage.clock.advance(0.010)
    assert await asyncio.gather(first, second) == [[0.0], [2.0]]


async def test_batches_behind_the_one_that_killed_the_engine_are_not_harmed(stage: Stage):
    """Nothing of them ran: they go back to the front of the queue, and are answered after the restart."""
    stage.script().depth = 2
    batcher = await stage.batcher(batch=FOUR)
    stage.script().hold()
    clients = [ask(batcher, 0)]
    await until(lambda: stage.script().running)
    clients += [ask(batcher, value) for value in range(1, 6)]
    await turns()
    stage.script().kill()
    stage.script().gate = None
    assert await asyncio.gather(*clients) == [[2.0 * value] for value in range(6)]
    assert stage.script().runs == [(1,), (1,), (1, 1, 1, 1), (1,)], "the killed one again, by itself, then the others"
    assert [record.failure for record in stage.observer.batches] == ["VersionCrashed", None, None, None]


async def test_batches_that_had_not_begun_are_failed_when_no_engine_comes_back_at_once(stage: Stage):
    """So that a fallback may answer: nobody waits through a back-off."""
    stage.script().depth = 2
    batcher = await stage.batcher(batch=FOUR)
    stage.script().kill()
    await until(lambda: stage.supervisor.live is not None)
    stage.script().hold()
    clients = [ask(batcher, value) for value in range(9)]
    await until(lambda: stage.script().running)
    await turns()
    stage.script().kill()
    failures = await asyncio.gather(*clients, return_exceptions=True)
    assert {type(failure) for failure in failures} == {VersionCrashed, VersionUnavailable}
    assert batcher.idle


async def test_a_batch_that_failed_is_run_again_once_the_one_behind_it_is_done(stage: Stage):
    """Both are under way when the first fails: the second is answered, then what is at fault is found."""

    def touchy(inputs: Arrays) -> Arrays:
        if 1.0 in inputs["x"][:, 0]:
            raise ModelError("not 1")
        return double(inputs)

    stage.script().depth = 2
    stage.script().model = touchy
    batcher = await stage.batcher(batch=BatchPolicy(max_rows=2))
    outcomes = await asyncio.gather(*(ask(batcher, value) for value in (1, 2, 3, 4)), return_exceptions=True)
    assert isinstance(outcomes[0], ModelError)
    assert outcomes[1:] == [[4.0], [6.0], [8.0]]
    assert stage.script().runs == [(1, 1), (1, 1), (1,), (1,)]


async def test_several_engines_share_the_queue_and_the_death_of_one_stops_nobody(stage: Stage):
    """Two instances run two batches at once; while one restarts, the other answers."""
    batcher = await stage.batcher(batch=FOUR, instances=2)
    gate = stage.script().hold()
    first = ask(batcher, 1)
    await until(lambda: len(stage.script().runs) == 1)
    second = ask(batcher, 2)
    await until(lambda: len(stage.script().runs) == 2)
    dying, other = stage.script().engines
    stage.script().load_gate = asyncio.Event()
    dying.die("signal 9")
    await turns()
    gate.set()
    assert await second == [4.0]
    assert await ask(batcher, 3) == [6.0], "the restart is still under way"
    assert other.alive
    assert not first.done()
    stage.script().load_gate.set()
    assert await first == [2.0]


async def test_a_version_of_several_instances_is_ready_while_one_of_them_answers(stage: Stage):
    """Each is warmed; a death is counted, and the version's memory is that of all."""
    handle = await stage.active(instances=2)
    assert stage.script().alive == 2
    assert handle.memory_bytes() == 2 << 20
    stage.script().load_gate = asyncio.Event()
    stage.script().engines[0].die("signal 9")
    await turns()
    assert handle.ready
    assert await ask(handle, 4) == [8.0]
    stage.script().load_gate.set()
    await until(lambda: stage.script().alive == 2)
    assert handle.statistics().deaths == 1
    await handle.retire()
    assert stage.script().alive == 0


async def test_a_request_larger_than_a_batch_is_split_and_joined_in_order(stage: Stage):
    """Its parts fill batches, and other items ride with the last of them."""
    batcher = await stage.batcher(batch=FOUR)
    gate = stage.script().hold()
    blocker = ask(batcher, 0)
    await until(lambda: stage.script().running)
    clients = [ask(batcher, 1, 2, 3), ask(batcher, *range(10, 20)), ask(batcher, 4)]
    await turns()
    gate.set()
    answers = await asyncio.gather(blocker, *clients)
    assert answers[1:] == [[2.0, 4.0, 6.0], [2.0 * value for value in range(10, 20)], [8.0]]
    assert stage.script().runs == [(1,), (3, 1), (4,), (4,), (1, 1)]
    waits = [len(record.waits_s) for record in stage.observer.batches]
    assert waits == [1, 2, 0, 0, 1], "a request's wait is told once, by its first part"
    assert batcher.statistics().answered == 4


async def test_one_failing_part_fails_the_request_once_and_its_other_parts_are_not_run(stage: Stage):
    """The client hears of the fault; neighbours of any part get their answers."""

    def touchy(inputs: Arrays) -> Arrays:
        if 2.0 in inputs["x"][:, 0]:
            raise ModelError("2 is odd, for an even number")
        return double(inputs)

    stage.script().model = touchy
    batcher = await stage.batcher(batch=FOUR)
    large = ask(batcher, *range(16))
    neighbour = ask(batcher, 5)
    with pytest.raises(ModelError, match="2 is odd"):
        await large
    assert await neighbour == [10.0]
    assert stage.script().runs == [(4,), (1,)]
    assert batcher.idle


async def test_the_deadline_of_a_request_in_parts_is_one(stage: Stage):
    """Past it the rest of its rows leaves the queue."""
    batcher = await stage.batcher(batch=FOUR)
    gate = stage.script().hold()
    large = ask(batcher, *range(16), deadline=stage.clock.monotonic() + 0.5)
    await until(lambda: stage.script().running)
    assert batcher.statistics().queued_rows == 12
    stage.clock.advance(0.5)
    with pytest.raises(DeadlineExceeded):
        await large
    await turns()
    assert batcher.statistics().queued_rows == 0
    gate.set()
    await batcher.drained()
    assert stage.script().runs == [(4,)]


async def test_a_client_that_leaves_takes_all_parts_of_its_request_with_it(stage: Stage):
    """Those that wait at once; what runs is run to its end, for nobody."""
    batcher = await stage.batcher(batch=FOUR)
    gate = stage.script().hold()
    item = batcher.submit(rows(*range(16)), 16, None)
    await until(lambda: stage.script().running)
    batcher.forget(item)
    await turns()
    assert batcher.statistics().queued_rows == 0
    gate.set()
    assert await ask(batcher, 1) == [2.0]
    assert stage.script().runs == [(4,), (1,)]


async def test_a_request_that_is_not_batched_is_never_split(stage: Stage):
    """Its first axis does not count rows."""
    tensors = (TensorSpec("x", "FP32", (9, 2)),), (TensorSpec("y", "FP32", (9, 2)),)
    stage.script().signature = Signature(*tensors, batched=False)
    batcher = await stage.batcher(batch=FOUR)
    assert await ask(batcher, *range(9)) == [2.0 * value for value in range(9)]


async def test_parts_that_do_not_fit_together_are_an_error_and_not_a_wait_for_ever(stage: Stage):
    """A model whose output's width follows the values it sees."""
    stage.script().model = lambda inputs: {"y": np.zeros((len(inputs["x"]), int(inputs["x"][0, 0]) + 1))}
    batcher = await stage.batcher(batch=FOUR)
    with pytest.raises(ModelError, match="parts do not fit together"):
        await ask(batcher, *range(8))


async def busy(stage: Stage, **fields: object) -> tuple[object, asyncio.Event]:
    """A queue whose engine is held at work."""
    batcher = await stage.batcher(**fields)  # type: ignore[arg-type]
    gate = stage.script().hold()
    ask(batcher, 0)
    await until(lambda: stage.script().running)
    return batcher, gate


async def outcome(item: Item) -> list[float]:
    return first_column((await item.future).outputs)


async def test_a_full_queue_lets_higher_work_in_and_the_lowest_out_with_the_true_wait(stage: Stage):
    """Spare first, the newest first; equal work is refused."""
    batcher, gate = await busy(stage, batch=BatchPolicy(max_rows=1, queue_rows=3), curve=CostCurve(((1, 0.1),)))
    priorities = (Priority.NORMAL, Priority.LOW, Priority.SPARE)
    normal, low, spare = (batcher.submit(rows(1), 1, None, priority=priority) for priority in priorities)
    with pytest.raises(QueueFull):
        batcher.submit(rows(1), 1, None, priority=Priority.SPARE)
    high = [batcher.submit(rows(1), 1, None, priority=Priority.HIGH) for _ in range(2)]
    for pushed in (spare, low):
        with pytest.raises(QueueFull, match="gave way") as refusal:
            await pushed.future
        assert refusal.value.retry_after_s == pytest.approx(0.3)
    with pytest.raises(QueueFull, match="3 rows wait"):
        batcher.submit(rows(1), 1, None, priority=Priority.NORMAL)
    gate.set()
    assert [await outcome(item) for item in (*high, normal)] == [[2.0]] * 3


async def test_a_new_client_finds_room_in_a_queue_that_another_has_filled(stage: Stage):
    """And it is served in the next batch."""
    batcher, gate = await busy(stage, batch=BatchPolicy(max_rows=2, queue_rows=10))
    flood = [batcher.submit(rows(1), 1, None, client="flood") for _ in range(10)]
    with pytest.raises(QueueFull):
        batcher.submit(rows(1), 1, None, client="flood")
    newcomer = batcher.submit(rows(7), 1, None, client="newcomer")
    with pytest.raises(QueueFull, match="gave way"):
        await flood[-1].future
    gate.set()
    assert await outcome(newcomer) == [14.0]
    await asyncio.gather(*(item.future for item in flood[:-1]))


async def test_shadows_wait_until_nothing_else_does(stage: Stage):
    """They never share a batch with a client's request, which they would make longer."""
    batcher, gate = await busy(stage)
    shadow = batcher.submit(rows(1), 1, None, priority=Priority.SPARE)
    clients = [ask(batcher, 2), ask(batcher, 3)]
    await turns()
    gate.set()
    await asyncio.gather(*clients, shadow.future)
    assert stage.script().runs == [(1,), (1, 1), (1,)]


async def test_high_work_is_not_refused_for_the_low_work_that_waits(stage: Stage):
    """Only what is ahead counts towards the predicted wait."""
    batcher, gate = await busy(stage, batch=BatchPolicy(max_rows=1), curve=CostCurve(((1, 0.1),)))
    low = [batcher.submit(rows(1), 1, None, priority=Priority.LOW) for _ in range(10)]
    high = batcher.submit(rows(2), 1, stage.clock.monotonic() + 0.3, priority=Priority.HIGH)
    gate.set()
    assert await outcome(high) == [4.0]
    await asyncio.gather(*(item.future for item in low))


async def test_a_fault_of_the_queues_own_strands_nobody(stage: Stage):
    """Whatever breaks in forming a batch: who waits and who runs is told, and so is who comes later."""
    batcher, _ = await busy(stage)
    clients = [ask(batcher, 1)]
    await turns()

    def broken(*args: object, **fields: object) -> None:
        raise ZeroDivisionError("by design")

    batcher._queue.take = broken
    stage.script().gate.set()
    failures = await asyncio.gather(*clients, return_exceptions=True)
    assert "its queue stopped: ZeroDivisionError" in str(failures[0])
    with pytest.raises(VersionUnavailable, match="queue stopped"):
        batcher.submit(rows(1), 1, None)


async def test_ten_times_the_capacity_leaves_nine_tenths_of_the_goodput(stage: Stage):
    """Two thousand requests a second for a model that answers two hundred, with 200 ms each: what is let in is
    answered in time, and the engine is never idle nor busy with what is too late."""
    stage.script().depth = 2
    stage.script().delay_s = lambda _: 0.020
    batcher = await stage.batcher(batch=FOUR, curve=CostCurve(((1, 0.020), (4, 0.020))))
    items: list[Item] = []
    refused = 0
    for tick in range(4000):
        try:
            items.append(batcher.submit(rows(tick), 1, stage.clock.monotonic() + 0.2))
        except DeadlineUnreachable:
            refused += 1
        await turns(3)
        stage.clock.advance(0.0005)
        await turns(3)
    answered = [item for item in items if item.future.done() and item.future.exception() is None]
    late = [item for item in items if item.future.done() and item.future.exception() is not None]
    assert len(answered) >= 0.95 * 200 * 2.0 - 4 * 10
    assert len(late) <= 0.02 * len(items)
    assert refused > 3000


async def test_higher_work_that_comes_later_costs_the_goodput_nothing(stage: Stage):
    """It pushes back what was let in before it: what will be too late by then is given up before an engine takes it,
    or the engine would be busy with nothing but answers that come too late."""
    stage.script().depth = 2
    stage.script().delay_s = lambda _: 0.020
    batcher = await stage.batcher(batch=FOUR, curve=CostCurve(((1, 0.020), (4, 0.020))))
    items: list[Item] = []
    for tick in range(4000):
        priority = Priority.HIGH if tick % 50 == 0 else Priority.NORMAL
        with contextlib.suppress(DeadlineUnreachable):
            items.append(batcher.submit(rows(tick), 1, stage.clock.monotonic() + 0.2, priority=priority))
        await turns(3)
        stage.clock.advance(0.0005)
        await turns(3)
    answered = [item for item in items if item.future.done() and item.future.exception() is None]
    assert len(answered) >= 0.9 * 200 * 2.0 - 4 * 10
    assert sum(item.priority is Priority.HIGH for item in answered) >= 75
