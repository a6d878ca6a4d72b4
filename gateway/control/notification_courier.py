"""Follows the audit log for one target of notifications, and sends what it wants until it is taken or given up.

The log is the outbox: nothing is kept in memory beyond a few notices, and nothing is lost with a process. Each target
has a courier of its own, with a place kept by the coordination, so a dead one holds up neither the others nor, with
several notices under way at once, what comes after a notice that its receiver cannot digest. One replica leads each
target's post. A notice has the same delivery id whoever sends it: one that was taken while its sender died, or was
stopped and went on, may be sent twice, never under another name.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.control.attempts import Ending
from gateway.control.audit import GENESIS
from gateway.control.coordination import Coordination
from gateway.control.ending import ended
from gateway.control.notification_events import Notice, notice_of, wanted
from gateway.control.notification_place import Ledger, Place
from gateway.control.notification_sender import Sender
from gateway.control.store import AuditEntry, AuditRecord, Fence, Store
from gateway.errors import Fenced, StoreUnavailable
from gateway.live_secrets import LiveSecrets
from gateway.settings import NotificationSettings, NotificationTarget

__all__ = ["ACTOR", "GIVEN_UP", "REFUSED", "Courier", "CourierStatistics"]

log = logging.getLogger("turnout.notifications")

ACTOR = "notifications"
GIVEN_UP, REFUSED = "notification-given-up", "notification-refused"
"""Actions of the audit log."""

TICK_S = 1.0
"""The post is renewed, and who does not have it looks whether it is free; well within a lease."""
FRESH_S = 2.0
"""So long after it was renewed the post is taken to be ours: less than a lease."""
REFRESH_S = 6 * 3600.0
"""A place that nobody moves is written again, since a coordination may forget what is not used."""
LAST_S = 2.0
PAGE_RECORDS = 20
UNDER_WAY = 8
MAX_SETTLED = 1000


@dataclass(frozen=True, slots=True)
class CourierStatistics:
    """Of one target, by this replica. ``oldest_at``: when what is under way longest happened; None: nothing is."""

    target: str
    endings: dict[str, int]
    attempts: int
    under_way: int
    oldest_at: float | None
    trouble: str


class Courier:
    """One target's. ``wake`` tells how far the log is."""

    def __init__(
        self,
        target: NotificationTarget,
        settings: NotificationSettings,
        *,
        store: Store,
        coordination: Coordination,
        clock: Clock,
        secrets: LiveSecrets | None = None,
    ) -> None:
        self.target = target
        self._settings = settings
        self._store = store
        self._coordination = coordination
        self._clock = clock
        self._sender = Sender(target, settings, clock, secrets)
        self._post = f"notifications/{target.name}"
        self._term: int | None = None
        self._led_at = 0.0
        self._renewed = asyncio.Event()
        self._ledger = Ledger.at(Place())
        self._not_before = 0.0
        self._queue: deque[Notice] = deque()
        self._tasks: dict[int, asyncio.Task[Ending]] = {}
        self._endings: Counter[str] = Counter()
        self._first: int | None = None
        self._newest = 0
        self._kept: Place | None = None
        self._kept_at = 0.0
        self._due = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Courier {self.target.name} [{len(self._tasks)} under way | settled to {self._ledger.place.cursor}]>"

    def start(self) -> None:
        self._following = asyncio.ensure_future(self._follow())

    async def close(self) -> None:
        """What is under way stays owed: the next leader sends it. What was taken is kept as that, if it can be."""
        await ended(self._following)
        term = self._term
        await self._let_go()
        if term is not None:
            with suppress(TimeoutError, StoreUnavailable, Fenced):
                async with asyncio.timeout(LAST_S):
                    await self._coordination.keep(self._post, self._ledger.moved().packed(), Fence(self._post, term))
        await self._sender.close()

    def wake(self, revision: int) -> None:
        self._first = revision if self._first is None else self._first
        self._newest = revision
        self._due.set()

    def statistics(self) -> CourierStatistics:
        oldest = min((self._ledger.owed[number][0].at for number in self._tasks), default=None)
        return CourierStatistics(
            self.target.name, dict(self._endings), self._sender.attempts, len(self._tasks), oldest, self._sender.trouble
        )

    # Following

    async def _follow(self) -> None:
        """A round that fails in a way nobody thought of is told, and tried again: events stay owed meanwhile."""
        while True:
            await self._woken(REFRESH_S)
            (fault,) = await asyncio.gather(self._serve(), return_exceptions=True)
            if isinstance(fault, Exception):
                if not isinstance(fault, StoreUnavailable | Fenced):
                    log.error("notifications to %s stand still", self.target.name, exc_info=fault)
                await self._let_go()
                await self._clock.sleep(TICK_S)
                self._due.set()

    async def _woken(self, within_s: float) -> None:
        timer = self._clock.call_at(self._clock.monotonic() + within_s, self._due.set)
        try:
            await self._due.wait()
        finally:
            timer.cancel()
        self._due.clear()

    async def _serve(self) -> None:
        """Until nothing is owed, whoever sends it."""
        while True:
            asked_at = self._clock.monotonic()
            term = await self._coordination.lead(self._post)
            if term is None:
                await self._let_go()
                found = Place.parse(await self._coordination.kept(self._post))
                if found is not None and found.cursor >= self._newest:
                    self._ledger = Ledger.at(found)
                    return
                await self._clock.sleep(TICK_S)
                continue
            fence = Fence(self._post, term)
            if term != self._term:
                await self._let_go()
                await self._take_over()
                self._term = term
            self._led_at = asked_at
            self._renewed.set()
            await self._read_on()
            await self._settle(fence)
            if not self._tasks and not self._queue and self._ledger.read >= self._newest and self._kept is not None:
                return
            await self._woken(TICK_S)

    async def _let_go(self) -> None:
        """Another leads, or it is not known who does. What was taken is remembered."""
        self._term = self._kept = None
        tasks, self._tasks = self._tasks, {}
        self._queue.clear()
        for number, task in tasks.items():
            if task.done() and task.exception() is None and task.result() is Ending.DELIVERED:
                self._endings[str(Ending.DELIVERED)] += 1
                self._ledger.settle(number)
            await ended(task)

    # Where it goes on

    async def _take_over(self) -> None:
        """From what was kept, and from what this process knows beyond it: it may have been cut off from who keeps."""
        kept, known = Place.parse(await self._coordination.kept(self._post)), self._ledger.moved()
        found = known if known.cursor or known.settled else None
        found = kept if found is None else found.united(kept)
        if found is None or await self._is_ahead(found):
            found = await self._begin()
        self._ledger = Ledger.at(found)

    async def _is_ahead(self, place: Place) -> bool:
        """Of the log itself, which so is an older one."""
        return place.cursor > self._newest and place.cursor > (await self._store.snapshot()).revision

    async def _begin(self) -> Place:
        """At the log's end, as this process saw it first: nobody is told of the past. A log that an operator restored
        is followed from there, as far as it would still be sent."""
        snapshot = await self._store.snapshot()
        self._not_before = 0.0
        if snapshot.origin is not None:
            self._not_before = self._clock.wall() - self._settings.give_up_s
            return Place(*snapshot.origin)
        number = min(snapshot.revision, self._newest if self._first is None else self._first)
        last = await self._store.audit(after=number - 1, limit=1) if number else ()
        return Place(number, last[0].digest if last else GENESIS)

    # Reading

    async def _read_on(self) -> None:
        while True:
            while self._queue and len(self._tasks) < UNDER_WAY:
                notice = self._queue.popleft()
                self._tasks[notice.sequence] = task = asyncio.ensure_future(self._sender.send(notice, self._leading))
                task.add_done_callback(lambda _: self._due.set())
            room = len(self._tasks) < UNDER_WAY and len(self._ledger.place.settled) < MAX_SETTLED
            if self._queue or not room or self._ledger.read >= self._newest:
                return
            page = await self._store.audit(after=self._ledger.read, limit=PAGE_RECORDS)
            if not page:
                return
            if (page[0].sequence, page[0].previous) != (self._ledger.read + 1, self._ledger.digest):
                log.error("notifications to %s: the audit log is another than was followed", self.target.name)
                self._ledger = Ledger.at(await self._begin())
                continue
            for record in page:
                noticed = self._noticed(record)
                owed = self._ledger.passed(record.sequence, record.previous, record.digest, noticed)
                self._queue.extend(() if owed is None else (owed,))

    def _noticed(self, record: AuditRecord) -> Notice | None:
        try:
            notice = notice_of(record)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            log.error("audit record %d cannot be told of: %r", record.sequence, error)
            return None
        told = notice is not None and record.at >= self._not_before and wanted(notice, self.target)
        return notice if told else None

    # Sending

    async def _leading(self) -> None:
        """A process that was stopped asks again whether it leads before it goes on: cancelled, if it does not."""
        while self._clock.monotonic() - self._led_at > FRESH_S:
            self._renewed.clear()
            self._due.set()
            await self._renewed.wait()

    async def _settle(self, fence: Fence) -> None:
        """What has ended is counted and, unless it was taken, written to the audit log; then the place is kept."""
        for number in [number for number, task in self._tasks.items() if task.done()]:
            ending = self._tasks[number].result()
            notice = self._ledger.owed[number][0]
            tries, answer = self._sender.told(notice)
            if ending is not Ending.DELIVERED:
                await self._give_up(notice, ending, f"{answer} after {tries} attempts", fence)
            del self._tasks[number]
            self._endings[str(ending)] += 1
            self._ledger.settle(number)
        moved, now = self._ledger.moved(), self._clock.monotonic()
        if moved == self._kept and now - self._kept_at < REFRESH_S:
            return
        try:
            await self._coordination.keep(self._post, moved.packed(), fence)
        except StoreUnavailable as error:  # it is known here, and kept later
            log.info("how far notifications to %s have come is not kept: %s", self.target.name, error)
            self._kept = None
        else:
            self._kept, self._kept_at = moved, now

    async def _give_up(self, notice: Notice, ending: Ending, why: str, fence: Fence) -> None:
        """Told by log and metric, and by the audit log if the store takes it."""
        action, reason = REFUSED if ending is Ending.REFUSED else GIVEN_UP, f"{why}: {notice.title}"
        detail = {"event": notice.event, "sequence": notice.sequence, "delivery": self._sender.delivery(notice)}
        log.error("%s: %s of record %d: %s", action, self.target.name, notice.sequence, reason)
        try:
            await self._store.commit([], AuditEntry(ACTOR, action, self._post, reason, detail), fence=fence)
        except StoreUnavailable as error:
            log.error("that a notification was given up could not be stored: %s", error)
