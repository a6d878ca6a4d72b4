"""The report of a route, made on any replica of what the leader believed at its last look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gateway.errors import UnknownRoute
from gateway.telemetry.drift.arms import Arms
from gateway.telemetry.drift.keeping import Belief, from_bytes
from gateway.telemetry.drift.looking import corrected
from gateway.telemetry.drift.report import arms_report, version_report
from gateway.telemetry.drift.sharing import Profiled, Shared, Tally
from gateway.telemetry.drift.subjects import Pair, Subjects

__all__ = ["DriftReports"]

Json = dict[str, Any]


class DriftReports:
    """``beliefs`` are those of this replica, by scope, while it leads."""

    def __init__(self, subjects: Subjects, shared: Shared, beliefs: Callable[[], Mapping[str, Belief]]) -> None:
        self._subjects = subjects
        self._shared = shared
        self._beliefs = beliefs

    def __repr__(self) -> str:
        return f"<DriftReports {self._subjects!r}>"

    async def report(self, name: str) -> Json:
        """Of a route. Raises UnknownRoute, StoreUnavailable."""
        route = self._subjects.routes.get(name)
        if route is None:
            raise UnknownRoute(f"no route {name!r} is in force here; GET /admin/routes lists those there are")
        pairs = list(self._subjects.pairs(route))
        tests = await self._subjects.tests()
        versions = [
            await self._version_report(Profiled(ref, profile), tests)
            | {"given": list(self._subjects.given(route, ref).words)}
            for ref, profile in self._subjects.watched(route)
        ]
        numbers = sorted({arm.version for arm in route.arms} | {shadow.version for shadow in route.shadows})
        known = {ref.number for ref, _ in self._subjects.watched(route)}
        return {
            "route": name,
            "model": route.model,
            "versions": versions,
            "without_profile": [number for number in numbers if number not in known],
            "arms": [await self._pair_report(pair, tests) for pair in pairs],
            "not_compared": [
                {"version": pair.version.number, "known_good": pair.known_good.number, "why": why}
                for pair, why in self._subjects.uncompared(route)
            ],
        }

    async def _version_report(self, key: Profiled, tests: Mapping[str, int]) -> Json:
        told: Json = {"version": key.version.number, "model": key.version.model, "profile": key.profile}
        reference = await self._subjects.reference(key.profile)
        if reference is None:
            return told | {"state": "no-profile", "features": [], "whole": []}
        belief = await self._seen(key.scope, reference.plan.size)
        policy = corrected(self._subjects.policy(key.version.model, tests), belief)
        return told | await asyncio.to_thread(version_report, reference, belief, policy)

    async def _pair_report(self, pair: Pair, tests: Mapping[str, int]) -> Json:
        told: Json = {"version": pair.version.number, "known_good": pair.known_good.number}
        reference = await self._subjects.reference(pair.profile)
        if reference is None:
            return told | {"state": "no-profile", "features": []}
        belief = await self._seen(pair.scope, 2 * reference.plan.size)
        policy = self._subjects.policy(pair.version.model, tests)
        return told | await asyncio.to_thread(arms_report, Arms(reference), belief, policy)

    async def _seen(self, scope: str, size: int) -> Belief:
        """What the leader believed at its last look, whoever it is."""
        held = self._beliefs().get(scope)
        if held is not None:
            return held
        octets = await self._shared.kept(scope)
        found = None if octets is None else from_bytes(octets, size)
        return found or Belief.begin(Tally(0, np.zeros(size, np.int64)), 0.0)
