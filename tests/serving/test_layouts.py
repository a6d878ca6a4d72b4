"""Whose rows are whose, when arrays of one shape lie in memory in every way they can, and children die meanwhile."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import numpy as np
import pytest

from gateway.clock import SystemClock
from gateway.events.observer import RecordingObserver
from gateway.messages import Array, Arrays, VersionRef
from gateway.serving.engine import BatchPolicy, VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.handle import Handle
from gateway.serving.placement import engine_factory
from runtimes.base import LoadSpec
from tests.runtimes.versions import signature
from tests.serving.processes import eventually

INPUTS = {"x": ("FP32", ("batch", "w")), "s": ("BYTES", ("batch",)), "z": ("INT64", ("batch", 3, "k"))}
OUTPUTS = {"a": ("FP32", ("batch", "w")), "b": ("BYTES", ("batch",)), "c": ("INT64", ("batch", 3, "k"))}
CLIENTS, EACH = 24, 25


def laid_out(array: Array, way: int) -> Array:
    """The same numbers: by column, with gaps, at an odd address and read-only, backwards, or as they are."""
    if way == 0:
        return np.asfortranarray(array)
    if way == 1:
        wide = np.zeros((*array.shape[:-1], array.shape[-1] * 2), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if way == 2:
        return np.frombuffer(b"\0" + array.tobytes(), array.dtype, array.size, 1).reshape(array.shape)
    return array[::-1].copy()[::-1] if way == 3 else array


def request(chance: random.Random, name: str) -> tuple[Arrays, int]:
    rows, width, depth = chance.choice([1, 1, 1, 2, 3, 7, 40]), chance.choice([1, 4, 4, 300]), chance.choice([1, 2])
    texts = np.empty(rows, object)
    texts[:] = [f"{name}/{row} ".encode() * chance.randrange(4) for row in range(rows)]
    numbers = np.random.default_rng(chance.randrange(2**32))
    x = numbers.random((rows, width), np.float32)
    z = numbers.integers(-(2**62), 2**62, (rows, 3, depth))
    return {"x": laid_out(x, chance.randrange(5)), "s": texts, "z": laid_out(z, chance.randrange(5))}, rows


@pytest.mark.parametrize("placement", ["process", "inline"])
async def test_each_caller_gets_its_own_rows_however_its_arrays_lie_in_memory(placement: str):
    """Some callers leave, and (placement process) the child is killed three times: nobody gets another's answer."""
    forks = ForkServer(preload=())
    load = LoadSpec("echo", "", (), signature=signature(INPUTS, OUTPUTS), options={"delay_per_row_ms": 0.05})
    policy = BatchPolicy(max_rows=16, hang_floor_ms=30_000)
    spec = VersionSpec(VersionRef("echo", 1), "sha256:0", load, placement=placement, batch=policy)
    observer = RecordingObserver()
    handle = Handle(spec, engine_factory(forks), clock=SystemClock(), observer=observer)
    await handle.start()
    answered = 0

    async def client(number: int) -> None:
        nonlocal answered
        chance = random.Random(number)
        for turn in range(EACH):
            inputs, rows = request(chance, f"{number}/{turn}")
            asked = asyncio.ensure_future(handle.infer(inputs, rows, None))
            if chance.random() < 0.1:
                await asyncio.sleep(0)
                asked.cancel()
                await asyncio.wait({asked})
                continue
            outputs = (await asked).outputs
            for given, got in zip(INPUTS, OUTPUTS, strict=True):
                assert outputs[got].tolist() == inputs[given].tolist()
            answered += 1

    async def killer() -> None:
        for death in range(1, 4):
            await eventually(lambda goal=death: answered >= goal * CLIENTS * EACH // 5)
            pid = handle.statistics().pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)

    await asyncio.gather(
        *(client(number) for number in range(CLIENTS)), *([killer()] if placement == "process" else [])
    )
    assert answered > CLIENTS * EACH * 0.8
    assert max(batch.items for batch in observer.batches) > 1
    await handle.retire()
    await forks.close()
