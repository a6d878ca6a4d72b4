"""The response caches of all routes: equal requests to one version are answered by one computation, or by none.

A request that finds its answer gets it. One that finds an equal request under way waits for that one's answer;
otherwise it computes, and what it computes is kept. Whoever computes owes the others nothing: if the version fails,
they compute for themselves; if its client leaves, its deadline passes or it gives way in the queue, which is its own
affair, one of them takes its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from gateway.clock import Clock
from gateway.errors import DeadlineExceeded, Overloaded
from gateway.events.observer import Observer
from gateway.messages import Arrays
from gateway.serving.answer_cache import (
    AnswerCache,
    CacheStatistics,
    Shelf,
    cost_of,
    key_of,
    read_only_copies,
    size_of,
)
from gateway.serving.engine import VersionSpec
from gateway.serving.item import Answer, Priority

__all__ = ["Answers", "CachedRoute", "Compute"]

Compute = Callable[[], Awaitable[Answer]]
"""Asks the version itself."""

HASH_IN_THREAD_BYTES = 1024 * 1024
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class CachedRoute:
    """How much a route's cache may hold, how long an answer is good, and the digests of the versions whose answers
    it may hold: those that are loaded and not quarantined there."""

    max_bytes: int
    ttl_s: float | None
    digests: Collection[str]


class _Place(NamedTuple):
    """Where one request's answer stands, or would."""

    route: str
    cache: AnswerCache
    shelf: Shelf
    key: bytes


class _Flight:
    """One computation under way, and the equal requests that wait for it. ``left``: it was given up, for a reason that
    those who wait need not share."""

    __slots__ = ("deadline", "left", "priority", "waiters")

    def __init__(self, priority: Priority, deadline: float) -> None:
        self.priority = priority
        self.deadline = deadline
        self.left = False
        self.waiters: list[asyncio.Future[Arrays | None]] = []


class Answers:
    """Caches by route. Used from the event loop only."""

    def __init__(self, *, clock: Clock, observer: Observer) -> None:
        self._clock = clock
        self._observer = observer
        self._caches: dict[str, AnswerCache] = {}
        self._told: dict[str, tuple[int, int]] = {}
        self._flights: dict[tuple[Shelf, bytes], _Flight] = {}

    def __repr__(self) -> str:
        held = [cache.statistics() for cache in self._caches.values()]
        entries, size = sum(one.entries for one in held), sum(one.held_bytes for one in held)
        return f"<Answers [{len(held)} routes | {entries} entries | {size} bytes | {len(self._flights)} under way]>"

    def statistics(self) -> Mapping[str, CacheStatistics]:
        return {route: cache.statistics() for route, cache in self._caches.items()}

    def install(self, routes: Mapping[str, CachedRoute]) -> None:
        """These routes have a cache from now on, and no others. A cache whose bounds have changed starts empty."""
        for name in self._caches.keys() - routes.keys():
            self._caches.pop(name).allow(())
            self._tell(name)
        for name, wanted in routes.items():
            cache = self._caches.get(name)
            if cache is not None and (cache.max_bytes, cache.ttl_s) != (wanted.max_bytes, wanted.ttl_s):
                cache.allow(())
                cache = None
            if cache is None:
                cache = self._caches[name] = AnswerCache(wanted.max_bytes, wanted.ttl_s)
            cache.allow(wanted.digests)
            self._tell(name)

    async def ask(
        self,
        route: str,
        spec: VersionSpec,
        inputs: Arrays,
        compute: Compute,
        *,
        deadline: float | None = None,
        priority: Priority = Priority.NORMAL,
        bypass: bool = False,
    ) -> Answer:
        """The version's answer, kept or computed. An answer that was not computed for this request alone is read-only.

        ``bypass``: compute and keep nothing, as for every version whose effects must not repeat. Raises what
        ``compute`` raises, and DeadlineExceeded while it waits for another's computation. Cancelling it gives up
        this request alone.
        """
        cache = self._caches.get(route)
        shelf = None if cache is None or bypass or not spec.retry else cache.shelf(spec.digest)
        if cache is None or shelf is None:
            self._observer.cache_asked(route, "bypass")
            return await compute()
        in_thread = size_of(inputs) > HASH_IN_THREAD_BYTES
        key = await asyncio.to_thread(key_of, inputs) if in_thread else key_of(inputs)
        place = _Place(route, cache, shelf, key)
        outcome, began = "miss", self._clock.monotonic()
        try:
            while True:
                found = cache.get(shelf, key, self._clock.monotonic())
                if found is not None:
                    outcome = "hit"
                    return Answer(found, 0.0, 0.0)
                flight = self._flights.get((shelf, key))
                if flight is None or priority < flight.priority:
                    return await self._lead(place, _Flight(priority, NEVER if deadline is None else deadline), compute)
                shared = await self._wait(flight, deadline)
                if shared is not None:
                    outcome = "joined"
                    return Answer(shared, self._clock.monotonic() - began, 0.0)
                if not flight.left:
                    return await compute()
        finally:
            self._observer.cache_asked(route, outcome)

    async def _lead(self, place: _Place, flight: _Flight, compute: Compute) -> Answer:
        """Computes for itself and for all who come meanwhile."""
        at = (place.shelf, place.key)
        self._flights[at] = flight
        shared: Arrays | None = None
        try:
            answer = await compute()
            shared = self._kept(place, answer.outputs, wanted=bool(flight.waiters))
        except (asyncio.CancelledError, DeadlineExceeded, Overloaded):
            flight.left = True
            raise
        else:
            return answer
        finally:
            if self._flights.get(at) is flight:
                del self._flights[at]
            for waiter in flight.waiters:
                if not waiter.done():
                    waiter.set_result(shared)

    def _kept(self, place: _Place, outputs: Arrays, *, wanted: bool) -> Arrays | None:
        """Copies to hand out, kept if they may be; None when they may not, and nobody wants them now."""
        cost = cost_of(outputs)
        takes = place.shelf.open and place.cache.takes(cost)
        if not takes and not wanted:
            return None
        shared = read_only_copies(outputs)
        if takes:
            evicted = place.cache.put(place.shelf, place.key, shared, cost, self._clock.monotonic())
            self._tell(place.route, evicted)
        return shared

    async def _wait(self, flight: _Flight, deadline: float | None) -> Arrays | None:
        """The outputs of a computation under way; None when it came to nothing."""
        waiter: asyncio.Future[Arrays | None] = asyncio.get_running_loop().create_future()
        flight.waiters.append(waiter)
        if deadline is None or deadline >= flight.deadline:  # it is over by then, one way or the other
            return await waiter
        timer = self._clock.call_at(deadline, lambda: _expire(waiter))
        try:
            return await waiter
        finally:
            timer.cancel()

    def _tell(self, route: str, evicted: int = 0) -> None:
        cache = self._caches.get(route)
        entries, held_bytes = (0, 0) if cache is None else cache.holds
        told_entries, told_bytes = self._told.pop(route, (0, 0))
        if cache is not None:
            self._told[route] = entries, held_bytes
        if (entries, held_bytes) != (told_entries, told_bytes) or evicted:
            self._observer.cache_changed(route, entries - told_entries, held_bytes - told_bytes, evicted)


def _expire(waiter: asyncio.Future[Arrays | None]) -> None:
    if not waiter.done():
        waiter.set_exception(
            DeadlineExceeded("the deadline passed while an equal request was computed; ask with a longer one")
        )
