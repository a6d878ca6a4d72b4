"""A replica among others: what it tells, and waiting until all serve a revision."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from gateway.clock import ManualClock
from gateway.control.coordination import Alone, ReplicaView
from gateway.control.presence import FAILED, Presence
from gateway.errors import StoreUnavailable
from tests.control.scene import Scene, scene

SPEC = {"model": "digits", "split": [{"version": 1, "weight": 1}]}


class Others(Alone):
    """A coordination with replicas that only say what the test has them say; ``cut`` plays an outage."""

    def __init__(self, home: Path, clock: ManualClock) -> None:
        super().__init__(home, clock)
        self.others: list[ReplicaView] = []
        self.told: list[ReplicaView] = []
        self.cut = False
        self.asked = asyncio.Event()

    async def announce(self, view: ReplicaView) -> bool:
        self.asked.set()
        if self.cut:
            raise StoreUnavailable("the line is cut")
        self.told.append(view)
        return await super().announce(view)

    async def replicas(self) -> Sequence[ReplicaView]:
        if self.cut:
            raise StoreUnavailable("the line is cut")
        return [*await super().replicas(), *self.others]


async def turns(count: int = 50) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[tuple[Scene, Others, Presence, ManualClock]]:
    clock = ManualClock()
    async with scene(tmp_path, clock=clock) as made:
        others = Others(tmp_path, clock)
        presence = Presence(others, made.plane.reconciler, clock=clock, address="here", version="1", beat_s=1.0)
        presence.start()
        yield made, others, presence, clock
        await presence.close()


async def test_it_tells_again_at_every_beat_and_at_once_when_something_changed(
    here: tuple[Scene, Others, Presence, ManualClock],
) -> None:
    """Between beats nothing is told that the others know already; after an outage it goes on telling."""
    made, others, presence, clock = here
    await turns()
    assert len(others.told) == 1
    presence.changed()
    await turns()
    assert len(others.told) == 1
    clock.advance(1.0)
    await turns()
    assert len(others.told) == 2
    await made.plane.routes.put("digits", SPEC, actor="olga")
    presence.changed()
    await turns()
    assert others.told[-1].revision == made.plane.reconciler.desired.revision
    others.cut = True
    clock.advance(1.0)
    await turns()
    assert not presence.statistics().heard
    others.cut = False
    clock.advance(1.0)
    await turns()
    assert presence.statistics().heard


async def test_waiting_ends_when_the_last_of_the_living_serves_it(
    here: tuple[Scene, Others, Presence, ManualClock],
) -> None:
    """Neither an older revision nor a route that is behind will do; one that is not heard of is not waited for."""
    made, others, presence, clock = here
    revision = (await made.plane.routes.put("digits", SPEC, actor="olga"))["revision"]
    assert await made.plane.reconciler.wait_applied(revision, timeout_s=30, route="digits")
    for late in (
        ReplicaView("b", revision - 1),
        ReplicaView("b", revision, {"digits": "waits for version 1"}),
    ):
        others.others = [late]
        waiting = asyncio.ensure_future(presence.all_serve(revision, "digits", timeout_s=10))
        for _ in range(5):
            await turns()
            clock.advance(0.1)
        assert not waiting.done()
        others.others = [ReplicaView("b", revision, {"another": "waits for version 1"})]
        await turns()
        clock.advance(0.1)
        assert await waiting
    others.others = []
    assert await presence.all_serve(revision, "digits", timeout_s=10)


async def test_waiting_ends_early_where_it_cannot_be_and_at_its_limit_else(
    here: tuple[Scene, Others, Presence, ManualClock],
) -> None:
    """A version that failed elsewhere, a replica that stays behind, a store that is away: not all serve it."""
    made, others, presence, clock = here
    revision = (await made.plane.routes.put("digits", SPEC, actor="olga"))["revision"]
    assert await made.plane.reconciler.wait_applied(revision, timeout_s=30, route="digits")
    others.others = [ReplicaView("b", revision, {"digits": f"{FAILED}version 1: its bytes are missing"})]
    assert not await presence.all_serve(revision, "digits", timeout_s=10)
    for prepare in (lambda: setattr(others, "others", [ReplicaView("b", 0)]), lambda: setattr(others, "cut", True)):
        prepare()
        waiting = asyncio.ensure_future(presence.all_serve(revision, "digits", timeout_s=1))
        while not waiting.done():
            await turns()
            clock.advance(0.5)
        assert not waiting.result()


async def test_after_an_outage_nobody_counts_as_ended_for_the_time_of_a_lease(
    here: tuple[Scene, Others, Presence, ManualClock],
) -> None:
    """All leases ended meanwhile; who has not come back yet may be serving something else."""
    made, others, presence, clock = here
    await turns()
    revision = (await made.plane.routes.put("digits", SPEC, actor="olga"))["revision"]
    assert await made.plane.reconciler.wait_applied(revision, timeout_s=30, route="digits")
    others.cut = True
    clock.advance(1.0)
    await turns()
    others.cut = False
    waiting = asyncio.ensure_future(presence.all_serve(revision, "digits", timeout_s=60))
    for _ in range(3):
        clock.advance(1.0)
        await turns()
        assert not waiting.done()
    others.others = [ReplicaView("b", revision - 1)]
    clock.advance(1.0)
    await turns()
    assert not waiting.done()
    others.others = [ReplicaView("b", revision)]
    clock.advance(1.0)
    await turns()
    assert await asyncio.wait_for(waiting, 30)
