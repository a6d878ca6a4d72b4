"""Watches of drift for tests: one for each replica, over ground that they share, with time moved by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from gateway.clock import ManualClock
from gateway.errors import Fenced, StoreUnavailable
from gateway.events.records import CountsRecord
from gateway.messages import VersionRef
from gateway.routing.table import Arm, Route, RoutingTable, Rule
from gateway.settings_drift import DriftSettings
from gateway.telemetry.drift.looking import DriftAlarm
from gateway.telemetry.drift.looks import Looks
from gateway.telemetry.drift.sharing import Shared
from gateway.telemetry.drift.subjects import Subjects
from gateway.telemetry.drift.watch import DriftWatch
from runtimes.counting import Plan
from tests.telemetry.drift.scene import body_of, counted

__all__ = ["BODY", "DIGEST", "ONE", "RNG", "ROWS", "THREE", "TWO", "Ground", "Replica", "Scene", "table"]

ONE, TWO, THREE = VersionRef("m", 1), VersionRef("m", 2), VersionRef("m", 3)
RNG = np.random.default_rng(9)
ROWS = 6000
BODY = body_of({"x": RNG.standard_normal((ROWS, 6))}, {"y": RNG.standard_normal((ROWS, 1))})
PLAN = Plan.from_json(BODY)
DIGEST = "sha256:" + "ab" * 32


class Ground:
    """What replicas share, in memory: the sum of what each told, what the leader keeps, and whether it answers."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[str, Mapping[str, int]]] = {}
        self.values: dict[str, bytes] = {}
        self.leader, self.term, self.up = "", 0, True

    def elect(self, name: str) -> None:
        self.leader, self.term = name, self.term + 1


class Replica:
    """One replica's hold on the ground."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground, self.name = ground, name

    def _check(self) -> None:
        if not self.ground.up:
            raise StoreUnavailable("the ground is away")

    async def lead(self) -> int | None:
        self._check()
        return self.ground.term if self.ground.leader == self.name else None

    async def publish(self, scope: str, counters: Mapping[str, int]) -> None:
        self._check()
        self.ground.counters.setdefault(scope, {})[self.name] = dict(counters)

    async def gather(self, scope: str) -> Mapping[str, int]:
        self._check()
        total: dict[str, int] = {}
        for told in self.ground.counters.get(scope, {}).values():
            for place, number in told.items():
                total[place] = total.get(place, 0) + number
        return total

    async def keep(self, scope: str, value: bytes, term: int) -> None:
        self._check()
        if term != self.ground.term:
            raise Fenced(f"term {term} has ended")
        self.ground.values[scope] = value

    async def kept(self, scope: str) -> bytes | None:
        self._check()
        return self.ground.values.get(scope)


def table(*arms: int, known_good: int | None = 1, rules: tuple[Rule, ...] = ()) -> RoutingTable:
    route = Route("r", "m", tuple(Arm(version, 1) for version in arms), known_good=known_good, rules=rules)
    return RoutingTable({"r": route}, None, 1)


class Scene:
    """One replica's watch."""

    def __init__(
        self,
        shared: Shared,
        clock: ManualClock,
        *,
        routes: RoutingTable,
        looks: Looks | None = None,
        **settings: object,
    ) -> None:
        self.alarms: list[DriftAlarm] = []
        self.clock = clock
        chosen = DriftSettings.model_validate(settings)
        self.routes = routes
        self.profiles = dict.fromkeys((ONE, TWO, THREE), DIGEST)
        self.subjects = Subjects(
            lambda: self.routes, lambda: self.profiles, lambda _: json.dumps(BODY).encode(), chosen
        )
        self.watch = DriftWatch(
            shared=shared,
            subjects=self.subjects,
            alarmed=self.alarms.append,
            standing=self.stood,
            clock=clock,
            looks=looks,
        )

    def count(self, values: np.ndarray, version: VersionRef = ONE, *, seen: int | None = None) -> None:
        counts = counted(PLAN, {"x": values}, {"y": values[:, :1]})
        self.watch.counted(CountsRecord(version, DIGEST, seen or len(values), len(values), counts.tobytes()))

    async def look(self) -> None:
        self.clock.advance(600.0)
        await self.watch.beat()

    async def stood(self) -> list[dict[str, Any]]:
        """As a store has them."""
        last = {alarm.name: alarm for alarm in self.alarms}
        return [{"name": name, "subject": f"route/{one.route}"} for name, one in last.items() if one.raised]

    def standing(self) -> dict[str, bool]:
        """Of each alarm that was told of, whether it stands now."""
        return {alarm.name: alarm.raised for alarm in self.alarms}
