"""When a worker that wants to borrow is made to wait, and when it is refused, with scripted engines."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import LoadError, VersionUnavailable
from gateway.serving.fleet import Fleet
from gateway.workers.lender import Lender
from tests.serving.stage import Stage, turns, until


async def test_a_short_pause_is_waited_out_with_the_start_after_it_and_a_long_one_is_not() -> None:
    """While another worker's bad request is sought, the child dies again and again: who borrows it must not refuse its
    own clients because a busy machine takes a second to start it."""
    async with Stage() as stage:
        fleet = Fleet(stage.engines, clock=stage.clock, observer=stage.observer)
        lender = Lender(fleet, stage.clock)
        handle = await stage.active()
        stage.script().every_load = LoadError("the child died while loading: signal 9")
        stage.script().kill()
        await until(lambda: handle.pause_s > 0)
        assert handle.pause_s == pytest.approx(0.1)
        stage.script().every_load, stage.script().load_gate = None, asyncio.Event()
        asked = asyncio.ensure_future(lender._running(handle))
        await turns()
        stage.clock.advance(0.11)
        await until(lambda: handle.pause_s == 0)
        stage.clock.advance(2.0)
        done, _ = await asyncio.wait({asked}, timeout=0.05)
        assert not done
        stage.script().load_gate.set()
        assert await asked is await handle.engine()

        stage.script().every_load = LoadError("the child died while loading: signal 9")
        stage.script().kill()
        while handle.pause_s <= 0.5:
            await until(lambda: handle.pause_s > 0)
            await turns()
            if handle.pause_s <= 0.5:
                stage.clock.advance(handle.pause_s + 1e-6)
                await turns()
        with pytest.raises(VersionUnavailable, match=r"next try in 0\.8 s"):
            await lender._running(handle)
        await fleet.close(abandon=True)
