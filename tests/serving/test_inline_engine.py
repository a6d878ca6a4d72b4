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
from onnx import TensorProto, helper, numpy_helper

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
from gateway.serving.inline_engine import Brevity
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
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("inline tiny/")]


async def test_a_batch_is_joined_and_answered_off_the_loop():
    """Same faces as a child: info, result, cost; its one thread ends with it."""
    async with running(echo(delay_ms=5)) as (engine, info):
        assert (info.pid, info.device) == (None, "cpu")
        result = await engine.run([rows(2, 1), rows(1, 2)], limit_s=LONG_S)
        assert result.outputs["y"].tolist() == [[1] * 4] * 2 + [[2] * 4]
        assert result.compute_s >= 0.005
        assert threads() == ["inline tiny/1"]
        assert repr(engine) == "<InlineEngine tiny/1 [loaded | 0 batches on the loop]>"
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
    hold = tmp_path / "hold"
    hold.touch()
    async with running(echo(hold=str(hold))) as (engine, _):
        with pytest.raises(VersionHung, match="its thread was given up"):
            await engine.run([rows()], limit_s=0.01)
        with pytest.raises(NotBegun):
            await engine.run([rows()], limit_s=0.01)
    async with running(echo(hold=str(hold))) as (engine, _):
        work = asyncio.ensure_future(engine.run([rows()], limit_s=LONG_S))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    hold.unlink()
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


def linear_graph(folder: Path) -> LoadSpec:
    weights = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    shapes = {"x": ["batch", 4], "y": ["batch", 3]}
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "linear", [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return load_spec(folder, "onnx", "linear.onnx", {"linear.onnx": model.SerializeToString()})


async def test_brief_batches_of_a_compiled_graph_run_on_the_loop(tmp_path: Path):
    """Once it is known what their size costs; all are answered alike."""
    async with running(linear_graph(tmp_path)) as (engine, _):
        first = await engine.run([rows(1)], limit_s=LONG_S)
        went_by_thread = engine.ran_on_loop
        for _ in range(2000):
            again = await engine.run([rows(1)], limit_s=LONG_S)
            assert np.array_equal(again.outputs["y"], first.outputs["y"])
            if engine.ran_on_loop:
                break

        assert went_by_thread == 0
        assert engine.ran_on_loop == 1
        assert "1 batches on the loop" in repr(engine)


async def test_a_second_batch_never_overtakes_the_first(tmp_path: Path):
    """The loop takes one only when nothing is under way; the second goes by the thread."""
    async with running(linear_graph(tmp_path)) as (engine, _):
        for _ in range(200):
            await engine.run([rows(1)], limit_s=LONG_S)
        order: list[int] = []
        both = asyncio.Event()

        def done(place: int) -> None:
            order.append(place)
            if len(order) == 2:
                both.set()

        engine.launch([rows(1)], limit_s=LONG_S, done=lambda _: done(1))
        engine.launch([rows(1)], limit_s=LONG_S, done=lambda _: done(2))
        await asyncio.wait_for(both.wait(), LONG_S)

    assert order == [1, 2]


async def test_python_never_runs_on_the_loop():
    """However brief: it may do anything the next time."""
    async with running(echo()) as (engine, _):
        for _ in range(200):
            await engine.run([rows(1)], limit_s=LONG_S)

        assert engine.ran_on_loop == 0


def test_what_is_brief_is_forgotten_at_one_slow_batch_and_learnt_again():
    """Sizes are told apart by powers of two."""
    brevity = Brevity()
    assert not brevity.expects_brief(1)
    brevity.took(1, 1e-5)
    assert brevity.expects_brief(1)
    assert not brevity.expects_brief(32)
    brevity.took(1, 5e-3)
    assert not brevity.expects_brief(1)
    for _ in range(200):
        brevity.took(1, 1e-5)
    assert brevity.expects_brief(1)


def test_one_batch_that_is_somewhat_too_long_proves_nothing_and_two_in_a_row_do():
    """A page that had to be brought, a neighbour on the machine; but a model's own slowness comes again."""
    brevity = Brevity()
    brevity.took(1, 1e-5)
    for seconds in (1e-3, 1e-5, 1e-3):
        brevity.took(1, seconds)
        assert brevity.expects_brief(1)
    brevity.took(1, 1e-3)
    assert not brevity.expects_brief(1)


def test_a_size_seen_for_the_first_time_is_believed():
    """There is nothing that it could be an exception to."""
    brevity = Brevity()
    brevity.took(1, 1e-3)
    assert not brevity.expects_brief(1)
