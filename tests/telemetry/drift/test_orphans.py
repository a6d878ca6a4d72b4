"""Alarms that stand although nobody believes them any more are ended: a rollout that waits for their end goes on."""

from __future__ import annotations

import numpy as np

from gateway.clock import ManualClock
from gateway.messages import VersionRef
from gateway.telemetry.drift.orphans import Round, orphans
from tests.telemetry.drift.watch_scene import ONE, THREE, TWO, Ground, Replica, Scene, table

ROUTING, WORLD = "drift/m/2/routing", "drift/m/1/world"
MOVED = np.array([0, 0, 1.0, 0, 0, 0])


def scene() -> Scene:
    ground = Ground()
    ground.elect("a")
    return Scene(Replica(ground, "a"), ManualClock(), routes=table(1, 2))


async def watched(one: Scene, *versions: VersionRef, moved: VersionRef | None = None, looks: int = 4) -> None:
    rng = np.random.default_rng(6)
    for _ in range(looks):
        for version in versions:
            one.count(rng.standard_normal((400, 6)) + (MOVED if version == moved else 0.0), version)
        await one.look()


async def test_an_alarm_of_two_versions_ends_where_the_one_is_beside_another_known_good() -> None:
    """The next rollout of the version is another comparison. It is ended at the second look, and once."""
    one = scene()
    await watched(one, ONE, TWO, moved=TWO)
    assert one.standing()[ROUTING]
    one.routes = table(2, 3, known_good=3)
    await watched(one, TWO, THREE, looks=1)
    assert one.standing()[ROUTING], "a look may come while versions are loading"
    await watched(one, TWO, THREE)
    assert [alarm.raised for alarm in one.alarms if alarm.name == ROUTING][-2:] == [True, False]
    assert not one.standing()[ROUTING]


async def test_alarms_of_a_version_that_has_left_the_routes_end() -> None:
    """Both: those of its own, and those of the two. The others stand."""
    one = scene()
    await watched(one, ONE, TWO, moved=TWO)
    await watched(one, ONE, TWO, moved=ONE)
    before = {name for name, raised in one.standing().items() if raised}
    one.routes = table(1)
    await watched(one, ONE, moved=ONE, looks=2)
    assert {name for name, raised in one.standing().items() if raised} == {n for n in before if "m/1/" in n}
    assert ROUTING in before


async def test_an_alarm_ends_with_the_reference_that_it_was_raised_by() -> None:
    """Of the new one nothing is known; what cannot be read ends nothing."""
    one = scene()
    one.routes = table(1)
    await watched(one, ONE, moved=ONE)
    assert one.standing() == {WORLD: True}
    one.profiles[ONE] = "sha256:" + "cd" * 32
    one.subjects._read_profile = lambda _: b"no profile"
    await watched(one, looks=3)
    assert one.standing() == {WORLD: True}
    one.subjects._plans.clear()
    one.subjects._read_profile = Scene(one.watch._shared, one.clock, routes=one.routes).subjects._read_profile
    await watched(one, looks=2)
    assert one.standing() == {WORLD: False}


async def test_a_version_that_is_still_loading_keeps_its_alarms() -> None:
    """After a restart it comes into the table once it is warm, at the next look at the latest."""
    one = scene()
    await watched(one, ONE, TWO, moved=TWO)
    one.routes = table(1)
    await watched(one, ONE, looks=1)
    one.routes = table(1, 2)
    await watched(one, ONE, TWO, moved=TWO, looks=2)
    one.routes = table(1)
    await watched(one, ONE, looks=1)
    assert all(alarm.raised for alarm in one.alarms if alarm.name == ROUTING)


def test_what_is_no_alarm_of_drift_or_is_a_newer_releases_stands() -> None:
    names = ["gates/m/1", "drift/m/1/weather", "drift/m/x/world", "drift", "decision-log/m/1/world", WORLD]
    rows = [{"name": name, "subject": "route/r"} for name in names]
    (ended,) = orphans(rows, Round(frozenset(), frozenset(), frozenset()))
    assert (ended.name, ended.raised, ended.route) == (WORLD, False, "r")
    assert not list(orphans(rows, Round(frozenset({WORLD}), frozenset({ONE}), frozenset({ONE}))))


async def test_alarms_and_series_of_the_last_version_that_has_a_profile_end_with_it() -> None:
    """Its route goes on with a version that has none: there is nothing left to look at, and nothing left standing."""
    one = scene()
    one.routes = table(1)
    await watched(one, ONE, moved=ONE)
    assert one.standing() == {WORLD: True}
    one.routes = table(2, known_good=2)
    one.profiles.clear()
    await watched(one, looks=3)
    assert one.standing() == {WORLD: False}
    assert not one.watch.figures()
    assert not one.watch.looked_at()
