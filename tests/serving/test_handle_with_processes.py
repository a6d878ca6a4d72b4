"""The claims of serving once more, with real child processes, killed and hung for real."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from gateway.clock import SystemClock
from gateway.errors import InvalidInput, LoadError, ModelError, VersionCrashed, VersionFailed, VersionHung
from gateway.events.observer import RecordingObserver
from gateway.messages import VersionRef
from gateway.serving.engine import BatchPolicy, VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.handle import Handle, VersionState
from gateway.serving.placement import engine_factory
from runtimes.base import LoadSpec
from tests.runtimes.versions import load_spec
from tests.serving.processes import children

REF = VersionRef("echo", 1)
BAD = 13.0
WIDE = BatchPolicy(max_rows=32, hang_floor_ms=30_000)
"""A busy machine may stop a child for a while; only the hang tests want to be quick about it."""


@pytest.fixture
async def forks() -> AsyncIterator[ForkServer]:
    server = ForkServer(preload=())
    yield server
    await server.close()


@asynccontextmanager
async def serving(
    forks: ForkServer, *, batch: BatchPolicy = WIDE, observer: RecordingObserver | None = None, **options: Any
) -> AsyncIterator[Handle]:
    spec = VersionSpec(REF, "sha256:0", LoadSpec("echo", "", (), options=options), batch=batch)
    watching = observer or RecordingObserver()
    handle = Handle(spec, engine_factory(forks), clock=SystemClock(), observer=watching)
    await handle.start()
    try:
        yield handle
    finally:
        await handle.kill()


def ask(handle: Handle, value: float, count: int = 1) -> asyncio.Task[float]:
    async def client() -> float:
        answer = await handle.infer({"x": np.full((count, 4), value, np.float32)}, count, None)
        assert answer.outputs["y"].shape == (count, 4)
        return float(answer.outputs["y"][0, 0])

    return asyncio.ensure_future(client())


async def until(condition: Any) -> None:
    """Waits for something that another process does."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - another process makes it true
            await asyncio.sleep(0.01)


async def answered(handle: Handle, value: float) -> float:
    """Where the limit is short, a child that the machine has stopped for a while counts as hung as well."""
    async with asyncio.timeout(60):
        while True:
            await until(lambda: handle.ready)
            with suppress(VersionFailed):
                return await ask(handle, value)


@pytest.mark.parametrize(
    ("option", "failure"), [("crash", VersionCrashed), ("fail", ModelError), ("invalid", InvalidInput)]
)
async def test_the_one_bad_row_of_a_batch_fails_alone(forks: ForkServer, option: str, failure: type[Exception]):
    """It kills the process, makes the model raise, or is refused: its neighbours get what they asked for."""
    async with serving(forks, **{option: {"equals": BAD}}) as handle:
        clients = [ask(handle, value) for value in (1, 2, BAD, 4)]
        outcomes = await asyncio.gather(*clients, return_exceptions=True)
        assert isinstance(outcomes[2], failure)
        assert [outcomes[0], outcomes[1], outcomes[3]] == [1.0, 2.0, 4.0]
        assert await ask(handle, 5) == 5.0


async def test_a_client_that_leaves_a_running_batch_leaves_its_neighbours_answered(forks: ForkServer):
    """Four in a batch, one disconnects."""
    async with serving(forks, delay_ms=20) as handle:
        clients = [ask(handle, value) for value in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        clients[2].cancel()
        assert await asyncio.gather(clients[0], clients[1], clients[3]) == [1.0, 2.0, 4.0]
        assert clients[2].cancelled()


async def test_killing_the_child_again_and_again_under_load_loses_no_answer(forks: ForkServer):
    """``kill -9`` five times while clients keep asking: every answer comes, and is right."""
    async with serving(forks, delay_ms=1) as handle:
        enough = asyncio.Event()
        answers = 0

        async def client(value: float) -> None:
            nonlocal answers
            while not enough.is_set():
                assert await ask(handle, value) == value
                answers += 1

        clients = [asyncio.ensure_future(client(float(value))) for value in range(20, 28)]
        for kill in range(1, 6):
            goal = answers + 50
            await until(lambda goal=goal: answers >= goal)
            pid = handle.statistics().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda kill=kill: handle.statistics().restarts >= kill and handle.ready)
        enough.set()
        await asyncio.gather(*clients)
        assert handle.statistics().deaths == 5


