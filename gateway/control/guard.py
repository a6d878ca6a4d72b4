"""Takes a version that fails outright off its route: watches, asks ``judge``, goes back, once.

It goes to the known good. When the offender is the known good, or there is nowhere to go, it says
so once, and again only when the route has changed or the version had recovered.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from gateway.clock import Clock, Timer
from gateway.control.ending import ended
from gateway.control.judge import GuardPolicy, Verdict, alike, judge
from gateway.control.outcomes import Deaths, Evidence, Outcome, Window
from gateway.control.rollbacks import Rollbacks
from gateway.control.store import AuditEntry, Store
from gateway.dataplane import Dataplane
from gateway.errors import Conflict, NotFound, StoreUnavailable, VersionUnavailable
from gateway.events.bursts import Burst
from gateway.events.observer import Observer
from gateway.events.records import BatchRecord, RequestRecord
from gateway.messages import VersionRef
from gateway.routing.table import Route

__all__ = ["SETTLE_S", "Guard", "GuardPolicy", "Verdict", "judge"]

log = logging.getLogger("turnout.guard")

TICK_S = 0.5

SETTLE_S = 0.1
"""Web workers tell failures at once, and what went well up to 70 ms later. Of a version's first moment, or the first
after a quiet spell, that worker's requests are known then and no other's: it may have one client, who sends what nobody
can answer. So a verdict by shares has to stand for so long: then all is told of the time that it was found in."""

_BY_SHARE = frozenset({"error-burst", "deadline"})
ACTOR = "guard"


@dataclass(frozen=True, slots=True)
class _Situation:
    """What must change before the guard says again that it can do nothing."""

    route: str
    version: VersionRef
    known_good: int | None
    quarantined: frozenset[int]


class _Found:
    """A verdict by shares that stands. ``told``: and all of the time up to it."""

    __slots__ = ("told",)

    def __init__(self, *, told: bool) -> None:
        self.told = told


class Guard(Observer):
    """An observer among others: it must never raise, so it only counts, judges and starts tasks.

    ``waiting``: how many requests a version holds now, asked when a child of it is found hung. ``settle_s``: how long
    after a failure all else of its time is told (``SETTLE_S`` with web workers).
    """

    def __init__(
        self,
        *,
        dataplane: Dataplane,
        rollbacks: Rollbacks,
        store: Store,
        policy: GuardPolicy,
        clock: Clock,
        waiting: Callable[[VersionRef], int],
        settle_s: float = 0.0,
    ) -> None:
        self._dataplane = dataplane
        self._rollbacks = rollbacks
        self._store = store
        self._policy = policy
        self._clock = clock
        self._waiting = waiting
        self._settle_s = settle_s
        self._windows: dict[tuple[str, VersionRef], Window] = {}
        self._deaths: dict[VersionRef, Deaths] = {}
        self._suspects: set[tuple[str, VersionRef]] = set()
        self._found: dict[tuple[str, VersionRef], _Found] = {}
        self._said: set[_Situation] = set()
        self._acting: dict[str, asyncio.Task[None]] = {}
        self._notes: set[asyncio.Task[None]] = set()
        self._tick: Timer | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Guard [{len(self._windows)} watched | {len(self._suspects)} suspected | {len(self._acting)} acting]>"

    async def close(self) -> None:
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
        tasks = {*self._acting.values(), *self._notes}
        for task in tasks:
            task.cancel()
        for task in tasks:
            await ended(task)

    def evidence(self, route: str, version: VersionRef) -> Evidence:
        window, deaths = self._windows.get((route, version)), self._deaths.get(version)
        return Evidence(() if window is None else window.intervals(), () if deaths is None else deaths.listed())

    # What is told

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        burst = Burst.of(records)
        for good in burst.good:
            self._count(good.route, good.version, Outcome.GOOD, len(good))
        for record in burst.others:
            outcome = None if record.decision is None else self._outcome(record)
            if record.decision is not None and outcome is not None:
                self._count(record.decision.route, record.decision.version, outcome, 1)

    def _count(self, name: str, version: VersionRef, outcome: Outcome, count: int) -> None:
        route = self._dataplane.current.table.routes.get(name)
        if route is None or route.model != version.model or version.number in route.quarantined:
            return
        key = (name, version)
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = Window(self._policy.window_s)
        window.add(self._clock.monotonic(), outcome, count)
        if outcome is not Outcome.GOOD:
            self._suspect(key)

    def _outcome(self, record: RequestRecord) -> Outcome | None:
        """What the request says of the version chosen for it; None: nothing."""
        failure = record.chosen_failure
        if failure is None and record.error is None:
            return Outcome.GOOD
        if failure == VersionUnavailable.__name__:
            # Backing off after deaths is its own doing; not loaded yet is not.
            return Outcome.FAILED if record.decision and self._has_died(record.decision.version) else None
        if failure is not None:
            return Outcome.FAILED
        if record.error == "DeadlineExceeded" and record.queue_s >= self._policy.patience_s:
            return Outcome.LATE
        return None

    def _has_died(self, version: VersionRef) -> bool:
        deaths = self._deaths.get(version)
        since = self._clock.monotonic() - self._policy.crash_window_s
        return deaths is not None and any(d.at > since and d.cause != "load" for d in deaths.listed())

    def batch_finished(self, record: BatchRecord) -> None:
        deaths = self._deaths.get(record.version)
        if deaths is not None and record.failure is None:
            deaths.batch_came_back()

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        deaths = self._deaths.setdefault(version, Deaths())
        deaths.died(self._clock.monotonic(), cause, isolating=isolating, waiting=self._waiting(version))
        for route in self._dataplane.current.table.routes.values():
            if self._serves(route, version):
                self._suspect((route.name, version))

    def _serves(self, route: Route, version: VersionRef) -> bool:
        """By split or rule; or by a pin, which only its requests tell."""
        if route.model != version.model or version.number in route.quarantined:
            return False
        ruled = any(version.number in rule.versions() for rule in route.rules)
        weighted = any(arm.version == version.number and arm.weight for arm in route.arms)
        return weighted or ruled or (route.name, version) in self._windows

    def table_applied(self, revision: int) -> None:
        """A route that is gone leaves nothing behind; one made later under its name starts anew."""
        routes = self._dataplane.current.table.routes
        for key in [key for key in self._windows if key[0] not in routes]:
            self._forget(key)
        self._said = {situation for situation in self._said if situation.route in routes}

    def version_retired(self, version: VersionRef) -> None:
        self._deaths.pop(version, None)
        for key in [key for key in self._windows if key[1] == version]:
            self._forget(key)

    def _forget(self, key: tuple[str, VersionRef]) -> None:
        self._windows.pop(key, None)
        self._suspects.discard(key)
        self._found.pop(key, None)

    # What is done

    def _suspect(self, key: tuple[str, VersionRef]) -> None:
        self._suspects.add(key)
        self._consider(key)
        self._wind()

    def _is_told(self, key: tuple[str, VersionRef]) -> bool:
        """Whether a verdict by shares has stood for long enough; if not, it is looked at again when it has."""
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = _Found(told=not self._settle_s)
            if self._settle_s:
                self._clock.call_at(self._clock.monotonic() + self._settle_s, partial(self._settled, key, found))
        return found.told

    def _settled(self, key: tuple[str, VersionRef], found: _Found) -> None:
        found.told = True
        if self._found.get(key) is found:
            self._consider(key)

    def _wind(self) -> None:
        """Looks again while anybody is suspected: evidence runs out, and a way out may open."""
        if self._tick is None and not self._closed and (self._suspects or self._said):
            self._tick = self._clock.call_at(self._clock.monotonic() + TICK_S, self._look_again)

    def _look_again(self) -> None:
        self._tick = None
        for key in list(self._suspects):
            self._consider(key)
        for situation in list(self._said):
            if self._is_well((situation.route, situation.version)):
                self._said.discard(situation)
        self._wind()

    def _is_well(self, key: tuple[str, VersionRef]) -> bool:
        """Recovered: lately it answered, and nothing else."""
        now = self._clock.monotonic()
        evidence = self.evidence(*key)
        recent = [interval for interval in evidence.intervals if interval.start > now - self._policy.window_s]
        bad = sum(interval.failed + interval.late for interval in recent)
        return not bad and sum(interval.good for interval in recent) >= self._policy.min_requests

    def _consider(self, key: tuple[str, VersionRef]) -> None:
        name, version = key
        route = self._dataplane.current.table.routes.get(name)
        if route is None or route.model != version.model or version.number in route.quarantined:
            self._forget(key)
            return
        evidence, now = self.evidence(name, version), self._clock.monotonic()
        verdict = judge(evidence, self._policy, now)
        if verdict is None:
            self._found.pop(key, None)
            if not self._is_suspect_still(key):
                self._suspects.discard(key)
            return
        if name in self._acting or self._closed:
            return
        if verdict.rule in _BY_SHARE and not self._is_told(key):
            return
        if route.known_good in (None, version.number):
            self._say_once(route, version, verdict, "it is the known good itself: there is nowhere to go back to")
            return
        known_good = self.evidence(name, route.ref(route.known_good))
        if alike(verdict, evidence, known_good, self._policy, now):
            self._say_once(route, version, verdict, f"the known good {route.known_good} fails alike: it stays")
            return
        task = asyncio.ensure_future(self._act(route, version, verdict))
        self._acting[name] = task
        task.add_done_callback(lambda done: self._acted(name, done))

    def _is_suspect_still(self, key: tuple[str, VersionRef]) -> bool:
        now = self._clock.monotonic()
        evidence = self.evidence(*key)
        bad = any(i.failed + i.late for i in evidence.intervals if i.start > now - self._policy.window_s)
        return bad or any(death.at > now - self._policy.crash_window_s for death in evidence.deaths)

    async def _act(self, route: Route, version: VersionRef, verdict: Verdict) -> None:
        reason = f"{version} failed: {verdict.reason}"
        try:
            outcome = await self._rollbacks.roll_back(
                route.name,
                to=route.known_good,
                reason=reason,
                actor=ACTOR,
                trigger=f"guard:{verdict.rule}",
                offender=version.number,
            )
        except (Conflict, NotFound) as error:
            self._say_once(route, version, verdict, f"it cannot be rolled back: {error}")
            return
        if outcome.changed:
            log.warning("guard: route %s is back at %s: %s", route.name, route.known_good, reason)

    def _acted(self, name: str, task: asyncio.Task[None]) -> None:
        self._acting.pop(name, None)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("the guard could not act on route %s", name, exc_info=fault)

    def _say_once(self, route: Route, version: VersionRef, verdict: Verdict, why: str) -> None:
        situation = _Situation(route.name, version, route.known_good, route.quarantined)
        if situation in self._said:
            return
        self._said = {old for old in self._said if (old.route, old.version) != (route.name, version)} | {situation}
        reason = f"{version} failed ({verdict.rule}: {verdict.reason}), and {why}"
        log.error("guard: route %s: %s", route.name, reason)
        entry = AuditEntry(ACTOR, "guard-no-target", f"route/{route.name}", reason, {"rule": verdict.rule})
        note = asyncio.ensure_future(self._note(entry))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _note(self, entry: AuditEntry) -> None:
        try:
            await self._store.commit([], entry)
        except StoreUnavailable as error:
            log.error("the guard's note could not be stored: %s", error)
