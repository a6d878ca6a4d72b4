"""The queue: who gets answered, when, with whom; and what a client that leaves does to others (nothing)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import DeadlineExceeded, DeadlineUnreachable, ModelError, QueueFull, VersionUnavailable
from gateway.messages import Arrays, Signature, TensorSpec
from gateway.serving.cost import CostCurve
from gateway.serving.engine import BatchPolicy
from gateway.serving.scripted_engine import double
from tests.serving.stage import DIGITS, Stage, ask, rows, turns, until


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


async def test_a_client_that_leaves_a_running_batch_of_four_leaves_its_neighbours_answered(stage: Stage):
    """MLServer's fault: there the other three never hear anything again."""
    batcher = await stage.batcher()
    gate = stage.script().hold()
    blocker = ask(batcher, 0)
    await until(lambda: stage.script().running)
    clients = [ask(batcher, value) for value in (1, 2, 3, 4)]
    await turns()
    gate.set()
    stage.script().hold()
    await until(lambda: stage.script().runs[-1] == (1, 1, 1, 1))
    clients[1].cancel()
    await turns()
    stage.script().gate.set()
    assert await asyncio.gather(blocker, clients[0], clients[2], clients[3]) == [[0.0], [2.0], [6.0], [8.0]]
    assert clients[1].cancelled()


async def test_a_client_that_leaves_the_queue_takes_its_rows_with_it(stage: Stage):
    """Its work is never run, and the room it took is free at once."""
    batcher = await stage.batcher()
    gate = stage.script().hold()
    ask(batcher, 0)
    await until(lambda: stage.script().running)
    staying, leaving = ask(batcher, 1), ask(batcher, 2, 2, 2)
    await turns()
    assert batcher.statistics().queued_rows == 4
    leaving.cancel()
    await turns()
    assert batcher.statistics().queued_rows == 1
    assert stage.observer.depths[-1] == 1
    gate.set()
    assert await staying == [2.0]
    assert stage.script().runs == [(1,), (1,)]


async def test_a_free_engine_takes_what_waits_at_once_and_a_busy_one_lets_it_gather(stage: Stage):
    """No delay is ever added: time stands still here, and everything is answered."""
    batcher = await stage.batcher()
    gate = stage.script().hold()
    clients = [ask(batcher, 0)]
    await until(lambda: stage.script().running)
    clients += [ask(batcher, value) for value in range(1, 10)]
    await turns()
    assert repr(batcher) == "<Batcher digits/3 [active | 9 queued | 1 running]>"
    gate.set()
    assert await asyncio.gather(*clients) == [[2.0 * value] for value in range(10)]
    assert stage.script().runs == [(1,), (1,) * 9]
    assert repr(batcher) == "<Batcher digits/3 [active | 0 queued | 0 running]>"


async def test_rows_are_counted_not_requests(stage: Stage):
    """Two requests of 20 rows do not share a batch of 32, and one of 40 takes two."""
    batcher = await stage.batcher(batch=BatchPolicy(max_rows=32))
    gate = stage.script().hold()
    first = ask(batcher, 0)
    await until(lambda: stage.script().running)
    clients = [ask(batcher, *[value] * count) for value, count in ((1, 20), (2, 20), (3, 12), (4, 40), (5, 1))]
    await turns()
    gate.set()
    answers = await asyncio.gather(first, *clients)
    assert [len(answer) for answer in answers] == [1, 20, 20, 12, 40, 1]
    assert stage.script().runs == [(1,), (20,), (20, 12), (32,), (8, 1)]


async def test_shapes_that_do_not_fit_together_never_share_a_batch(stage: Stage):
    """The oldest group goes first; nobody's shape costs anybody an error."""
    batcher = await stage.batcher()
    gate = stage.script().hold()
    ask(batcher, 0)
    await until(lambda: stage.script().running)
    clients = [ask(batcher, value, width=width) for value, width in ((1, 2), (2, 3), (3, 2), (4, 3))]
    await turns()
    gate.set()
    assert await asyncio.gather(*clients) == [[2.0], [4.0], [6.0], [8.0]]
    assert stage.script().runs == [(1,), (1, 1), (1, 1)]


async def test_requests_of_a_version_that_is_not_batched_run_one_by_one(stage: Stage):
    """Their first axis does not count rows, so there is nothing to join along."""
    tensors = (TensorSpec("x", "FP32", (2, 2)),), (TensorSpec("y", "FP32", (2, 2)),)
    stage.script().signature = Signature(*tensors, batched=False)
    batcher = await stage.batcher()
    gate = stage.script().hold()
    clients = [ask(batcher, value, value) for value in (1, 2, 3)]
    await until(lambda: stage.script().running)
    gate.set()
    assert await asyncio.gather(*clients) == [[2.0, 2.0], [4.0, 4.0], [6.0, 6.0]]
    assert len(stage.script().runs) == 3


