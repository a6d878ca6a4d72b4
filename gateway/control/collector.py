"""Collects the outcomes of routes that have a rollout into counters: what evidence is made of.

An outcome is the version's that the *split chose*, whoever answered in the end. Telling costs a route without a rollout
one look-up; the rest happens a few times a second: which keys are new is asked of the coordination, the counters that
this adds to are cumulative integers of this process, and they are published whole, so that a call that is made twice
counts once.

What a request says is for ``request_outcomes`` to tell; it is counted a moment later, in the order in which requests
began (``start_order``). A label that comes later still is counted when the other arm has labels of the same while
(``late_labels``).

While the coordination is away outcomes wait; past a limit *all* that wait are lost together, those of both
arms, so that what is left is still a fair draw.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter as Sum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from gateway.clock import Clock
from gateway.control.coordination import Coordination
from gateway.control.ending import ended
from gateway.control.late_labels import Late, LateLabels
from gateway.control.request_outcomes import RequestOutcomes, Tally
from gateway.control.start_order import StartOrder
from gateway.control.statistics.scores import scaled
from gateway.control.tallies import AGAIN, CANDIDATE, FRESH, Counter, named_by_epoch, of_epoch
from gateway.control.watches import Watch
from gateway.errors import StoreUnavailable
from gateway.events.observer import Observer
from gateway.events.records import RequestRecord, ShadowRecord
from gateway.messages import VersionRef

__all__ = ["MAX_WAITING", "Collector", "CollectorStatistics"]

log = logging.getLogger("turnout.rollout")

TICK_S = 0.2
MAX_WAITING = 100_000
MOST_LATE_S = 1.0
"""A web worker tells what went well up to 70 ms after it ended, and failures at once. What seems to be told of later
than this ended before the clock was set."""
EPOCHS_KEPT = 4


@dataclass(frozen=True, slots=True)
class CollectorStatistics:
    """``lost``: outcomes that waited too long for the coordination, of both arms alike. ``unpaired``: labels that wait
    for the other arm's of the same while."""

    watched: int
    waiting: int
    lost: int
    unpaired: int = 0


class _Outcome(NamedTuple):
    """``claims``: under which name keys are unique. ``tallies``: counters of the first outcome of a key, less their
    novelty, and by how much each grows. ``due``: when it is counted, on the monotonic clock."""

    watch: Watch
    claims: str
    place: int
    tallies: tuple[Tally, ...]
    due: float


@dataclass(slots=True)
class _Counters:
    """Of one rollout, by epoch; written by the collector alone. ``published``: all that is in them was."""

    by_epoch: dict[int, Sum[str]] = field(default_factory=dict)
    published: bool = True


