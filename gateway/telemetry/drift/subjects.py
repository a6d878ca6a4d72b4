"""What there is to look at: the versions of each route that have a profile, pairs of them, and by what policy."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.errors import TurnoutError
from gateway.messages import VersionRef
from gateway.routing.table import Route, RoutingTable
from gateway.settings_drift import DriftSettings
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.given import Given, fed, given, why_uncompared
from gateway.telemetry.drift.judging import Policy
from gateway.telemetry.drift.looks import reference_of
from gateway.telemetry.drift.sharing import Profiled
from runtimes.counting import Plan
from runtimes.counting_profile import Profile

__all__ = ["Pair", "ReadProfile", "Subjects"]

log = logging.getLogger("turnout.drift")

T = TypeVar("T")

ReadProfile = Callable[[str], bytes]
"""A profile's JSON by its digest; runs in a thread. Raises TurnoutError or OSError."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A version beside the known good of its route, counted with the known good's profile."""

    route: str
    version: VersionRef
    known_good: VersionRef
    profile: str

    @property
    def scope(self) -> str:
        return f"{Profiled(self.version, self.profile).scope}/beside/{self.known_good.number}"


class Subjects:
    """``profiles`` gives the profile of each version that is here and has one; ``table`` the routes in force."""

    def __init__(
        self,
        table: Callable[[], RoutingTable],
        profiles: Callable[[], Mapping[VersionRef, str]],
        read_profile: ReadProfile,
        settings: DriftSettings,
    ) -> None:
        self._table = table
        self._profiles = profiles
        self._read_profile = read_profile
        self.settings = settings
        self._plans: dict[str, Plan | None] = {}
        self._references: dict[str, Reference | None] = {}
        self._unread: set[str] = set()

    def __repr__(self) -> str:
        return f"<Subjects [{len(self._profiles())} versions with a profile | {len(self._plans)} profiles read]>"

    def __bool__(self) -> bool:
        return bool(self._profiles())

    @property
    def routes(self) -> Mapping[str, Route]:
        return self._table().routes

    @property
    def served(self) -> frozenset[VersionRef]:
        """What may answer on any route, or gets copies."""
        return frozenset(
            ref for route in self.routes.values() for ref in fed(route) | set(map(route.ref, route.pinnable))
        )

    def watched(self, route: Route) -> Iterator[tuple[VersionRef, str]]:
        profiles = self._profiles()
        for ref in sorted(map(route.ref, _named(route) | route.pinnable)):
            if ref in profiles:
                yield ref, profiles[ref]

    def pairs(self, route: Route) -> Iterator[Pair]:
        """Versions that chance alone gives their inputs."""
        for pair, why in self._beside(route):
            if not why:
                yield pair

    def uncompared(self, route: Route) -> Iterator[tuple[Pair, str]]:
        """Versions that differ by design, each with why."""
        return ((pair, why) for pair, why in self._beside(route) if why)

    def given(self, route: Route, version: VersionRef) -> Given:
        return given(self.routes, route, version)

    def _beside(self, route: Route) -> Iterator[tuple[Pair, str]]:
        profiles, routes, good = self._profiles(), self.routes, route.known_good
        numbers = _named(route) - route.quarantined
        if good is None or good not in numbers or route.ref(good) not in profiles:
            return
        for ref in map(route.ref, sorted(numbers - {good})):
            pair = Pair(route.name, ref, route.ref(good), profiles[route.ref(good)])
            yield pair, why_uncompared(routes, route, ref, route.ref(good))

    async def tests(self) -> Mapping[str, int]:
        """By model, among how many tests the budget is divided."""
        found: dict[str, int] = {}
        routes = list(self.routes.values())
        pairs = [pair for route in routes for pair in self.pairs(route)]
        for ref, profile in sorted({each for route in routes for each in self.watched(route)}):
            plan = await self.plan(profile)
            found[ref.model] = found.get(ref.model, 0) + (0 if plan is None else len(plan.features) + len(plan.blocks))
        for pair in pairs:
            plan = await self.plan(pair.profile)
            more = 0 if plan is None else sum(feature.side == "input" for feature in plan.features)
            found[pair.version.model] = found.get(pair.version.model, 0) + more
        return found

    def policy(self, model: str, tests: Mapping[str, int]) -> Policy:
        settings = self.settings
        own = settings.models.get(model)
        least = settings.least_effect if own is None or own.least_effect is None else own.least_effect
        by_feature = {} if own is None else dict(own.features)
        return Policy(max(1, tests.get(model, 1)), settings.budget_days, least, by_feature)

    async def plan(self, digest: str) -> Plan | None:
        """None for a profile that cannot be read; it is logged once, and read again at the next look, unless it is no
        profile: where it lies may be away for a moment."""
        return await self._made(self._plans, digest, _plan_of)

    async def reference(self, digest: str) -> Reference | None:
        """As ``plan``. Only reports need one here: it is a tenth of a second of work."""
        return await self._made(self._references, digest, reference_of)

    async def _made(self, held: dict[str, T | None], digest: str, make: Callable[[bytes, str], T]) -> T | None:
        if digest in held:
            return held[digest]
        try:
            found = held[digest] = await asyncio.to_thread(make, await self.read(digest), digest)
        except (TurnoutError, OSError, ValueError) as error:
            if digest not in self._unread:
                log.warning("profile %s cannot be read, and what is counted with it is not judged: %s", digest, error)
            self._unread.add(digest)
            if isinstance(error, ValueError):
                held[digest] = None
            return None
        self._unread.discard(digest)
        return found

    async def read(self, digest: str) -> bytes:
        """A profile's JSON. Raises TurnoutError or OSError."""
        return await asyncio.to_thread(self._read_profile, digest)

    def forget_others(self) -> None:
        """What was read for versions that are no longer here."""
        used = set(self._profiles().values())
        self._plans = {digest: held for digest, held in self._plans.items() if digest in used}
        self._references = {digest: held for digest, held in self._references.items() if digest in used}
        self._unread &= used


def _plan_of(octets: bytes, digest: str) -> Plan:
    return Profile.from_json(json.loads(octets), digest).plan


def _named(route: Route) -> frozenset[int]:
    """Versions that get a share of the route's requests, or copies of them."""
    arms = {arm.version for arm in route.arms if arm.weight}
    return frozenset(arms | {shadow.version for shadow in route.shadows})