async def test_an_item_that_waits_past_its_deadline_is_told_so_at_its_deadline(stage: Stage):
    """While the engine is still busy with somebody else."""
    batcher = await stage.batcher()
    gate = stage.script().hold()
    running = ask(batcher, 0)
    await until(lambda: stage.script().running)
    now = stage.clock.monotonic()
    late, patient = ask(batcher, 1, deadline=now + 0.25), ask(batcher, 2, deadline=now + 0.5)
    await turns()
    stage.clock.advance(0.1875)
    await turns()
    assert not late.done()
    stage.clock.advance(0.0625)
    with pytest.raises(DeadlineExceeded, match=r"digits/3 did not answer before the deadline, 0\.250 s"):
        await late
    assert batcher.statistics().queued_rows == 1
    gate.set()
    assert await running == [0.0]
    assert await patient == [4.0]
    assert stage.script().runs == [(1,), (1,)]


async def test_an_item_that_runs_past_its_deadline_is_told_so_and_its_neighbours_wait_on(stage: Stage):
    """The batch goes on for those who still wait for it."""
    batcher = await stage.batcher()
    gate = stage.script().hold()
    now = stage.clock.monotonic()
    late, patient = ask(batcher, 1, deadline=now + 0.125), ask(batcher, 2)
    await until(lambda: stage.script().running)
    stage.clock.advance(0.125)
    with pytest.raises(DeadlineExceeded):
        await late
    gate.set()
    assert await patient == [4.0]


async def test_deadlines_far_and_near_ring_in_their_order(stage: Stage):
    """A nearer deadline that comes later moves the alarm; a farther one is not forgotten."""
    batcher = await stage.batcher(batch=BatchPolicy(hang_floor_ms=60_000))
    stage.script().hold()
    now = stage.clock.monotonic()
    clients = {wait: ask(batcher, 1, deadline=now + wait) for wait in (3, 1, 2)}
    await until(lambda: stage.script().running)
    for second in (1, 2, 3):
        stage.clock.advance(1)
        await turns()
        assert {wait for wait, client in clients.items() if client.done()} == set(range(1, second + 1))
    assert all(isinstance(client.exception(), DeadlineExceeded) for client in clients.values())


async def test_a_deadline_already_passed_is_refused_at_the_door(stage: Stage):
    """It is not queued."""
    batcher = await stage.batcher()
    with pytest.raises(DeadlineExceeded, match="had passed"):
        await batcher.infer(rows(1), 1, stage.clock.monotonic() - 0.5)
    assert stage.script().runs == []


async def test_a_full_queue_is_refused_with_the_wait_it_really_has(stage: Stage):
    """Ten rows wait at a measured 20 ms a row: come back in 0.2 s."""
    batcher = await stage.batcher(batch=BatchPolicy(queue_rows=10), curve=CostCurve(((1, 0.02),)))
    gate = stage.script().hold()
    clients = [ask(batcher, 0)]
    await until(lambda: stage.script().running)
    clients += [ask(batcher, *range(7)), ask(batcher, *range(3))]
    await turns()
    with pytest.raises(QueueFull, match="10 rows wait, 1 more would pass the limit of 10") as refusal:
        await ask(batcher, 1)
    assert refusal.value.retry_after_s == pytest.approx(0.2)
    gate.set()
    await asyncio.gather(*clients)
    assert await ask(batcher, 1) == [2.0]


async def test_what_would_be_answered_too_late_is_refused_at_the_door(stage: Stage):
    """100 ms a row, one row a batch: within 350 ms an engine that has just begun answers three, the fourth is told."""
    batcher = await stage.batcher(batch=BatchPolicy(max_rows=1), curve=CostCurve(((1, 0.1),)))
    stage.script().delay_s = lambda rows: 0.1 * rows
    deadline = stage.clock.monotonic() + 0.35
    admitted = [ask(batcher, 0, deadline=deadline)]
    await until(lambda: stage.script().running)
    admitted += [ask(batcher, number, deadline=deadline) for number in (1, 2)]
    await turns()
    with pytest.raises(DeadlineUnreachable, match="2 rows wait") as refusal:
        await ask(batcher, 3, deadline=deadline)
    assert refusal.value.retry_after_s == pytest.approx(0.07)
    patient = ask(batcher, 4)
    for number in range(4):
        await until(lambda number=number: len(stage.script().runs) == number + 1)
        stage.clock.advance(0.1)
        await turns()
    assert await asyncio.gather(*admitted, patient) == [[0.0], [2.0], [4.0], [8.0]]


