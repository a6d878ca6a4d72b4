"""The story of a request: decide, lease, submit, respond; and ask the fallback when the chosen version fails.

All that a request needs is one immutable pair of routing table and handles behind one reference. It
is read once; from reading it to the lease nothing is awaited, so no swap can come between. A request
keeps its pair to the end. Only one whose version was ended under it (rolled back while it hung) is
decided anew, on the newest pair: it fails with nobody's version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from gateway.clock import Clock
from gateway.errors import (
    DeadlineExceeded,
    DeadlineUnreachable,
    DecisionLogFull,
    QueueFull,
    ServiceDraining,
    TurnoutError,
    VersionFailed,
    VersionUnavailable,
)
from gateway.events.observer import Observer
from gateway.messages import Arrays, Decision, InferRequest, InferResponse, Signature, Texts, VersionRef
from gateway.routing.decide import decide
from gateway.routing.table import Route, RoutingTable
from gateway.serving.answers import Answers, CachedRoute
from gateway.serving.handle import Handle, VersionState
from gateway.serving.item import Answer, Priority
from gateway.shadowing.copies import Shadowing
from gateway.shadowing.given import Given

__all__ = ["Current", "Dataplane", "Decode", "Fitted", "Records", "Trail"]

Fitted = tuple[Arrays, int]
"""A request's arrays, typed by a version's signature, and its rows."""

Decode = Callable[[Signature], Fitted | Awaitable[Fitted]]
"""Pure; may be asked twice. To be awaited where the body is decoded in another process. Raises InvalidInput."""

_new = tuple.__new__

_PRIORITIES = {None: Priority.NORMAL, "high": Priority.HIGH, "normal": Priority.NORMAL, "low": Priority.LOW}

_KEEP_INPUTS = frozenset({"onnx", "echo"})
"""Formats whose runtimes leave the arrays that they are given as they are."""

_OWN_ANSWER = frozenset({"no-store", "no-cache", "max-age=0"})


@dataclass(frozen=True, slots=True)
class Current:
    """What is in force: a routing table, and a handle for every version it may choose."""

    table: RoutingTable
    handles: Mapping[VersionRef, Handle] = field(default_factory=dict)


EMPTY = Current(RoutingTable(routes={}, default_route=None, revision=0))


class Records(Protocol):
    """Where answers are recorded. ``full``: not now, so a route that wants none unrecorded gives none. ``decisions``:
    there is a decision log; else only what truth needs is kept."""

    full: bool
    decisions: bool


class Trail:
    """What became of one request, filled as it goes, also when it ends in an error.

    ``route`` is set once the route is known to exist (``request_started`` has then been told).
    ``chosen_failure`` is the class name of the VersionFailed that the *chosen* version met;
    ``queue_s`` of a request that missed its deadline is all the time that the version had.
    ``slow``: the chosen version took longer than its route's ``slow_ms``, or failed after that.
    ``batch`` and ``batch_rows`` are the answer's (``gateway.serving.item``). ``inputs`` and ``outputs`` are kept where
    the route wants to see them. ``began``, ``decided`` and ``submitted`` are times of the clock: the data plane took
    the request, had a decision, and gave it to the version that was asked last; 0 where it did not come to that.
    """

    __slots__ = (
        "answered_by", "batch", "batch_rows", "began", "chosen_failure", "compute_s", "decided", "decision", "inputs",
        "outputs", "queue_s", "route", "rows", "slow", "submitted",
    )  # fmt: skip

    def __init__(self) -> None:
        self.route: str | None = None
        self.decision: Decision | None = None
        self.chosen_failure: str | None = None
        self.answered_by: VersionRef | None = None
        self.rows = 0
        self.queue_s = 0.0
        self.compute_s = 0.0
        self.batch = 0
        self.batch_rows = 0
        self.slow = False
        self.began = self.decided = self.submitted = 0.0
        self.inputs: Arrays | None = None
        self.outputs: Arrays | None = None


class Dataplane:
    """Answers requests by whatever is in force. Used from the event loop only."""

    def __init__(
        self, *, observer: Observer, clock: Clock, cores: int | None = None, records: Records | None = None
    ) -> None:
        """``cores``: those that this process's share of spare work may count on (None: all that it may run on).
        Without ``records`` no answer is kept, or refused because it cannot be."""
        self.current = EMPTY
        self.answers = Answers(clock=clock, observer=observer)
        self.shadowing = Shadowing(clock=clock, observer=observer, cores=cores)
        self._observer = observer
        self._clock = clock
        self._records = records
        self._draining = False
        self._inflight = 0
        self._quiet = asyncio.Event()

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
        self.answers.install(_cached_routes(current))
        self.shadowing.install(current.table, current.handles)
        return before

    def drain(self) -> None:
        """No new work from now on; what was admitted is answered. Copies for shadows are given up: nobody waits for
        them."""
        self._draining = True
        self.shadowing.stop()

    async def drained(self) -> None:
        """Returns when nothing is in flight; for after ``drain``."""
        while self._inflight:
            self._quiet.clear()
            await self._quiet.wait()

    async def infer(self, request: InferRequest, decode: Decode, trail: Trail) -> InferResponse:
        """Decides, asks the chosen version, then the route's fallback if that one failed.

        Raises UnknownRoute, UnknownVersion, Forbidden, Quarantined, InvalidInput, Overloaded,
        DeadlineExceeded, VersionFailed (no fallback, or it failed too), ServiceDraining or DecisionLogFull.
        Cancelling it drops the work; its neighbours in a batch are not touched.
        """
        self._begin(request, trail)
        monotonic = self._clock.monotonic
        trail.began = began = monotonic()
        asked = _new(_Request, (request, decode, trail, began))
        self._inflight += 1
        failure: VersionFailed | None = None
        try:
            while True:
                current = self.current
                decision = trail.decision = decide(current.table, request)
                route = current.table.routes[decision.route]
                trail.decided = monotonic()
                if route.refuses:
                    self._refuse_unrecorded(route)
                try:
                    response = await self._ask(current, route, decision, asked)
                except VersionFailed as failed:
                    self._judge_pace(route, asked)
                    if self._ended_under(current, decision.version):
                        continue
                    # Whatever it did wrong is on the trail before any fallback hides it.
                    trail.chosen_failure = type(failed).__name__
                    failure = failed
                except TurnoutError:
                    self._judge_pace(route, asked)
                    raise
                if failure is not None:  # out here: see docs/architecture.md, "The short way"
                    return await self._fallback(route, decision, failure, asked)
                if route.limits.slow_ms is not None:
                    self._judge_pace(route, asked)
                return response
        except (QueueFull, DeadlineUnreachable) as refusal:
            reason = "queue-full" if isinstance(refusal, QueueFull) else "deadline"
            self._observer.request_rejected(trail.route or "", reason)
            raise
        finally:
            failure = None  # it knows this frame
            self._inflight -= 1
            if not self._inflight and self._draining:
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

    def _refuse_unrecorded(self, route: Route) -> None:
        if self._records is None or not self._records.decisions or not self._records.full:
            return
        self._observer.request_rejected(route.name, "decision-log-full")
        raise DecisionLogFull(
            f"route {route.name!r} gives no answer that cannot be recorded, and its record cannot be kept now; try "
            "again shortly, or have an operator look at the decision log"
        )

    def _judge_pace(self, route: Route, asked: _Request) -> None:
        slow_ms = route.limits.slow_ms
        if slow_ms is not None:
            asked.trail.slow = (self._clock.monotonic() - asked.began) * 1000 > slow_ms

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
            decision = chosen._replace(version=route.ref(number), reason="fallback", revision=current.table.revision)
            if not told:
                self._observer.fell_back(chosen, type(failure).__name__)
                told = True
            asked.trail.decided = self._clock.monotonic()
            try:
                response = await self._ask(current, route, decision, asked)
            except VersionFailed as second:
                if not self._ended_under(current, decision.version):
                    second.__cause__ = failure  # "from" says nothing where this is compiled
                    raise
            except TurnoutError as second:
                second.__cause__ = failure
                raise
            else:
                return response._replace(fallback_from=chosen.version)

    async def _ask(self, current: Current, route: Route, decision: Decision, asked: _Request) -> InferResponse:
        """Lease, decode, submit, respond."""
        handle = current.handles.get(decision.version)
        if handle is None:
            raise VersionUnavailable(f"{decision.version} is not loaded here; see its state for why, or wait for it")
        request, decode, trail, began = asked
        limits = route.limits
        with handle.lease():
            fitted = decode(handle.signature)
            arrays, rows = fitted if isinstance(fitted, tuple) else await fitted
            trail.rows = rows
            records = self._records
            kept = route.keeps_content and records is not None and (records.decisions or route.truth is not None)
            if kept:
                trail.inputs = _copies(arrays) if _may_write(handle) else arrays
            deadline = began + limits.timeout_ms / 1000 if request.deadline is None else request.deadline
            if route.cache is not None:
                fresh = decision.reason == "fallback" or _asks_afresh(request.headers)
                answer = await self._kept(handle, route, asked, arrays, deadline, fresh=fresh)
            else:
                item = handle.submit(
                    arrays,
                    rows,
                    deadline,
                    queue_rows=limits.queue_rows,
                    priority=_PRIORITIES[request.priority],
                    client=request.client,
                )
                trail.submitted = item.enqueued
                try:
                    answer = await item.future
                except asyncio.CancelledError:
                    handle.forget(item)
                    raise
                except DeadlineExceeded:
                    trail.queue_s = self._clock.monotonic() - item.enqueued
                    raise
        outputs, queue_s, compute_s, trail.batch, trail.batch_rows = answer
        trail.answered_by, trail.queue_s, trail.compute_s = decision.version, queue_s, compute_s
        if kept:
            trail.outputs = outputs
        if route.shadows and trail.batch:  # an answer that was kept says nothing new
            whose = request.trace, request.decision_id
            self.shadowing.offer(Given(route, decision, handle, decode, arrays, rows, outputs, *whose))
        return _new(InferResponse, (decision, outputs, handle.signature, rows, queue_s, compute_s, None))

    async def _kept(
        self, handle: Handle, route: Route, asked: _Request, arrays: Arrays, deadline: float, *, fresh: bool
    ) -> Answer:
        """Submit by way of the route's response cache."""
        request, trail = asked.request, asked.trail
        priority = _PRIORITIES[request.priority]
        trail.submitted = handed = self._clock.monotonic()

        def compute() -> Awaitable[Answer]:
            return handle.infer(
                arrays,
                trail.rows,
                deadline,
                queue_rows=route.limits.queue_rows,
                priority=priority,
                client=request.client,
            )

        try:
            return await self.answers.ask(
                route.name, handle.spec, arrays, compute, deadline=deadline, priority=priority, bypass=fresh
            )
        except DeadlineExceeded:
            trail.queue_s = self._clock.monotonic() - handed
            raise

    def _ended_under(self, current: Current, version: VersionRef) -> bool:
        """Whether the version was taken away by a change, which has put something newer in force."""
        handle = current.handles.get(version)
        gone = handle is None or handle.state in (VersionState.DRAINING, VersionState.RETIRED)
        return gone and self.current is not current


class _Request(NamedTuple):
    """A request on its way: what was asked, its trail, and when it came."""

    request: InferRequest
    decode: Decode
    trail: Trail
    began: float


def _may_write(handle: Handle) -> bool:
    """Whether the version may write on the very arrays that it is given: it runs here, by code that might."""
    return handle.spec.placement == "inline" and handle.spec.load.format not in _KEEP_INPUTS


def _copies(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def _asks_afresh(headers: Texts) -> bool:
    """Whether the client wants an answer of its own (RFC 9111, 5.2.1)."""
    sent = headers.get("cache-control")
    return sent is not None and not _OWN_ANSWER.isdisjoint(part.strip().lower() for part in sent.split(","))


def _cached_routes(current: Current) -> dict[str, CachedRoute]:
    """The routes with a cache, each with the versions that it may ask and that are here."""
    found = {}
    for name, route in current.table.routes.items():
        if route.cache is not None:
            numbers = ({arm.version for arm in route.arms} | route.pinnable) - route.quarantined
            handles = map(current.handles.get, map(route.ref, numbers))
            digests = frozenset(handle.spec.digest for handle in handles if handle is not None)
            found[name] = CachedRoute(route.cache.max_bytes, route.cache.ttl_s, digests)
    return found
