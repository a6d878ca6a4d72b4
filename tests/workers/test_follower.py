"""What a worker makes of the table that it is told, with scripted engines."""

from __future__ import annotations

import asyncio

from gateway.clock import ManualClock
from gateway.control import transitions
from gateway.control.route_spec import ArmSpec, RouteSpec
from gateway.control.tokens import TokenRing
from gateway.dataplane import Dataplane
from gateway.events.observer import RecordingObserver
from gateway.messages import VersionRef
from gateway.serving.cost import CostCurve
from gateway.serving.fleet import Fleet
from gateway.serving.scripted_engine import ScriptedEngines
from gateway.serving.warmup import Warmth
from gateway.workers.follower import Follower, Told
from gateway.workers.forms import WarmVersion
from tests.serving.stage import spec


async def test_versions_that_share_a_device_share_it_in_a_worker_by_their_routes_splits() -> None:
    """As in a gateway of one process: nine turns to one."""
    clock, observer = ManualClock(), RecordingObserver()
    engines = ScriptedEngines(clock)
    fleet = Fleet(engines, clock=clock, observer=observer, probe_interval_s=1e6, drain_timeout_s=1e6)
    told: asyncio.Queue[int] = asyncio.Queue()
    follower = Follower(
        fleet=fleet,
        dataplane=Dataplane(observer=observer, clock=clock),
        ring=TokenRing(clock),
        clock=clock,
        observer=observer,
        told=Told(applied=told.put_nowait, released=lambda _: None),
        default_timeout_ms=1000,
    )
    refs = [VersionRef("digits", number) for number in (1, 2)]
    for ref in refs:
        engines.script(ref).device = "cuda:0"
    split = [ArmSpec(version=1, weight=90), ArmSpec(version=2, weight=10)]
    catalogue = transitions.Catalogue("digits", frozenset({1, 2}))
    document = transitions.put(RouteSpec(model="digits", split=split), None, catalogue)
    warmth = Warmth(CostCurve(((1, 0.01),)), 4)
    versions = [{**WarmVersion(spec(ref), warmth).to_json(), "lending": ref.number} for ref in refs]
    route = {"revision": 1, "local": False, "document": document.to_json(), "open": True}
    follower.take(
        {"number": 2, "revision": 1, "default": None, "gone": [], "versions": versions, "routes": {"digits": route}}
    )
    async with asyncio.timeout(30):  # versions are put together in a thread, which may be late
        assert await told.get() == 2
    batchers = [fleet.handles[ref]._batcher for ref in refs]
    assert [repr(lane.turn) for batcher in batchers if batcher for lane in batcher._dispatcher.lanes] == [
        "<Turn [0.000 s at weight 0.9 | 0 held]>",
        "<Turn [0.000 s at weight 0.1 | 0 held]>",
    ]
    await follower.close()
    await fleet.close(abandon=True)
