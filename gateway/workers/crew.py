"""The web workers of one node: started, told of every change, watched, replaced when they die, and ended.

The node holds each worker's listening socket, too, so that connections which the kernel has queued for a
worker that dies are taken by its successor instead of being reset. If none comes soon, the socket is
closed, and the other workers get what would have come to it.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock, Timer
from gateway.control.progress import Waiting
from gateway.errors import SettingsError, TurnoutError
from gateway.serving.supervision import backoff_s
from gateway.workers.colleague import Colleague, Desk, State
from gateway.workers.link import Link
from gateway.workers.place import Place
from gateway.workers.process import WebProcess
from gateway.workers.publisher import Publisher
from gateway.workers.replay import Replay, Replays

__all__ = ["Crew", "CrewStatistics"]

log = logging.getLogger("turnout.workers")

START_S = 60.0
"""A worker that has read nothing yet is starting, and may take so long, as at the gateway's start."""

IN_FORCE_S = 2.0
"""How long an answer to a change waits until every worker has applied it."""

STALE_S = 0.25
"""A worker that leaves what it is told unread for so long is not waited for any more."""

STUCK_S = 5.0
"""… and for so long is ended and replaced."""

HOLD_S = 3.0
GOOD_SPELL_S = 30.0
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class CrewStatistics:
    serving: int
    stale: int
    restarts: int
    dropped_events: int