TELLS_ITS_PRIORITY = b"""
import os
SIGNATURE = {"inputs": [{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}],
             "outputs": [{"name": "y", "datatype": "FP32", "shape": ["batch", 4]}]}
class Model:
    def __init__(self, files):
        with open(files.read("told").decode(), "a") as told:
            told.write(f"{os.sched_getscheduler(0)} {os.getpriority(os.PRIO_PROCESS, 0)}\\n")
    def predict(self, inputs):
        return {"y": inputs["x"]}
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is sure to be allowed back from the idle class")
async def test_a_child_that_takes_the_place_of_one_that_died_does_not_load_behind_all_others(
    forks: ForkServer, tmp_path: Path
):
    """A first load waits for idle processors; that one does not, since requests wait for it."""
    told = tmp_path / "told"
    files = {"model.py": TELLS_ITS_PRIORITY, "told": str(told).encode()}
    load = load_spec(tmp_path, "python", "model.py", files)
    handle = Handle(
        VersionSpec(REF, "sha256:0", load, batch=WIDE),
        engine_factory(forks),
        clock=SystemClock(),
        observer=RecordingObserver(),
    )
    await handle.start()
    try:
        os.kill(handle.statistics().pid or 0, signal.SIGKILL)
        assert await answered(handle, 3) == 3.0
    finally:
        await handle.kill()
    first, second = (tuple(map(int, line.split())) for line in told.read_text().splitlines())
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert (first[0], second) == (os.SCHED_IDLE, (os.SCHED_OTHER, min(19, mine + 10)))


async def test_a_child_that_hangs_is_killed_and_the_version_goes_on(forks: ForkServer, tmp_path: Path):
    """Those who wait for it hear VersionHung; once it no longer hangs, the version answers again."""
    control = tmp_path / "control.json"
    observer = RecordingObserver()
    async with serving(forks, batch=BatchPolicy(hang_floor_ms=2000), observer=observer, control=str(control)) as handle:
        first = handle.statistics().pid
        control.write_text('{"hang": "always"}')
        outcomes = await asyncio.gather(ask(handle, 1), ask(handle, 2), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [VersionHung, VersionHung]
        assert first is not None
        assert not psutil.pid_exists(first)
        control.write_text("{}")
        assert await answered(handle, 3) == 3.0
        assert (REF, "hang", False) in observer.crashes


async def test_a_version_that_no_longer_starts_refuses_at_once_and_comes_back(forks: ForkServer, tmp_path: Path):
    """It dies at each inference, its own rehearsal included: no client is kept waiting for the back-off."""
    control = tmp_path / "control.json"
    async with serving(forks, control=str(control)) as handle:
        control.write_text('{"crash": "always"}')
        with pytest.raises(VersionFailed):
            await ask(handle, 1)
        await until(lambda: "next try in" in handle.reason)
        assert handle.state is VersionState.ACTIVE
        assert not handle.ready
        control.write_text("{}")
        await until(lambda: handle.ready)
        assert await ask(handle, 2) == 2.0


async def test_a_large_request_on_a_small_device_is_cut_by_rows(forks: ForkServer):
    """Ten rows where three fit, sharing a queue with others."""
    async with serving(forks, oom_above_rows=3) as handle:
        assert handle.statistics().max_rows == 2
        assert await asyncio.gather(ask(handle, 7, count=10), ask(handle, 8)) == [7.0, 8.0]


async def test_cancelling_a_load_and_failing_one_leave_no_child(forks: ForkServer):
    """Everything is given back."""
    async with serving(forks):
        pass
    before = {child.pid for child in children()}
    for options, ends_by_itself in (({"load_delay_ms": 60_000}, False), ({"fail_load": "no"}, True)):
        spec = VersionSpec(REF, "sha256:0", LoadSpec("echo", "", (), options=options))
        handle = Handle(spec, engine_factory(forks), clock=SystemClock(), observer=RecordingObserver())
        starting = asyncio.ensure_future(handle.start())
        if ends_by_itself:
            with pytest.raises(LoadError, match="no"):
                await starting
        else:
            await until(lambda: {child.pid for child in children()} - before)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
        assert handle.state is VersionState.FAILED
        await until(lambda: {child.pid for child in children()} <= before)
