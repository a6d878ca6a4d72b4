"""Batches ahead: what every engine promises of two under way at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidInput, NotBegun, TurnoutError, VersionCrashed, VersionHung
from gateway.messages import VersionRef
from gateway.serving.engine import BatchResult, VersionSpec
from gateway.serving.fork_server import ForkServer
from gateway.serving.placement import engine_factory
from runtimes.base import LoadSpec
from tests.runtimes.versions import signature
from tests.serving.processes import LONG_S, eventually, gone, lying, stand_still_until

PLACEMENTS = ["process", "inline"]


@pytest.fixture
async def forks():
    server = ForkServer(preload=())
    yield server
    await server.close()


class Outcomes(list):  # type: ignore[type-arg]
    """What ``done`` was told, in the order of the telling."""

    def of(self, name: str):
        def done(outcome: BatchResult | TurnoutError) -> None:
            self.append((name, outcome))

        return done

    @property
    def told(self) -> list[str]:
        return [f"{name} {type(outcome).__name__}" for name, outcome in self]


@asynccontextmanager
async def running(forks: ForkServer, placement: str, **options: Any):
    exits: list[str] = []
    load = LoadSpec("echo", "", (), options=options)
    engine = engine_factory(forks)(VersionSpec(VersionRef("m", 1), "sha256:0", load, placement=placement), exits.append)
    info = await engine.start()
    try:
        yield engine, info, exits
    finally:
        await engine.close()


def rows(count: int = 1, value: float = 1.0):
    return {"x": np.full((count, 4), value, np.float32)}


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_two_under_way_are_answered_in_the_order_of_their_launch(forks: ForkServer, placement: str):
    """Each with its own rows, through a hundred batches, the next launched from within ``done``."""
    outcomes: list[float] = []
    over = asyncio.Event()
    async with running(forks, placement) as (engine, _, _exits):
        assert engine.depth == 2

        def launch(number: int) -> None:
            def done(outcome: Any) -> None:
                assert outcome.outputs["y"].tolist() == [[number] * 4] * (number % 3 + 1)
                outcomes.append(number)
                if number + 2 < 100:
                    launch(number + 2)
                elif len(outcomes) == 100:
                    over.set()

            engine.launch([rows(number % 3 + 1, number)], limit_s=LONG_S, done=done)

        launch(0)
        launch(1)
        with pytest.raises(ValueError, match="under way"):
            launch(2)
        await asyncio.wait_for(over.wait(), LONG_S)
        assert outcomes == list(range(100))


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_a_batch_that_cannot_be_sent_waits_its_turn_to_be_told(forks: ForkServer, placement: str):
    """Its failure is known at once, and still comes after the answer of the batch before it."""
    outcomes = Outcomes()
    async with running(forks, placement, delay_ms=20) as (engine, _, exits):
        engine.launch([rows()], limit_s=LONG_S, done=outcomes.of("good"))
        engine.launch([{"z": np.zeros(1)}], limit_s=LONG_S, done=outcomes.of("bad"))
        assert outcomes == []
        await eventually(lambda: len(outcomes) == 2)
        engine.launch([{"z": np.zeros(1)}], limit_s=LONG_S, done=outcomes.of("alone"))
        assert len(outcomes) == 2
        await eventually(lambda: len(outcomes) == 3)
        assert outcomes.told == ["good BatchResult", "bad InvalidInput", "alone InvalidInput"]
        with pytest.raises(InvalidInput, match="'x' is missing"):
            await engine.run([{}], limit_s=LONG_S)
        assert exits == []


async def test_a_crash_with_two_under_way_blames_the_oldest_alone(forks: ForkServer):
    """The one behind it was not begun: it did no harm, and may be run again."""
    outcomes = Outcomes()
    async with running(forks, "process", crash={"equals": 13}) as (engine, info, exits):
        engine.launch([rows(value=13)], limit_s=LONG_S, done=outcomes.of("first"))
        engine.launch([rows()], limit_s=LONG_S, done=outcomes.of("second"))
        await eventually(lambda: len(outcomes) == 2)
        assert outcomes.told == ["first VersionCrashed", "second NotBegun"]
        assert "killed by SIGKILL" in str(outcomes[0][1])
        assert gone(info.pid)
        engine.launch([rows()], limit_s=LONG_S, done=outcomes.of("third"))
        await eventually(lambda: len(outcomes) == 3)
        assert outcomes.told[2] == "third NotBegun"
        assert exits == []


async def test_an_answer_sent_before_the_crash_is_an_answer(forks: ForkServer):
    """The first is answered, the second kills: the first keeps its rows, the second is the oldest under way."""
    outcomes = Outcomes()
    async with running(forks, "process", crash={"equals": 13}) as (engine, _, exits):
        engine.launch([rows()], limit_s=LONG_S, done=outcomes.of("first"))
        engine.launch([rows(value=13)], limit_s=LONG_S, done=outcomes.of("second"))
        await eventually(lambda: len(outcomes) == 2)
        assert outcomes.told == ["first BatchResult", "second VersionCrashed"]
        assert exits == []


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_a_hang_of_the_oldest_leaves_the_next_not_begun(forks: ForkServer, placement: str, tmp_path: Path):
    """However short the limit of the one behind: it counts from when it is the oldest."""
    outcomes, hold = Outcomes(), tmp_path / "hold"
    hold.touch()
    async with running(forks, placement, hold=str(hold)) as (engine, _, _exits):
        engine.launch([rows(10)], limit_s=0.1, done=outcomes.of("first"))
        engine.launch([rows()], limit_s=0.001, done=outcomes.of("second"))
        await eventually(lambda: len(outcomes) == 2)
        assert outcomes.told == ["first VersionHung", "second NotBegun"]
        hold.unlink()


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_the_limit_of_a_batch_counts_from_when_it_is_the_oldest(
    forks: ForkServer, placement: str, tmp_path: Path
):
    """Its wait behind another is not its fault."""
    outcomes, hold = Outcomes(), tmp_path / "hold"
    async with running(forks, placement, delay_per_row_ms=100, hold=str(hold)) as (engine, _, _exits):
        engine.launch([rows(12)], limit_s=LONG_S, done=outcomes.of("long"))
        engine.launch([rows(1)], limit_s=1.0, done=outcomes.of("short"))
        await eventually(lambda: len(outcomes) == 2)
        assert outcomes.told == ["long BatchResult", "short BatchResult"]
        hold.touch()
        hung = asyncio.ensure_future(engine.run([rows(1)], limit_s=0.05))
        with pytest.raises(VersionHung):
            await hung
        hold.unlink()


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_a_stalled_loop_condemns_neither_of_two(forks: ForkServer, placement: str):
    """Both answers lie there when the loop comes back, long after both limits."""
    outcomes, alone = Outcomes(), Outcomes()
    async with running(forks, placement) as (engine, _, _exits):
        await engine.run([rows()], limit_s=LONG_S)  # from now on nothing but answers comes
        engine.launch([rows()], limit_s=LONG_S, done=alone.of("alone"))
        stand_still_until(lambda: lying(engine) > 0)
        one = lying(engine)
        await eventually(lambda: len(alone) == 1)
        engine.launch([rows()], limit_s=0.2, done=outcomes.of("first"))
        engine.launch([rows()], limit_s=0.2, done=outcomes.of("second"))
        stand_still_until(lambda: lying(engine) == 2 * one)
        threading.Event().wait(0.3)
        await eventually(lambda: len(outcomes) == 2)
        assert outcomes.told == ["first BatchResult", "second BatchResult"]


@pytest.mark.parametrize("placement", PLACEMENTS)
async def test_closing_and_cancelling_tell_everybody(forks: ForkServer, placement: str, tmp_path: Path):
    """Nobody is left waiting for an engine that is no more."""
    for end in ("close", "cancel"):
        outcomes, hold = Outcomes(), tmp_path / "hold"
        hold.touch()
        async with running(forks, placement, hold=str(hold)) as (engine, _, exits):
            first = asyncio.ensure_future(engine.run([rows()], limit_s=LONG_S))
            await asyncio.sleep(0)
            engine.launch([rows()], limit_s=LONG_S, done=outcomes.of("second"))
            if end == "close":
                closing = asyncio.ensure_future(engine.close())
                await asyncio.sleep(0)
                hold.unlink()  # a thread is waited for
                await closing
                with pytest.raises((VersionCrashed, NotBegun)):
                    await first
            else:
                first.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await first
                hold.unlink()
            await eventually(lambda told=outcomes: len(told) == 1)
            assert outcomes.told == ["second NotBegun"]
            assert exits == []


async def test_a_batch_launched_at_a_child_just_killed_is_not_blamed(forks: ForkServer):
    """Sent or not: one outcome; where nothing could be sent it is NotBegun, and ``on_exit`` has told before."""
    async with running(forks, "process") as (engine, info, exits):
        os.kill(info.pid, signal.SIGKILL)
        await eventually(lambda: gone(info.pid) or exits != [])
        with pytest.raises((NotBegun, VersionCrashed)):
            await engine.run([rows()], limit_s=LONG_S)


async def test_a_larger_answer_with_another_batch_behind_it_is_read_where_it_was_written(forks: ForkServer):
    """The memory for the one behind comes while the one before waits for a larger one of its own."""
    given = signature({"x": ("FP32", ("batch", "w"))}, {"y": ("FP32", ("batch", "w"))})
    load = LoadSpec("echo", "", (), signature=given, options={"delay_ms": 20})
    engine = engine_factory(forks)(VersionSpec(VersionRef("m", 1), "sha256:0", load), print)
    await engine.start()
    for width in (20_000, 60_000):
        given_rows = [{"x": np.full((number, width), number, np.float32)} for number in (1, 2)]
        results = await asyncio.gather(*(engine.run([part], limit_s=LONG_S) for part in given_rows))
        for part, result in zip(given_rows, results, strict=True):
            assert (result.outputs["y"] == part["x"]).all()
    await engine.close()