async def test_a_free_engine_refuses_nothing_for_its_deadline(stage: Stage):
    """A model known to be slower than the deadline is asked all the same when nothing waits: it may be quicker."""
    batcher = await stage.batcher(curve=CostCurve(((1, 5.0),)))
    assert await ask(batcher, 1, deadline=stage.clock.monotonic() + 0.1) == [2.0]


async def test_the_wait_told_follows_the_pace_of_the_last_batches(stage: Stage):
    """The drain rate is measured, not assumed."""
    batcher = await stage.batcher(batch=BatchPolicy(queue_rows=4), curve=CostCurve(((1, 5.0),)))
    stage.script().delay_s = lambda rows: 0.1 * rows
    for _ in range(60):
        client = ask(batcher, 1)
        await until(lambda: stage.script().running)
        stage.clock.advance(0.1)
        await client
    stage.script().delay_s = None
    stage.script().hold()
    waiting = [ask(batcher, 1)]
    await until(lambda: stage.script().running)
    waiting.append(ask(batcher, 1, 2, 3, 4))
    await turns()
    with pytest.raises(QueueFull) as refusal:
        await ask(batcher, 1)
    assert refusal.value.retry_after_s == pytest.approx(0.4, rel=0.01)
    stage.script().gate.set()
    assert await waiting[1] == [2.0, 4.0, 6.0, 8.0]


async def test_a_route_may_lower_the_bound_of_the_queue_for_its_own_requests(stage: Stage):
    """And only for its own."""
    batcher = await stage.batcher()
    stage.script().hold()
    ask(batcher, 0)
    await until(lambda: stage.script().running)
    waiting = ask(batcher, 1, 2)
    await turns()
    with pytest.raises(QueueFull, match="limit of 2"):
        await batcher.infer(rows(3), 1, None, queue_rows=2)
    other = ask(batcher, 3)
    await turns()
    assert batcher.statistics().queued_rows == 3
    stage.script().gate.set()
    assert await asyncio.gather(waiting, other) == [[2.0, 4.0], [6.0]]


async def test_an_item_larger_than_the_queue_is_taken_when_nothing_waits(stage: Stage):
    """Otherwise it could never be answered at all."""
    batcher = await stage.batcher(batch=BatchPolicy(max_rows=2, queue_rows=4))
    assert await ask(batcher, *range(6)) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


async def test_outputs_that_cannot_be_split_fail_the_batch_and_everybody_hears_of_it(stage: Stage):
    """MLS#1306: answers handed to the wrong callers, and some never. Here each gets an exception of its own."""
    batcher = await stage.batcher()
    stage.script().model = lambda inputs: {"y": double(inputs)["y"][:-1]}
    gate = stage.script().hold()
    ask(batcher, 0)
    await until(lambda: stage.script().running)
    clients = [ask(batcher, value) for value in (1, 2, 3)]
    await turns()
    gate.set()
    failures = await asyncio.gather(*clients, return_exceptions=True)
    assert [type(failure) for failure in failures] == [ModelError] * 3
    assert len({id(failure) for failure in failures}) == 3
    assert "2, 2) for a batch of 3 rows" in str(failures[0])


async def test_a_fault_of_the_engine_itself_reaches_every_item_as_a_model_error(stage: Stage):
    """The batch boundary: even what nobody foresaw strands nobody, and the queue goes on."""
    batcher = await stage.batcher()

    def surprise(inputs: Arrays) -> Arrays:
        raise ZeroDivisionError("by design")

    stage.script().model = surprise
    failures = await asyncio.gather(*(ask(batcher, value) for value in (1, 2)), return_exceptions=True)
    for failure in failures:
        assert isinstance(failure, ModelError)
        assert "ZeroDivisionError: by design" in str(failure)
        assert failure.__cause__ is not None
        assert isinstance(failure.__cause__.__cause__, ZeroDivisionError)
    stage.script().model = double
    assert await ask(batcher, 4) == [8.0]


async def test_closing_answers_everybody_and_ends_the_engine(stage: Stage):
    """What runs and what waits alike get VersionUnavailable, so that a fallback may answer."""
    batcher = await stage.batcher()
    stage.script().hold()
    clients = [ask(batcher, 0)]
    await until(lambda: stage.script().running)
    clients.append(ask(batcher, 1))
    await turns()
    await batcher.close("it was rolled back")
    failures = await asyncio.gather(*clients, return_exceptions=True)
    assert [str(failure) for failure in failures] == ["digits/3 is gone: it was rolled back"] * 2
    assert all(isinstance(failure, VersionUnavailable) for failure in failures)
    assert stage.script().alive == 0
    with pytest.raises(VersionUnavailable, match="rolled back"):
        await batcher.infer(rows(1), 1, None)
    assert repr(batcher) == "<Batcher digits/3 [closed | 0 queued | 0 running]>"


