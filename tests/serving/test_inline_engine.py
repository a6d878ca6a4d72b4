"""A version inside the gateway process."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import (
    DeviceMemoryExhausted,
    IntegrityError,
    InvalidInput,
    LoadError,
    ModelError,
    NotBegun,
    VersionHung,
)
from gateway.messages import VersionRef
from gateway.serving.engine import VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.placement import engine_factory
from runtimes.base import LoadSpec
from tests.runtimes.versions import load_spec
from tests.serving.processes import LONG_S, eventually, overwrite


def echo(**options: Any):
    return LoadSpec("echo", "", (), options=options)


def made(load: LoadSpec):
    return engine_factory(ForkServer())(VersionSpec(VersionRef("tiny", 1), "sha256:0", load, placement="inline"), print)


@asynccontextmanager
async def running(load: LoadSpec):
    engine = made(load)
    info = await engine.start()
    try:
        yield engine, info
    finally:
        await engine.close()


def rows(count: Any = 2, value: Any = 1.0):
    return {"x": np.full((count, 4), value, np.float32)}


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("inline")]


async def test_a_batch_is_joined_and_answered_off_the_loop():
    """Same faces as a child: info, result, cost; its one thread ends with it."""
    async with running(echo(delay_ms=5)) as (engine, info):
        assert (info.pid, info.device) == (None, "cpu")
        result = await engine.run([rows(2, 1), rows(1, 2)], limit_s=LONG_S)
        assert result.outputs["y"].tolist() == [[1] * 4] * 2 + [[2] * 4]
        assert result.compute_s >= 0.005
        assert threads() == ["inline tiny/1"]
        assert repr(engine) == "<InlineEngine tiny/1 [loaded]>"
    await eventually(lambda: not threads())
    assert engine.memory_bytes() == 0
    with pytest.raises(NotBegun, match="closed"):
        await engine.run([rows()], limit_s=LONG_S)


async def test_answers_are_not_the_callers_input():
    """An echo gives back what it got: the answer must not change with it."""
    async with running(echo()) as (engine, _):
        given = rows()
        answer = (await engine.run([given], limit_s=LONG_S)).outputs["y"]
        given["x"][:] = 9
        assert (answer == 1).all()


async def test_failures_keep_their_kind(tmp_path: Path):
    """As with a child."""
    control = tmp_path / "control.json"
    async with running(echo(control=str(control))) as (engine, _):
        for script, error in [
            ({"fail": "always"}, ModelError),
            ({"invalid": "always"}, InvalidInput),
            ({"oom_above_rows": 1}, DeviceMemoryExhausted),
        ]:
            control.write_text(json.dumps(script))
            with pytest.raises(error, match=r"tiny/1: .*scripted"):
                await engine.run([rows()], limit_s=LONG_S)
        control.write_text("{}")
        assert await engine.run([rows()], limit_s=LONG_S)
        with pytest.raises(InvalidInput, match="'x' is missing"):
            await engine.run([{}], limit_s=LONG_S)


async def test_loads_that_fail_say_why(tmp_path: Path):
    """Wrong bytes, wrong script; and no thread stays."""
    load = load_spec(tmp_path, "echo", "m.echo", {"m.echo": b"{}"})
    overwrite(load.files[0].path, b"{ }")
    for bad, error in [(load, IntegrityError), (echo(fail_load="no"), LoadError), (echo(nonsense=1), LoadError)]:
        with pytest.raises(error, match="tiny/1: "):
            await made(bad).start()
    await eventually(lambda: not threads())


async def test_a_batch_beyond_its_limit_gives_the_engine_up(tmp_path: Path):
    """A thread cannot be killed: the engine ends, the gateway goes on. So does a cancelled one."""
    async with running(echo(delay_ms=300)) as (engine, _):
        with pytest.raises(VersionHung, match="its thread was given up"):
            await engine.run([rows()], limit_s=0.01)
        with pytest.raises(NotBegun):
            await engine.run([rows()], limit_s=0.01)
    async with running(echo(delay_ms=300)) as (engine, _):
        work = asyncio.ensure_future(engine.run([rows()], limit_s=LONG_S))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    await eventually(lambda: not threads())


@pytest.mark.parametrize("last_deed", ["raise RuntimeError('I will not go')", "held.wait()"])
async def test_a_model_that_makes_trouble_at_its_end_is_ended_all_the_same(tmp_path: Path, last_deed: str):
    """Its ``close`` raises, or never returns: retiring the version, and the gateway's own end, must not hang on it."""
    source = f"""
import threading
held = threading.Event()
SIGNATURE = {{"inputs": [{{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}}],
             "outputs": [{{"name": "x", "datatype": "FP32", "shape": ["batch", 4]}}]}}
class Model:
    def predict(self, inputs):
        return inputs
    def close(self):
        {last_deed}
"""
    engine = made(load_spec(tmp_path, "python", "model.py", {"model.py": source.encode()}))
    await engine.start()
    assert await engine.run([rows()], limit_s=LONG_S)
    async with asyncio.timeout(LONG_S):
        await engine.close()
    with pytest.raises(NotBegun):
        await engine.run([rows()], limit_s=LONG_S)


async def test_python_versions_of_several_files_are_refused_inline(tmp_path: Path):
    """Their modules would be shared with every other version in the process."""
    load = load_spec(tmp_path, "python", "model.py", {"model.py": b"", "more.py": b""})
    with pytest.raises(LoadError, match="needs placement process"):
        made(load)