class Collector(Observer):
    """``watches`` is asked whenever a table is in force anew. ``patience_s`` is that of ``RequestOutcomes``."""

    def __init__(
        self,
        *,
        coordination: Coordination,
        watches: Callable[[], Mapping[str, Watch]],
        clock: Clock,
        patience_s: float,
    ) -> None:
        self._coordination = coordination
        self._watches_now = watches
        self._clock = clock
        self._requests = RequestOutcomes(patience_s)
        self._watched: Mapping[str, Watch] = {}
        self._waiting: list[_Outcome] = []
        self._counters: dict[str, _Counters] = {}
        self._labels = LateLabels()
        self._order = StartOrder()
        self._stale: set[str] = set()
        self._lost = 0
        self._away = False
        self._collecting: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Collector [{len(self._watched)} watched | {len(self._waiting)} waiting | {self._lost} lost]>"

    def statistics(self) -> CollectorStatistics:
        return CollectorStatistics(len(self._watched), len(self._waiting), self._lost, self._labels.waiting)

    def start(self) -> None:
        self.table_applied(0)
        self._collecting = asyncio.ensure_future(self._collect_on())

    async def close(self) -> None:
        """What waits is published when that can be done at once."""
        await ended(self._collecting)
        self._collecting = None
        await self.tick(last=True)

    # What is told

    def table_applied(self, revision: int) -> None:
        before, self._watched = self._watched, dict(self._watches_now())
        for watch in before.values():
            if watch not in self._watched.values():
                self._stale |= {f"{watch.scope}/{watch.epoch}/{kind}" for kind in ("keys", "pairs", "labels", "scores")}
        scopes = {watch.scope for watch in self._watched.values()}
        self._labels.watch(self._watched)
        ended = [scope for scope in self._counters if scope not in scopes]
        self._stale |= {f"{scope}/{kind}" for scope in ended for kind in ("keys", "pairs", "labels", "scores")}
        for scope in ended:
            del self._counters[scope]
        self._order.keep(self._watched)
        if before != self._watched:
            current = set(self._watched.values())
            self._waiting = [outcome for outcome in self._waiting if outcome.watch in current]

    def version_crashed(self, version: VersionRef, cause: str, isolating: bool) -> None:
        if cause != "load":
            self._requests.crashed(version)

    def version_retired(self, version: VersionRef) -> None:
        self._requests.retired(version)

    def requests_finished(self, records: Sequence[RequestRecord]) -> None:
        if self._watched:
            for record in records:
                self._finished(record)

    def _finished(self, record: RequestRecord) -> None:
        watch = self._watched.get(record.route)
        if watch is None or record.decision is None or record.decision.bucket is None:
            return
        decision = record.decision
        arm = watch.arm_of(decision.version)
        if arm is None or decision.epoch != watch.epoch or decision.bucket is None:
            return
        tallies = self._requests.of(record, arm)
        if not tallies:
            return
        late = self._clock.wall() - record.started_wall - record.duration_s
        ended_at = self._clock.monotonic() - (late if 0.0 < late <= MOST_LATE_S else 0.0)
        due = self._order.due(record.route, record.duration_s, ended_at)
        self._hold(_Outcome(watch, "keys", decision.bucket, tallies, due))

    def shadow_compared(self, record: ShadowRecord) -> None:
        """One of the two is the candidate; a known good that fails as a shadow says nothing of it."""
        watch = self._watched.get(record.route)
        if watch is None or record.bucket is None or record.epoch != watch.epoch or record.outcome == "dropped":
            return
        if {record.answered, record.shadow} != {watch.candidate, watch.baseline}:
            return
        if record.outcome == "failed" and record.shadow != watch.candidate:
            return
        outcome = "good" if record.outcome == "agrees" else "bad"
        self._hold(_Outcome(watch, "pairs", record.bucket, ((("disagreement", "all"), CANDIDATE, outcome, 1),), 0.0))

    def label(
        self,
        route: str,
        bucket: int,
        version: VersionRef,
        *,
        wrong: bool,
        split: str = "split",
        epoch: int | None = None,
        age_s: float | None = None,
    ) -> bool:
        """A later label of an answer of ``version``, which the split had chosen for the key; whether it is of use.

        ``epoch``: that of the answer (None: this one). ``age_s``: how long ago it was given; where nobody knows,
        the label counts at once (``late_labels``).
        """
        says = (("bad" if wrong else "good", 1),)
        return self._late(Late("label", route, bucket, version, split, epoch, says), age_s)

    def score(
        self,
        route: str,
        bucket: int,
        version: VersionRef,
        value: float,
        *,
        of: str,
        split: str = "split",
        epoch: int | None = None,
        age_s: float | None = None,
    ) -> bool:
        """A later score of an answer, as ``label``; ``of`` what, since a rollout judges by one kind alone. It counts
        within the range of the plan."""
        watch = self._watched.get(route)
        if watch is None or watch.score is None or watch.score.of != of:
            return False
        score = scaled(value, watch.score.worst, watch.score.best)
        says = (("units", 1), ("sum", score), ("squares", score * score))
        return self._late(Late("score", route, bucket, version, split, epoch, says), age_s)

    def _late(self, late: Late, age_s: float | None) -> bool:
        place = self._labels.place_of(late)
        if place is None:
            return False
        for one in self._labels.due(late, place, age_s=age_s, now=self._clock.monotonic()):
            self._hold_late(one)
        return True

    def _hold_late(self, late: Late) -> None:
        place = self._labels.place_of(late)
        if place is not None:
            watch, arm, stratum = place
            tallies = tuple(((late.stream, stratum), arm, outcome, amount) for outcome, amount in late.says)
            self._hold(_Outcome(watch, f"{late.stream}s", late.bucket, tallies, 0.0))

    def _hold(self, outcome: _Outcome) -> None:
        self._waiting.append(outcome)
        if len(self._waiting) >= MAX_WAITING:
            self._lost += len(self._waiting)
            self._waiting = []

    # What is counted

    async def _collect_on(self) -> None:
        while True:
            (failure,) = await asyncio.gather(self.tick(), return_exceptions=True)
            if isinstance(failure, Exception):
                log.error("outcomes could not be counted", exc_info=failure)
            await self._clock.sleep(TICK_S)

    async def tick(self, *, last: bool = False) -> None:
        """Counts what is due (``last``: all), publishes what is new. What the coordination does not take now waits."""
        self.table_applied(0)
        self._order.looked()
        try:
            await self._count(math.inf if last else self._clock.monotonic())
            await self._publish()
            await self._forget()
        except StoreUnavailable as error:
            if not self._away:
                log.warning("outcomes of rollouts wait: %s", error)
            self._away = True
        else:
            self._away = False

    async def _count(self, now: float) -> None:
        held = sorted((outcome for outcome in self._waiting if outcome.due <= now), key=attrgetter("due"))
        self._waiting = [outcome for outcome in self._waiting if outcome.due > now]
        groups: dict[tuple[Watch, str], list[_Outcome]] = {}
        for outcome in held:
            groups.setdefault((outcome.watch, outcome.claims), []).append(outcome)
        left = list(groups)
        try:
            for (watch, claims), outcomes in groups.items():
                await self._count_one(watch, claims, outcomes)
                left.remove((watch, claims))
        finally:
            back = [outcome for group in left for outcome in groups[group]]
            if len(back) + len(self._waiting) >= MAX_WAITING:
                self._lost += len(back)
            else:
                self._waiting[:0] = back

    async def _count_one(self, watch: Watch, claims: str, outcomes: Sequence[_Outcome]) -> None:
        places = [outcome.place for outcome in outcomes]
        fresh = await self._coordination.claim(f"{watch.scope}/{claims}", places)
        in_epoch = await self._coordination.claim(f"{watch.scope}/{watch.epoch}/{claims}", places)
        if watch not in self._watched.values():
            return  # ended meanwhile: nobody asks for it any more
        counters = self._counters.setdefault(watch.scope, _Counters())
        counted = counters.by_epoch.setdefault(watch.epoch, Sum())
        for outcome, is_first, is_fresh in zip(outcomes, in_epoch, fresh, strict=True):
            if is_first:
                novelty = FRESH if is_fresh else AGAIN
                for (stream, stratum), arm, result, amount in outcome.tallies:
                    counted[str(Counter(stream, stratum, novelty, arm, result))] += amount
                counters.published = False
        for old in sorted(counters.by_epoch)[:-EPOCHS_KEPT]:
            del counters.by_epoch[old]

    async def _publish(self) -> None:
        for scope, counters in list(self._counters.items()):
            if not counters.published:
                counters.published = True
                try:
                    await self._coordination.publish(scope, named_by_epoch(counters.by_epoch))
                except StoreUnavailable:
                    counters.published = False
                    raise

    async def _forget(self) -> None:
        """Claims of epochs and rollouts that have ended."""
        while self._stale:
            scope = self._stale.pop()
            try:
                await self._coordination.forget(scope)
            except StoreUnavailable:
                self._stale.add(scope)
                raise

    async def gather(self, scope: str, epoch: int) -> Mapping[str, int]:
        """The counters of the epoch, summed over all replicas. Raises StoreUnavailable."""
        return of_epoch(await self._coordination.gather(scope), epoch)

    def local(self, scope: str, epoch: int) -> Mapping[str, int]:
        """What this process has counted."""
        counters = self._counters.get(scope)
        return {} if counters is None else dict(counters.by_epoch.get(epoch, {}))