async def test_closing_answers_everybody_before_the_engine_is_gone(stage: Stage):
    """A process that holds a device takes its time to end; who waits goes to the fallback meanwhile."""
    batcher = await stage.batcher()
    stage.script().hold()
    stage.script().end_gate = asyncio.Event()
    clients = [ask(batcher, 0)]
    await until(lambda: stage.script().running)
    clients.append(ask(batcher, 1))
    await turns()
    closing = asyncio.ensure_future(batcher.close("it was rolled back"))
    await until(lambda: all(client.done() for client in clients))
    assert [type(client.exception()) for client in clients] == [VersionUnavailable] * 2
    assert not closing.done()
    stage.script().end_gate.set()
    await closing


async def test_an_answer_names_its_time_in_the_queue_and_in_the_engine(stage: Stage):
    """0.3 s behind another batch, then 0.2 s of its own; the observer hears the same."""
    batcher = await stage.batcher()
    stage.script().delay_s = lambda rows: 0.3 if rows == 1 else 0.2
    first = ask(batcher, 0)
    await until(lambda: stage.script().running)
    second = asyncio.ensure_future(batcher.infer(rows(1, 2), 2, None))
    await turns()
    stage.clock.advance(0.3)
    await first
    await until(lambda: stage.script().running)
    stage.clock.advance(0.2)
    answer = await second
    assert answer.queue_s == pytest.approx(0.3)
    assert answer.compute_s == pytest.approx(0.2)
    record = stage.observer.batches[-1]
    assert (record.version, record.rows, record.items, record.failure) == (DIGITS, 2, 1, None)
    assert record.waits_s == pytest.approx((0.3,))
    assert record.compute_s == pytest.approx(0.2)
    statistics = batcher.statistics()
    assert (statistics.answered, statistics.failed, statistics.batches, statistics.rows) == (2, 0, 2, 3)
    assert stage.successes == 2


async def test_a_batch_is_given_ten_times_its_warm_cost_but_never_less_than_the_floor(stage: Stage):
    """``limit_s`` of a run: the larger of the policy's floor and ten times the predicted cost."""
    batcher = await stage.batcher(batch=BatchPolicy(hang_floor_ms=1200), curve=CostCurve(((1, 0.1), (4, 0.2))))
    await ask(batcher, 1)
    await ask(batcher, 1, 2, 3, 4)
    assert stage.script().limits_s == pytest.approx([1.2, 2.0])


async def test_the_queue_waits_without_turning(stage: Stage):
    """No polling: an idle queue has no timer and its loop is not scheduled."""
    batcher = await stage.batcher()
    await ask(batcher, 1)
    await turns()
    assert [timer for _, _, timer in stage.clock._timers if not timer.cancelled] == []
    assert batcher.idle
    await batcher.drained()


async def test_a_large_item_is_offered_to_its_engine_as_it_arrives_and_a_small_one_is_not(stage: Stage):
    """While a batch runs, the rows of the next are copied to where it will lie; it is launched with less to do then."""
    batcher = await stage.batcher(batch=BatchPolicy(queue_rows=100_000))
    gate = stage.script().hold()
    blocker = ask(batcher, 0)
    await until(lambda: stage.script().running)
    small, large = ask(batcher, 1), ask(batcher, *[2] * 40_000)
    await turns()
    assert stage.script().staged == [40_000]
    gate.set()
    await asyncio.gather(blocker, small)
    assert (await large)[:2] == [4.0, 4.0]


async def test_an_answer_names_its_batch_and_the_rows_computed_with_it(stage: Stage):
    """Who shares a batch is known by its number; a request run in parts names its first, and all of their rows."""
    batcher = await stage.batcher(batch=BatchPolicy(max_rows=4))
    gate = stage.script().hold()
    first = asyncio.ensure_future(batcher.infer(rows(0), 1, None))
    await until(lambda: stage.script().running)
    others = [asyncio.ensure_future(batcher.infer(rows(value), 1, None)) for value in (1, 2)]
    large = asyncio.ensure_future(batcher.infer(rows(1, 2, 3, 4, 5, 6), 6, None))
    gate.set()
    alone, one, two, parted = await asyncio.gather(first, *others, large)
    assert one.batch == two.batch != alone.batch
    assert alone.batch > 0
    assert parted.batch in {one.batch, two.batch + 1}
    assert (alone.batch_rows, one.batch_rows, two.batch_rows) == (1, one.batch_rows, one.batch_rows)
    assert one.batch_rows > 1
    assert parted.batch_rows >= 6