class Crew:
    """``rebind`` makes another socket for a place whose own was given up. ``settings``: what a worker begins with."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        *,
        rebind: Callable[[], socket.socket],
        settings: Mapping[str, Any],
        publisher: Publisher,
        replays: Replays,
        desk: Callable[[Callable[[], None]], Desk],
        clock: Clock,
        spawn: Callable[[socket.socket], WebProcess] = WebProcess,
        line: Callable[[], socket.socket | None] = lambda: None,
    ) -> None:
        """``line``: a new one to the recorder; None while there is no recorder."""
        self._spawn = spawn
        self._line = line
        self._rebind = rebind
        self._settings = settings
        self._publisher = publisher
        self._replays = replays
        self._clock = clock
        self._waiting = Waiting(clock)
        self._desk = desk(self._changed)
        self._places = [Place(number, listening) for number, listening in enumerate(sockets, start=1)]
        self._ending = False
        self._owned_up = 0  # the newest change that was answered without every worker
        self._look: Timer | None = None

    def __repr__(self) -> str:
        states = [str(each.state) for each in self._colleagues()]
        return f"<Crew [{' | '.join(states) or 'nobody'}]>"

    def statistics(self) -> CrewStatistics:
        colleagues = list(self._colleagues())
        return CrewStatistics(
            serving=sum(each.state is State.SERVING for each in colleagues),
            stale=sum(each.behind_s() > STALE_S for each in colleagues),
            restarts=sum(place.restarts for place in self._places),
            dropped_events=self._replays.dropped,
        )

    def view(self) -> list[dict[str, Any]]:
        """Every place as ``GET /admin/replicas`` shows it."""
        return [self._view(place) for place in self._places]

    def _view(self, place: Place) -> dict[str, Any]:
        colleague = place.colleague
        return {
            "worker": place.number,
            "pid": None if colleague is None else colleague.process.pid,
            "state": "ended" if colleague is None else str(colleague.state),
            "current": colleague is not None and colleague.applied == self._publisher.number,
            "stale": colleague is not None and colleague.behind_s() > STALE_S,
            "requests": place.requests_before + (0 if colleague is None else colleague.replay.requests),
            "restarts": place.restarts,
        }

    async def start(self) -> None:
        """Returns when every worker listens. SettingsError when one does not come up; the others are ended then."""
        self._publisher.refresh()
        for place in self._places:
            place.keeping = asyncio.ensure_future(self._keep(place))
        try:
            async with asyncio.timeout(START_S):
                await asyncio.gather(*(self._first(place) for place in self._places))
        except TimeoutError:
            raise SettingsError(f"the web workers did not come up within {START_S:g} s; see the log for why") from None
        self._watch()

    def publish(self) -> None:
        """Tells every worker what has changed. Called whenever something may have; returns at once."""
        if self._ending:
            return
        change = self._publisher.refresh()
        if change is not None:
            for colleague in self._colleagues():
                colleague.tell(change)

    def renew_lines(self) -> None:
        """There is a new recorder."""
        for colleague in self._colleagues():
            colleague.line(self._line())

    async def in_force(self) -> bool:
        """Returns once every worker has what the node has in force now, but for those that are stuck; or too late."""
        number = self._publisher.number
        in_time = self._applied(number)
        if not in_time:
            stale = self._clock.call_at(self._clock.monotonic() + STALE_S * 1.02, self._waiting.wake)
            try:
                in_time = await self._waiting.until(lambda: self._applied(number), IN_FORCE_S)
            finally:
                stale.cancel()
        self._own_up(number)
        return in_time

    def _own_up(self, number: int) -> None:
        """Whom an answer did not wait for is told once for each change."""
        late = [each.place for each in self._colleagues() if each.due is not None and each.applied < number]
        if late and number > self._owned_up:
            self._owned_up = number
            places = ", ".join(map(str, late))
            log.warning("a change is answered, and not in force yet in web worker %s, which does not keep up", places)

    async def stop(self, *, drain_s: float) -> None:
        """No new work; every worker ends when what it admitted is answered and told of."""
        self._ending = True
        if self._look is not None:
            self._look.cancel()
        for place in self._places:
            if place.holding is not None:
                place.holding.cancel()
        processes = [each.process for each in self._colleagues()]
        for colleague in self._colleagues():
            colleague.drain()
        if processes:
            await asyncio.wait([process.gone for process in processes], timeout=drain_s)
        for process in processes:
            process.kill()
        keeping = [place.keeping for place in self._places if place.keeping is not None]
        if keeping:
            await asyncio.wait(keeping, timeout=5.0)
        for place in self._places:
            if place.listening is not None:
                place.listening.close()

    # One place

    async def _first(self, place: Place) -> None:
        listens = asyncio.ensure_future(place.listens.wait())
        keeping = place.keeping
        if keeping is None:
            raise SettingsError(f"worker {place.number} was not started")
        await asyncio.wait({listens, keeping}, return_when=asyncio.FIRST_COMPLETED)
        listens.cancel()
        if keeping.done():
            keeping.result()
            raise SettingsError(f"worker {place.number} ended before it could listen; see the log for why")

    async def _keep(self, place: Place) -> None:
        """Workers for the place, one after the other, until the crew ends."""
        while True:
            colleague = self._started(place)
            status = await colleague.process.gone
            await asyncio.sleep(0)  # what it sent with its last breath is read before its end is seen
            colleague.close()
            place.requests_before += colleague.replay.requests
            place.colleague = None
            self._changed()
            if self._is_over() or not place.listens.is_set():
                return  # it never listened: that is for whoever starts the gateway to hear
            await self._pause(place, colleague, status)
            if self._is_over():
                return

    async def _pause(self, place: Place, colleague: Colleague, status: int) -> None:
        if self._clock.monotonic() - place.since > GOOD_SPELL_S:
            place.deaths = 0
        place.deaths += 1
        place.restarts += 1
        wait = backoff_s(place.deaths)
        log.error(
            "web worker %d (pid %d) ended with status %d; its connections are lost, the next starts%s",
            place.number, colleague.process.pid, status, f" in {wait:g} s" if wait else " now",
        )  # fmt: skip
        if place.holding is None:
            place.holding = self._clock.call_at(self._clock.monotonic() + HOLD_S, lambda: self._give_up_socket(place))
        if wait:
            await self._clock.sleep(wait)

    def _is_over(self) -> bool:
        return self._ending

    def _started(self, place: Place) -> Colleague:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._spawn(theirs)
        except OSError:
            ours.close()
            raise
        place.since = self._clock.monotonic()
        colleague = Colleague(place.number, process, Link(ours), Replay(self._replays), self._desk)
        place.colleague = colleague
        colleague.begin(self._settings, self._publisher.everything())
        colleague.line(self._line())
        return colleague

    def _give_up_socket(self, place: Place) -> None:
        place.holding = None
        others = any(other.listening is not None for other in self._places if other is not place)
        if place.listening is not None and others:
            place.listening.close()
            place.listening = None

    def _seat(self, place: Place, colleague: Colleague) -> None:
        """The worker has in force what there was when it began: it may take connections."""
        if place.holding is not None:
            place.holding.cancel()
            place.holding = None
        try:
            if place.listening is None:
                place.listening = self._rebind()
        except TurnoutError as error:
            log.error("web worker %d has nothing to listen on: %s", place.number, error)
            colleague.close()
            return
        colleague.listen([place.listening])
        place.listens.set()

    # All of them

    def _colleagues(self) -> Iterable[Colleague]:
        return [
            place.colleague
            for place in self._places
            if place.colleague is not None and place.colleague.state is not State.ENDED
        ]

    def _applied(self, number: int) -> bool:
        return all(
            each.applied >= number or each.behind_s() > STALE_S or each.due is None for each in self._colleagues()
        )

    def _changed(self) -> None:
        for place in self._places:
            colleague = place.colleague
            if colleague is not None and colleague.state is State.STARTING and colleague.applied and not self._ending:
                self._seat_if_due(place, colleague)
        self._waiting.wake()

    def _seat_if_due(self, place: Place, colleague: Colleague) -> None:
        """Nobody waits for a worker that has nothing in force yet, so answers may have told of changes that it has not
        heard of: it listens once it has those, too. Not for ever: a node that loads hundreds of versions always has one
        more to tell."""
        if colleague.due is None:
            colleague.due = self._publisher.number
            if colleague.applied < colleague.due:
                limit = self._clock.monotonic() + IN_FORCE_S
                self._clock.call_at(limit, lambda: self._seat_late(place, colleague))
        if colleague.applied >= colleague.due:
            self._seat(place, colleague)

    def _seat_late(self, place: Place, colleague: Colleague) -> None:
        if place.colleague is colleague and colleague.state is State.STARTING and not self._ending:
            self._seat(place, colleague)

    def _watch(self) -> None:
        """Ends workers that have stopped to read: a stopped one would serve the past when it wakes."""
        for colleague in self._colleagues():
            if colleague.behind_s() > (STUCK_S if colleague.taken else START_S):
                log.error(
                    "web worker %d (pid %d) has not read for %.1f s and is ended",
                    colleague.place, colleague.process.pid, colleague.behind_s(),
                )  # fmt: skip
                colleague.close()
        self._look = self._clock.call_at(self._clock.monotonic() + _LOOK_S, self._watch)
