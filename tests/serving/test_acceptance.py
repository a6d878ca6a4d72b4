"""What engines must show: the first is measured, further ones are the same, and a restarted one answers once."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.errors import LoadError, VersionHung, VersionUnavailable
from gateway.messages import Signature, TensorSpec
from gateway.serving.acceptance import Acceptance
from gateway.serving.cost import CostCurve
from gateway.serving.engine import BatchPolicy
from gateway.serving.warmup import Warmth
from tests.serving.stage import Stage, ask, rows, spec, turns, until


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with Stage() as stage:
        yield stage


async def test_a_restart_warms_with_one_row_only(stage: Stage):
    """So that it is quick."""
    handle = await stage.active()
    stage.script().kill()
    await until(lambda: handle.ready)
    assert stage.script().runs == [(1,)]


async def test_a_version_that_hangs_again_when_restarted_is_found_out_in_time(stage: Stage):
    """The check of a restarted child has the limit of a run, not of a load, so that fallbacks are not kept waiting."""
    handle = await stage.active()
    stage.script().hold()
    client = ask(handle, 1)
    await until(lambda: stage.script().running)
    stage.clock.advance(0.6)
    with pytest.raises(VersionHung):
        await client
    waiting = ask(handle, 2)
    await until(lambda: stage.script().running)
    stage.clock.advance(0.6)
    with pytest.raises(VersionUnavailable, match=r"failed its warm-up at 1 row: no answer within 0.6 s"):
        await waiting
    assert [cause for _, cause, _ in stage.observer.crashes] == ["hang", "load"]


async def test_a_version_that_comes_back_as_another_is_not_trusted(stage: Stage):
    """Same files and signature as at first, or it stays down and says why."""
    handle = await stage.active()
    other = TensorSpec("z", "FP32", ("batch", 3))
    stage.script().signature = Signature((other,), (other,))
    stage.script().kill()
    await turns()
    assert "came back with another signature" in handle.reason
    assert not handle.ready
    with pytest.raises(VersionUnavailable):
        await handle.infer(rows(1), 1, None)


async def test_a_further_engine_that_loaded_something_else_is_not_used(stage: Stage):
    """All engines of a version share one queue: whichever is free answers, so all must be the same."""
    version = spec()
    acceptance = Acceptance(version, stage.clock)
    first = stage.engines(version, lambda _: None)
    await acceptance.first(first, await first.start())
    other = TensorSpec("z", "FP32", ("batch", 3))
    stage.script().signature = Signature((other,), (other,))
    further = stage.engines(version, lambda _: None)
    with pytest.raises(LoadError, match="another signature"):
        await acceptance.further(further, await further.start())


async def test_what_is_warm_elsewhere_is_not_run_again(stage: Stage):
    """An engine that is borrowed comes with what its owner measured; the probe is made all the same."""
    version = spec(batch=BatchPolicy(max_rows=8))
    known = Warmth(CostCurve(((1, 0.1),)), 4)
    acceptance = Acceptance(version, stage.clock, known)
    engine = stage.engines(version, lambda _: None)
    await acceptance.first(engine, await engine.start())
    assert (acceptance.warmth, stage.script().runs) == (known, [])
    assert acceptance.probe is not None
    assert repr(acceptance) == "<Acceptance digits/3 [4 rows]>"
