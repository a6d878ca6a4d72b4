"""Jobs: their order, their ends, and what a restart knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.control.jobs import JobProgress, Jobs, JobState
from gateway.errors import Conflict, InvalidInput, NotFound, Overloaded, ServiceDraining
from tests.control.scene import until


async def opened(folder: Path, *, at_once: int = 2) -> Jobs:
    jobs = Jobs(folder, clock=ManualClock(), at_once=at_once)
    await jobs.open()
    return jobs


def held(gate: asyncio.Event, result: Mapping[str, Any] | None = None) -> Callable[[JobProgress], Awaitable[Any]]:
    async def work(progress: JobProgress) -> Mapping[str, Any]:
        progress.tell(1, 3, "rows")
        await gate.wait()
        progress.tell(3)
        return result or {}

    return work


async def test_a_job_says_how_far_it_is_and_ends_with_its_result(tmp_path: Path) -> None:
    """From queued to done, kept on disk when who waits is told."""
    jobs, gate = await opened(tmp_path), asyncio.Event()

    job = jobs.start("batch", "olga", held(gate, {"rows": 3}), title="digits@champion")
    await until(lambda: jobs.get(job.id).progress.done == 1)
    running = jobs.get(job.id).to_json()
    gate.set()
    result = await jobs.outcome(job)

    assert running["state"] == "running"
    assert running["progress"] == {"done": 1, "total": 3, "unit": "rows"}
    assert result == {"rows": 3}
    assert (await opened(tmp_path)).get(job.id) == jobs.get(job.id)
    assert jobs.get(job.id).state is JobState.DONE
    await jobs.close()


async def test_what_the_work_raised_is_the_jobs_problem_and_reaches_who_waits(tmp_path: Path) -> None:
    """Errors on purpose keep their meaning; a fault of our own is one, too, and ends nothing else."""
    jobs = await opened(tmp_path)

    async def refused(_: JobProgress) -> Mapping[str, Any]:
        raise InvalidInput("row 3, column x: expected a number")

    async def broken(_: JobProgress) -> Mapping[str, Any]:
        raise ZeroDivisionError("division by zero")

    first, second = jobs.start("batch", "olga", refused), jobs.start("batch", "olga", broken)

    with pytest.raises(InvalidInput, match="row 3"):
        await jobs.outcome(first)
    assert jobs.get(first.id).problem == {"kind": "invalid-input", "detail": "row 3, column x: expected a number"}
    failed = await jobs.ended(second.id)
    assert failed.state is JobState.FAILED
    assert "ZeroDivisionError" in (failed.problem or {})["detail"]
    await jobs.close()


async def test_only_a_few_run_at_once_and_of_some_kinds_one(tmp_path: Path) -> None:
    """What waits starts in order; a kind that runs one by one does not hold up others."""
    jobs, gates = await opened(tmp_path, at_once=2), [asyncio.Event() for _ in range(4)]

    made = [
        jobs.start("batch", "o", held(gates[0]), one_by_one=True),
        jobs.start("batch", "o", held(gates[1]), one_by_one=True),
        jobs.start("gates", "o", held(gates[2])),
        jobs.start("gates", "o", held(gates[3])),
    ]
    await until(lambda: [job.state for job in reversed(jobs.list())].count(JobState.RUNNING) == 2)
    before = [str(jobs.get(job.id).state) for job in made]
    gates[0].set()
    await until(lambda: jobs.get(made[1].id).state is JobState.RUNNING)

    assert before == ["running", "queued", "running", "queued"]
    assert jobs.get(made[3].id).state is JobState.QUEUED
    assert [job.id for job in jobs.list(kind="batch")] == [made[1].id, made[0].id]
    await jobs.close()


@pytest.mark.parametrize("turns", [0, 1, 5])
async def test_a_job_is_cancelled_wherever_it_is(tmp_path: Path, turns: int) -> None:
    """Queued, about to begin, running: its work ends first, then it is ``cancelled``, also after a restart."""
    jobs, gate = await opened(tmp_path, at_once=1), asyncio.Event()
    first, second = jobs.start("batch", "o", held(gate)), jobs.start("batch", "o", held(gate))
    for _ in range(turns):
        await asyncio.sleep(0)

    for job in (second, first):
        jobs.cancel(job.id)
    ends = [(await jobs.ended(job.id)).state for job in (first, second)]

    assert ends == [JobState.CANCELLED] * 2
    with pytest.raises(Conflict, match="has ended"):
        jobs.cancel(first.id)
    with pytest.raises(Conflict, match="cancelled"):
        await jobs.outcome(first)
    assert {job.state for job in (await opened(tmp_path)).list()} == {JobState.CANCELLED}
    await jobs.close()


async def test_work_in_a_thread_sees_that_it_was_cancelled(tmp_path: Path) -> None:
    """No cancellation reaches a thread, so the progress says it."""
    jobs, seen = await opened(tmp_path), []

    def spin(progress: JobProgress) -> None:
        seen.append("began")
        while not progress.stopped:
            pass
        seen.append("stopped")

    async def work(progress: JobProgress) -> Mapping[str, Any]:
        await asyncio.to_thread(spin, progress)
        return {}

    job = jobs.start("batch", "o", work)
    await until(lambda: seen)
    jobs.cancel(job.id)
    await until(lambda: len(seen) == 2)

    assert (await jobs.ended(job.id)).state is JobState.CANCELLED
    await jobs.close()


async def test_what_ran_when_the_gateway_ended_is_interrupted(tmp_path: Path) -> None:
    """Killed, no word of the end is written: the next start says it. Ended in order, it is written at once."""
    killed, gate = await opened(tmp_path, at_once=1), asyncio.Event()
    running = killed.start("batch", "o", held(gate))
    await until((tmp_path / f"{running.id}.json").exists)

    after_kill = await opened(tmp_path)
    await killed.close()

    assert after_kill.get(running.id).state is JobState.INTERRUPTED
    assert killed.get(running.id).state is JobState.INTERRUPTED
    with pytest.raises(ServiceDraining):
        killed.start("batch", "o", held(gate))


async def test_a_damaged_record_is_left_out_and_unknown_jobs_are_not_found(tmp_path: Path) -> None:
    """One bad file takes no other job away."""
    (tmp_path / "0123-bad.json").write_bytes(b"{")
    jobs = await opened(tmp_path)

    assert jobs.list() == []
    with pytest.raises(NotFound, match="belong to the replica"):
        jobs.get("0123-bad")


async def test_more_jobs_than_can_ever_be_run_are_refused(tmp_path: Path) -> None:
    """The line is bounded, and says so."""
    jobs, gate = await opened(tmp_path, at_once=1), asyncio.Event()
    for _ in range(101):
        jobs.start("batch", "o", held(gate))

    with pytest.raises(Overloaded, match="100 jobs wait"):
        jobs.start("batch", "o", held(gate))
    gate.set()
    await jobs.close()
