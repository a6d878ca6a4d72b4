"""The story of a request: decide, lease, submit, respond; and ask the fallback when the chosen version fails.

All that a request needs is one immutable pair of routing table and handles behind one reference. It
is read once; from reading it to the lease nothing is awaited, so no swap can come between. A request
keeps its pair to the end. Only one whose version was ended under it (rolled back while it hung) is
decided anew, on the newest pair: it fails with nobody's version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from gateway.clock import Clock
from gateway.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    QueueFull,
    ServiceDraining,
    TurnoutError,
    VersionFailed,
    VersionUnavailable,
)
from gateway.events import Observer
from gateway.messages import Arrays, Decision, InferRequest, InferResponse, Signature, VersionRef
from gateway.routing.decide import decide
from gateway.routing.table import Route, RoutingTable
from gateway.serving.handle import Handle, VersionState

__all__ = ["Current", "Dataplane", "Decode", "Trail"]

Decode = Callable[[Signature], tuple[Arrays, int]]
"""A request's arrays and rows, typed by a version's signature. Pure; may be asked twice. Raises InvalidInput."""


@dataclass(frozen=True, slots=True)
class Current:
    """What is in force: a routing table, and a handle for every version it may choose."""

    table: RoutingTable
    handles: Mapping[VersionRef, Handle] = field(default_factory=dict)


EMPTY = Current(RoutingTable(routes={}, default_route=None, revision=0))


@dataclass(slots=True)
class Trail:
    """What became of one request, filled as it goes, also when it ends in an error.

    ``route`` is set once the route is known to exist (``request_started`` has then been told).
    ``chosen_failure`` is the class name of the VersionFailed that the *chosen* version met;
    ``queue_s`` of a request that missed its deadline is all the time that the version had.
    ``slow``: the chosen version took longer than its route's ``slow_ms``, or failed after that.
    """

    route: str | None = None
    decision: Decision | None = None
    chosen_failure: str | None = None
    answered_by: VersionRef | None = None
    rows: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    slow: bool = False


class Dataplane:
    """Answers requests by whatever is in force. Used from the event loop only."""

    def __init__(self, *, observer: Observer, clock: Clock) -> None:
        self.current = EMPTY
        self._observer = observer
        self._clock = clock
        self._draining = False
        self._inflight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    def __repr__(self) -> str:
        state = "draining" if self._draining else "open"
        return f"<Dataplane revision {self.current.table.revision} [{state} | {self._inflight} in flight]>"

    @property
    def inflight(self) -> int:
        return self._inflight

    @property
    def draining(self) -> bool:
        return self._draining

    def install(self, current: Current) -> Current:
        """Puts a new pair in force for every request from now on; the old one, whose handles may now be retired."""
        before, self.current = self.current, current
        self._observer.table_applied(current.table.revision)
        return before

    def drain(self) -> None:
        """No new work from now on; what was admitted is answered."""
        self._draining = True

    async def drained(self) -> None:
        """Returns when nothing is in flight."""
        await self._quiet.wait()

    async def infer(self, request: InferRequest, decode: Decode, trail: Trail) -> InferResponse:
        """Decides, asks the chosen version, then the route's fallback if that one failed.

        Raises UnknownRoute, UnknownVersion, Forbidden, Quarantined, InvalidInput, Overloaded,
        DeadlineExceeded, VersionFailed (no fallback, or it failed too) or ServiceDraining.
        Cancelling it drops the work; its neighbours in a batch are not touched.
        """
        self._begin(request, trail)
        self._inflight += 1
        self._quiet.clear()
        try:
            return await self._story(_Request(request, decode, trail, self._clock.monotonic()))
        except (QueueFull, DeadlineUnreachable) as refusal:
            reason = "queue-full" if isinstance(refusal, QueueFull) else "deadline"
            self._observer.request_rejected(trail.route or "", reason)
            raise
        finally:
            self._inflight -= 1
            if not self._inflight:
                self._quiet.set()

    def _begin(self, request: InferRequest, trail: Trail) -> None:
        table = self.current.table
        name = request.route if request.route is not None else table.default_route
        if name is not None and name in table.routes:
            trail.route = name
            self._observer.request_started(name)
        if self._draining:
            if trail.route is not None:
                self._observer.request_rejected(trail.route, "draining")
            raise ServiceDraining("the gateway is shutting down and takes no new work; ask another replica")

    async def _story(self, asked: _Request) -> InferResponse:
        while True:
            current = self.current
            decision = decide(current.table, asked.request)
            route = current.table.routes[decision.route]
            asked.trail.decision = decision
            try:
                return await self._chosen(current, route, decision, asked)
            except VersionFailed as failure:
                if self._ended_under(current, decision.version):
                    continue
                return await self._fallback(route, decision, failure, asked)

    async def _chosen(self, current: Current, route: Route, decision: Decision, asked: _Request) -> InferResponse:
        """Asks the chosen version; whatever it did wrong is on the trail before any fallback hides it."""
        try:
            return await self._ask(current, route, decision, asked)
        except VersionFailed as failure:
            if not self._ended_under(current, decision.version):
                asked.trail.chosen_failure = type(failure).__name__
            raise
        finally:
            slow_ms = route.limits.slow_ms
            elapsed = self._clock.monotonic() - asked.began
            asked.trail.slow = slow_ms is not None and elapsed * 1000 > slow_ms

    async def _fallback(self, route: Route, chosen: Decision, failure: VersionFailed, asked: _Request) -> InferResponse:
        """The route's other way, by the table now in force, within the same deadline; else ``failure`` stands.

        A fallback that is ended under it gives way to the newest table's.
        """
        told = False
        while True:
            current = self.current
            route = current.table.routes.get(route.name, route)
            number = route.fallback
            if number is None or number in route.quarantined or route.ref(number) == chosen.version:
                raise failure
            decision = replace(chosen, version=route.ref(number), reason="fallback", revision=current.table.revision)
            if not told:
                self._observer.fell_back(chosen, type(failure).__name__)
                told = True
            try:
                response = await self._ask(current, route, decision, asked)
            except VersionFailed as second:
                if not self._ended_under(current, decision.version):
                    raise second from failure
            except TurnoutError as second:
                raise second from failure
            else:
                return replace(response, fallback_from=chosen.version)

    async def _ask(self, current: Current, route: Route, decision: Decision, asked: _Request) -> InferResponse:
        """Lease, decode, submit, respond."""
        handle = current.handles.get(decision.version)
        if handle is None:
            raise VersionUnavailable(f"{decision.version} is not loaded here; see its state for why, or wait for it")
        trail = asked.trail
        with handle.lease():
            arrays, trail.rows = asked.decode(handle.signature)
            deadline = self._deadline(route, asked)
            handed = self._clock.monotonic()
            try:
                answer = await handle.infer(arrays, trail.rows, deadline, queue_rows=route.limits.queue_rows)
            except DeadlineExceeded:
                trail.queue_s = self._clock.monotonic() - handed
                raise
        trail.answered_by = decision.version
        trail.queue_s, trail.compute_s = answer.queue_s, answer.compute_s
        return InferResponse(decision, answer.outputs, handle.signature, trail.rows, answer.queue_s, answer.compute_s)

    def _deadline(self, route: Route, asked: _Request) -> float:
        if asked.request.deadline is not None:
            return asked.request.deadline
        return asked.began + route.limits.timeout_ms / 1000

    def _ended_under(self, current: Current, version: VersionRef) -> bool:
        """Whether the version was taken away by a change, which has put something newer in force."""
        handle = current.handles.get(version)
        gone = handle is None or handle.state in (VersionState.DRAINING, VersionState.RETIRED)
        return gone and self.current is not current


@dataclass(frozen=True, slots=True)
class _Request:
    """A request on its way: what was asked, its trail, and when it came."""

    request: InferRequest
    decode: Decode
    trail: Trail
    began: float
