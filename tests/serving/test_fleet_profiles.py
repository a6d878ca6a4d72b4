"""Whose profiles a version's rows are counted with: its own, its routes' known goods', and what replaces them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.clock import SystemClock
from gateway.control.plan import compared_with
from gateway.events.observer import RecordingObserver
from gateway.messages import VersionRef
from gateway.routing.table import Arm, Route, RoutingTable, Shadow
from gateway.serving.counts import CountingPlan
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet
from gateway.serving.scripted_engine import ScriptedEngines
from runtimes.base import LoadSpec

GOOD, CANDIDATE, PLAIN = (VersionRef("digits", number) for number in (1, 2, 3))
OWN, OTHER, NEW = (CountingPlan(f"sha256:{name}", "{}") for name in ("own", "other", "new"))


def spec_of(ref: VersionRef, profile: CountingPlan | None) -> VersionSpec:
    return VersionSpec(ref, "sha256:0", LoadSpec("echo", "", ()), profile=profile)


def test_every_version_of_a_route_is_compared_with_its_known_good() -> None:
    """Arms, shadows and what may be pinned; the known good itself with nobody, and no route without one."""
    arms = (Arm(1, 95), Arm(2, 5))
    route = Route("digits", "digits", arms, known_good=1, shadows=(Shadow(3, 0.1),))
    lone = replace(route, name="lone", known_good=None)
    assert compared_with(RoutingTable({"digits": route, "lone": lone}, None, 1)) == {CANDIDATE: (GOOD,), PLAIN: (GOOD,)}


@pytest.fixture
async def engines() -> ScriptedEngines:
    return ScriptedEngines(SystemClock())


@pytest.fixture
async def fleet(engines: ScriptedEngines) -> AsyncIterator[Fleet]:
    fleet = Fleet(engines, clock=SystemClock(), observer=RecordingObserver())
    yield fleet
    await fleet.close(abandon=True)


def counted_with(engines: ScriptedEngines, ref: VersionRef) -> tuple[str, ...]:
    return tuple(plan.digest for plan in engines.script(ref).countings[-1].plans)


async def test_an_engine_counts_with_its_versions_profile_and_its_known_goods(
    fleet: Fleet, engines: ScriptedEngines
) -> None:
    """Once it is warm; a version without a profile counts nothing of its own; one replaced is replaced everywhere."""
    await fleet.ensure(spec_of(GOOD, OWN))
    await fleet.ensure(spec_of(CANDIDATE, OTHER))
    await fleet.ensure(spec_of(PLAIN, None))
    assert (counted_with(engines, GOOD), counted_with(engines, PLAIN)) == (("sha256:own",), ())
    fleet.compare({CANDIDATE: (GOOD,), PLAIN: (GOOD,)})
    assert counted_with(engines, CANDIDATE) == ("sha256:other", "sha256:own")
    assert counted_with(engines, PLAIN) == ("sha256:own",)
    fleet.handles[GOOD].profiled(NEW)
    fleet.compare()
    assert counted_with(engines, GOOD) == ("sha256:new",)
    assert counted_with(engines, CANDIDATE) == ("sha256:other", "sha256:new")
    assert fleet.handles[GOOD].spec.profile == NEW


async def test_an_engine_that_comes_after_a_death_counts_on(fleet: Fleet, engines: ScriptedEngines) -> None:
    """With the same profiles, as soon as it is proven."""
    handle = await fleet.ensure(spec_of(GOOD, OWN))
    before = len(engines.script(GOOD).countings)
    engines.script(GOOD).kill()
    await handle.engine()
    assert len(engines.script(GOOD).countings) == before + 1
    assert counted_with(engines, GOOD) == ("sha256:own",)
