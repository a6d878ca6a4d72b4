"""Watches versions for drift: adds up what they counted, shares it, and, on the replica that leads, judges it.

A look every ``look_s``: counters are published, the leader gathers the sums of all replicas and judges each version of
each route (``looks``), keeps what it believes under its term, and tells of alarms. Beliefs are told again and again
until they change; whoever takes the telling writes changes only. While the coordination is away counts add up here, and
the next look sees them all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import numpy as np

from gateway.clock import Clock
from gateway.errors import Fenced, StoreUnavailable, TurnoutError
from gateway.events.observer import Observer
from gateway.events.records import CountsRecord
from gateway.messages import VersionRef
from gateway.routing.table import Route
from gateway.telemetry.drift.figures import Figures
from gateway.telemetry.drift.keeping import Belief, from_bytes
from gateway.telemetry.drift.looking import DriftAlarm, alarms_of, uncompared
from gateway.telemetry.drift.looks import Look, Looked, Looks, LooksHere, PairLook, VersionLook
from gateway.telemetry.drift.orphans import Round, orphans
from gateway.telemetry.drift.sharing import Counted, Profiled, Shared, Tally
from gateway.telemetry.drift.showing import DriftReports
from gateway.telemetry.drift.subjects import Pair, Subjects

__all__ = ["DriftWatch"]

log = logging.getLogger("turnout.drift")

BEAT_S = 1.0
"""How often the post is renewed, well within a lease."""

_LOOKS_BEHIND = 2


class DriftWatch(Observer):
    """``reports`` tells what is believed. ``alarmed`` is told of every alarm there ever was, as it stands, at each
    look; ``standing`` gives those that it was told of and that stand, as ``GET /admin/alarms`` does."""

    def __init__(
        self,
        *,
        shared: Shared,
        subjects: Subjects,
        alarmed: Callable[[DriftAlarm], None],
        standing: Callable[[], Awaitable[Iterable[Mapping[str, Any]]]],
        clock: Clock,
        looks: Looks | None = None,
    ) -> None:
        """``looks``: who does them; in threads of this process if not said."""
        self._looks = LooksHere(subjects.read) if looks is None else looks
        self._shared = shared
        self._subjects = subjects
        self._told_on = alarmed
        self._standing = standing
        self._clock = clock
        self._counted = Counted(uuid4().hex[:12])
        self._beliefs: dict[str, Belief] = {}
        self._figures: dict[VersionRef, Figures] = {}
        self._term: int | None = None
        self._next_look = 0.0
        self._away = False
        # Looks that are still due once nothing is left to look at: alarms of what has gone end at the second.
        self._due = 0
        self._looked_at: dict[VersionRef, float] = {}
        self._retired: set[VersionRef] = set()
        self._uncompared: set[tuple[str, VersionRef]] = set()
        # Of this round: names of the alarms that were told of, and versions that cannot be judged. Of the last one:
        # alarms that nobody told of.
        self._told: set[str] = set()
        self._unread: set[VersionRef] = set()
        self._orphans: set[str] = set()
        self._watching: asyncio.Task[None] | None = None
        self.reports = DriftReports(subjects, shared, lambda: self._beliefs)

    def __repr__(self) -> str:
        led = "leads" if self._term is not None else "follows"
        return f"<DriftWatch [{led} | {len(self._beliefs)} judged]>"

    def start(self) -> None:
        self._watching = asyncio.ensure_future(self._watch_on())
        self._watching.add_done_callback(self._stopped)

    def _stopped(self, watching: asyncio.Task[None]) -> None:
        """A fault that nobody thought of is no reason to judge no drift any more."""
        if watching.cancelled() or watching is not self._watching:
            return
        log.critical("a look for drift failed; the next one is tried", exc_info=watching.exception())
        self._clock.call_at(self._clock.monotonic() + BEAT_S, self._again)

    def _again(self) -> None:
        if self._watching is not None:
            self.start()

    async def close(self) -> None:
        """What was counted is published when that can be done at once."""
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
        await self._looks.close()
        with suppress(StoreUnavailable):
            await self._publish()

    # What is told

    def counted(self, record: CountsRecord) -> None:
        self._counted.add(record)

    def version_retired(self, version: VersionRef) -> None:
        self._retired.add(version)

    def figures(self) -> Sequence[Figures]:
        """Of the versions that are judged here; asked on any thread."""
        return list(self._figures.values())

    def looked_at(self) -> Mapping[VersionRef, float]:
        """When each was judged last (Unix time); of one that never could be, when that was first tried. Asked on any
        thread."""
        return dict(self._looked_at)

    # Looks

    async def _watch_on(self) -> None:
        while True:
            try:
                await self.beat()
            except TurnoutError as error:
                log.warning("drift is not judged now: %s", error)
            await self._clock.sleep(BEAT_S)

    async def beat(self) -> None:
        """Renews the post, and looks when it is time."""
        if self._subjects:
            self._due = _LOOKS_BEHIND
        if not self._due:
            return
        try:
            await self._lead()
            now = self._clock.monotonic()
            if now >= self._next_look:
                self._next_look = now + self._subjects.settings.look_s
                await self.look()
                if not self._subjects:
                    self._due -= 1
        except (StoreUnavailable, Fenced) as error:
            if not self._away:
                log.warning("counts of drift wait: %s", error)
            self._away = True
        else:
            self._away = False

    async def _lead(self) -> None:
        term = await self._shared.lead()
        if term != self._term:
            self._beliefs.clear()
            self._figures.clear()
            self._looked_at.clear()
            self._uncompared.clear()
            self._orphans.clear()
            self._term = term

    async def look(self) -> None:
        """Raises StoreUnavailable, and Fenced when another leads by now."""
        await self._publish()
        if self._term is None:
            return
        self._told.clear()
        self._unread.clear()
        routes = list(self._subjects.routes.values())
        pairs = [pair for route in routes for pair in self._subjects.pairs(route)]
        tests = await self._subjects.tests()
        apart: dict[VersionRef, list[str]] = {}
        for pair in pairs:
            differ = await self._look_at_pair(pair, tests)
            for version in (pair.version, pair.known_good):
                apart.setdefault(version, []).extend(differ)
        self._tell_uncompared(routes)
        done = set()
        for route in routes:
            for version, profile in self._subjects.watched(route):
                if version not in done:
                    done.add(version)
                    await self._look_at(route, Profiled(version, profile), tests, apart.get(version, ()))
        kept = {Profiled(*each).scope for route in routes for each in self._subjects.watched(route)}
        for scope in set(self._beliefs) - kept - {pair.scope for pair in pairs}:
            del self._beliefs[scope]
        for gone in (self._figures.keys() | self._looked_at.keys()) - done:
            self._figures.pop(gone, None)
            self._looked_at.pop(gone, None)
        self._subjects.forget_others()
        await self._end_orphans(done)

    def _alarmed(self, alarm: DriftAlarm) -> None:
        self._told.add(alarm.name)
        self._told_on(alarm)

    async def _end_orphans(self, watched: set[VersionRef]) -> None:
        """Once two looks have found them: at a start, versions come one by one."""
        served = self._subjects.served | watched
        looks = Round(frozenset(self._told), frozenset(watched - self._unread), frozenset(served))
        found = {alarm.name: alarm for alarm in orphans(await self._standing(), looks)}
        for name in found.keys() & self._orphans:
            self._alarmed(found[name])
        self._orphans = set(found)

    def _tell_uncompared(self, routes: Sequence[Route]) -> None:
        """Once: a rule, or another route, that came after an alarm has explained it."""
        found = {(pair.route, pair.version): why for route in routes for pair, why in self._subjects.uncompared(route)}
        for route, version in found.keys() - self._uncompared:
            self._alarmed(uncompared(route, version, found[route, version]))
        self._uncompared = set(found)

    async def _look_at(self, route: Route, key: Profiled, tests: Mapping[str, int], apart: Sequence[str]) -> None:
        plan = await self._subjects.plan(key.profile)
        if plan is None:
            self._not_judged(key.version)
            return
        tally = Tally.from_counters(await self._shared.gather(key.scope), plan.size)
        belief = await self._belief(key.scope, tally)
        policy, shown = self._subjects.policy(key.version.model, tests), self._subjects.settings.features_shown
        now = self._clock.wall()
        look = VersionLook(key.profile, key.version, belief, tally, now, policy, tuple(apart), shown)
        after = await self._looked(key.version, look)
        if after is None:
            return
        self._looked_at[key.version] = now
        fed_by = self._subjects.given(route, key.version)
        for alarm in alarms_of(route.name, key.version, after.belief, fed_by=fed_by):
            self._alarmed(alarm)
        await self._keep(key.scope, belief, after)
        if after.figures is not None:
            self._figures[key.version] = after.figures

    async def _look_at_pair(self, pair: Pair, tests: Mapping[str, int]) -> Sequence[str]:
        """The inputs that the two are not given alike."""
        plan = await self._subjects.plan(pair.profile)
        if plan is None:
            self._unread.add(pair.version)
            return ()
        both = await self._both(pair, plan.size)
        belief = await self._belief(pair.scope, both)
        policy = self._subjects.policy(pair.version.model, tests)
        after = await self._looked(pair.version, PairLook(pair.profile, belief, both, self._clock.wall(), policy))
        if after is None:
            return ()
        for alarm in alarms_of(pair.route, pair.version, after.belief, beside=True):
            self._alarmed(alarm)
        await self._keep(pair.scope, belief, after)
        return tuple(after.belief.state.raised)

    async def _looked(self, version: VersionRef, look: Look) -> Looked | None:
        """None where it failed: one version's fault must not cost the others theirs. Its alarms stand meanwhile."""
        try:
            return await self._looks.do(look)
        except (TurnoutError, OSError) as error:
            log.warning("drift of %s is not judged now: %s", version, error)
        self._not_judged(version)
        return None

    def _not_judged(self, version: VersionRef) -> None:
        self._unread.add(version)
        self._looked_at.setdefault(version, self._clock.wall())

    async def _both(self, pair: Pair, size: int) -> Tally:
        scopes = [Profiled(version, pair.profile).scope for version in (pair.version, pair.known_good)]
        one, other = [Tally.from_counters(await self._shared.gather(scope), size) for scope in scopes]
        return Tally(one.seen, np.concatenate([one.counts, other.counts]), one.lives | other.lives)

    async def _belief(self, scope: str, tally: Tally) -> Belief:
        held = self._beliefs.get(scope)
        if held is None:
            octets = await self._shared.kept(scope)
            held = None if octets is None else from_bytes(octets, len(tally.counts))
            if held is None:
                held = Belief.begin(tally._replace(counts=np.zeros_like(tally.counts)), self._clock.wall())
        return held

    async def _keep(self, scope: str, before: Belief, looked: Looked) -> None:
        """What no row and no new bet has changed need not be written again."""
        after = self._beliefs[scope] = looked.belief
        same = after.seen == before.seen and after.state.starts.opened == before.state.starts.opened
        if self._term is not None and not (same and before.calibration == after.calibration):
            await self._shared.keep(scope, looked.octets, self._term)

    async def _publish(self) -> None:
        for key, tally in self._counted.unpublished():
            await self._shared.publish(key.scope, tally.to_counters())
            self._counted.published(key, tally)
        while self._retired:
            await self._take_back(self._retired.pop())

    async def _take_back(self, version: VersionRef) -> None:
        """Nothing of it runs here any more. Where it has left the routes, too, its counts would stay for nothing, a
        megabyte for each of a thousand features; should it come back it counts from nothing, as after a restart."""
        left = version not in self._subjects.served
        for key in self._counted.of(version):
            self._counted.drop(key)
            if left:
                await self._shared.publish(key.scope, {})
