"""What else than chance gives versions their rows: rules, and routes that share a version. Who is told of drift is told
of that, and nobody is told that chance has failed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gateway.cli.drift_command import sentence
from gateway.clock import ManualClock
from gateway.messages import VersionRef
from gateway.routing.table import Arm, Route, RoutingTable, Rule
from gateway.telemetry.drift.given import Given, given
from tests.telemetry.drift.watch_scene import ONE, THREE, TWO, Ground, Replica, Scene

STAFF, BETA = Rule("staff", lambda _: False, 2), Rule("beta", lambda _: False, (Arm(1, 1), Arm(2, 1)))


def route(name: str, *arms: int, rules: tuple[Rule, ...] = (), known_good: int = 1) -> Route:
    return Route(name, "m", tuple(Arm(version, 1) for version in arms), known_good=known_good, rules=rules)


def routes(*each: Route) -> RoutingTable:
    return RoutingTable({one.name: one for one in each}, None, 1)


def scene(*each: Route) -> Scene:
    ground = Ground()
    ground.elect("a")
    return Scene(Replica(ground, "a"), ManualClock(), routes=routes(*each))


async def watched(one: Scene, shifts: dict[VersionRef, float], looks: int = 4) -> None:
    """Looks at rows whose third column is moved, by version."""
    rng = np.random.default_rng(6)
    for _ in range(looks):
        for version, shift in shifts.items():
            one.count(rng.standard_normal((400, 6)) + np.array([0, 0, shift, 0, 0, 0]), version)
        await one.look()


async def test_two_routes_that_share_a_version_are_told_so_and_both_are_named() -> None:
    """Nothing is a routing fault there: the rows of the two routes are one count. The alarm concerns both."""
    here = scene(route("r", 1, 2), route("s", 2, known_good=2))
    await watched(here, {ONE: 0.0, TWO: 1.0})
    assert here.standing() == {"drift/m/2/world": True, "drift/m/2/routing": False}
    alarm = next(alarm for alarm in here.alarms if alarm.raised)
    assert (alarm.route, alarm.others) == ("r", ("s",))
    assert "it also answers on route 's'" in alarm.reason
    report = await here.watch.reports.report("r")
    (pair,) = report["not_compared"]
    assert (pair["version"], pair["known_good"], report["arms"]) == (2, 1, [])
    assert "version 2 also answers on route 's'" in pair["why"]
    told = {version["version"]: version["given"] for version in report["versions"]}
    assert not told[1]
    assert len(told[2]) == 1
    other = await here.watch.reports.report("s")
    assert "route 'r'" in other["versions"][0]["given"][0]
    assert sentence(other["versions"][0]).startswith("m/2: ALARM")


async def test_a_version_that_only_a_rule_of_another_route_chooses_is_not_compared_either() -> None:
    """Its staff's rows are counted with these, though it has no share of that route's split."""
    here = scene(route("r", 1, 2), route("s", 1, rules=(STAFF,)))
    await watched(here, {ONE: 0.0, TWO: 1.0})
    assert here.standing()["drift/m/2/routing"] is False
    assert given(here.routes.routes, here.routes.routes["r"], TWO) == Given((), ("s",))


async def test_a_route_with_several_rules_is_told_which_of_them_may_choose() -> None:
    here = scene(route("r", 1, 2, 3, rules=(STAFF, BETA)))
    await watched(here, {ONE: 0.0, TWO: 1.0, THREE: 0.0})
    report = await here.watch.reports.report("r")
    given_by = {version["version"]: "; ".join(version["given"]) for version in report["versions"]}
    assert "rule 'staff', rule 'beta'" in given_by[2]
    assert "staff" not in given_by[1]
    assert "rule 'beta'" in given_by[1]
    assert given_by[3] == ""
    assert [pair["version"] for pair in report["not_compared"]] == [2, 3]
    alarm = next(alarm for alarm in here.alarms if alarm.raised)
    assert alarm.blame == "world"
    assert "rule 'staff', rule 'beta' of the route may choose what it is given" in alarm.reason


async def test_an_alarm_of_routing_is_over_once_a_rule_explains_the_difference() -> None:
    """It would stand for ever otherwise: the two are no longer compared."""
    here = scene(route("r", 1, 2))
    await watched(here, {ONE: 0.0, TWO: 1.0})
    assert here.standing()["drift/m/2/routing"] is True
    here.routes = routes(route("r", 1, 2, rules=(STAFF,)))
    await watched(here, {ONE: 0.0, TWO: 1.0}, looks=2)
    assert here.standing()["drift/m/2/routing"] is False
    ends = [alarm for alarm in here.alarms if alarm.blame == "routing" and not alarm.raised]
    assert len(ends) == 1, "told once, not at each look"
    assert "no longer compared: rule 'staff'" in ends[0].reason


async def test_a_fault_of_routing_between_two_versions_is_not_a_third_ones() -> None:
    """The world moved for the first and the third; the second is not given those rows."""
    here = scene(route("r", 1, 2, 3))
    await watched(here, {ONE: 1.0, TWO: 0.0, THREE: 1.0})
    standing = here.standing()
    assert standing["drift/m/2/routing"]
    assert standing["drift/m/3/world"]
    report = await here.watch.reports.report("r")
    third = next(version for version in report["versions"] if version["version"] == 3)
    moved = next(row for row in third["features"] if row["feature"] == "x[2]")
    assert (moved["state"], moved["blame"]) == ("alarm", "world")


def test_many_rules_are_named_by_the_first_of_them() -> None:
    words = Given(tuple("abcde"), ()).words
    assert words == ("rule 'a', rule 'b', rule 'c', 2 more of the route may choose what it is given",)
    assert Given().words == ()
    plain = route("r", 1)
    assert given({"r": plain}, plain, ONE) == given({"r": plain, "s": replace(plain, model="n")}, plain, ONE) == Given()
