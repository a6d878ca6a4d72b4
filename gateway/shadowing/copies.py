"""Takes copies of answered requests and has shadows answer them from capacity that nobody else wants.

Nothing is done in a request's own time but drawing lots, and noting what was drawn; the rest happens in a later turn
of the loop, when the answer is on its way. There is capacity to spare when the loop is not behind, and no request
that a client waits for is queued on the shadow's device. A version that clients are answered by, too, is given one
copy at a time, and only while it is idle: a batch that runs cannot be stopped. What finds no room, or no time before
its route's time-out, is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import random
from typing import NamedTuple

from gateway.clock import Clock, Timer
from gateway.errors import (
    DeadlineExceeded,
    InvalidInput,
    Overloaded,
    VersionCrashed,
    VersionHung,
    VersionUnavailable,
)
from gateway.events import Observer, ShadowRecord
from gateway.messages import Array, Arrays, Decision, Signature, VersionRef
from gateway.routing.table import Route, RoutingTable
from gateway.serving.answer_cache import cost_of
from gateway.serving.handle import Handle, VersionState
from gateway.serving.item import Answer, Item, Priority
from gateway.serving.leases import Leases
from gateway.shadowing.comparison import Comparison, compare
from gateway.shadowing.lines import ALONE, TOGETHER, Copy, Line

__all__ = ["Decode", "Given", "Shadowing", "ShadowingStatistics"]

log = logging.getLogger("turnout.shadows")

Decode = Callable[[Signature], "tuple[Arrays, int] | Awaitable[tuple[Arrays, int]]"]

MOST_BYTES_A_ROUTE = 64 * 1024 * 1024
COPIED_BYTES = 256 * 1024
"""An array up to here is copied when it is a view, so that it keeps neither a request's body nor a batch's outputs.
Larger ones are kept as they are: what they are views into is not written again while they live."""

COMPARED_IN_THREAD_BYTES = 1024 * 1024
LATE_S = 0.002
RETRY_S = 0.005

_NOT_ASKED = (Overloaded, VersionUnavailable)


class Given(NamedTuple):
    """An answered request, as the data plane has it. ``decision`` is of the version that answered, by ``handle``."""

    route: Route
    decision: Decision
    handle: Handle
    decode: Decode
    inputs: Arrays
    rows: int
    outputs: Arrays


@dataclass(frozen=True, slots=True)
class ShadowingStatistics:
    """Copies that wait, those that a version has now, and the bytes that both hold."""

    waiting: int
    under_way: int
    held_bytes: int


class _Flight(NamedTuple):
    """A copy that its version has. ``idle``: nothing else was before it."""

    copy: Copy
    line: Line
    handle: Handle
    lease: Leases
    item: Item
    idle: bool


class Shadowing:
    """Copies of all routes. Used from the event loop only. ``draw`` gives numbers from 0 up to 1."""

    def __init__(self, *, clock: Clock, observer: Observer, draw: Callable[[], float] = random) -> None:
        self._clock = clock
        self._observer = observer
        self._draw = draw
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handles: Mapping[VersionRef, Handle] = {}
        self._answering: frozenset[VersionRef] = frozenset()
        self._lines: dict[tuple[str, VersionRef], Line] = {}
        self._flights: dict[asyncio.Future[Answer], _Flight] = {}
        self._drawn: list[tuple[Given, VersionRef]] = []
        self._held_bytes: dict[str, int] = {}
        self._told: set[tuple[str, VersionRef, str]] = set()
        self._due = 0.0
        self._scheduled = False
        self._timer: Timer | None = None
        self._stopped = False

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<Shadowing [{now.waiting} waiting | {now.under_way} under way | {now.held_bytes} bytes]>"

    def statistics(self) -> ShadowingStatistics:
        waiting = sum(len(line.waiting) for line in self._lines.values()) + len(self._drawn)
        return ShadowingStatistics(waiting, len(self._flights), sum(self._held_bytes.values()))

    def install(self, table: RoutingTable, handles: Mapping[VersionRef, Handle]) -> None:
        """These routes and versions are in force now. Copies for what is no longer a shadow there are given up, so
        that a version that leaves waits for none."""
        self._handles = handles
        self._answering = _answering(table)
        wanted = {(r.name, r.ref(shadow.version)) for r in table.routes.values() for shadow in r.shadows}
        for key, line in list(self._lines.items()):
            line.most = ALONE if key[1] in self._answering else TOGETHER
            if key not in wanted or key[1] not in handles:
                self._give_up(line)
        for key in self._lines.keys() - wanted:
            del self._lines[key]
        self._told = {told for told in self._told if told[:2] in wanted}

    def stop(self) -> None:
        """Gives up all copies, and takes no more."""
        self._stopped = True
        self._drawn.clear()
        for line in self._lines.values():
            self._give_up(line)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # In the request's own time

    def offer(self, given: Given) -> None:
        """A client's answer exists. Draws for each shadow of the route whether it gets a copy."""
        answered = given.decision.version.number
        taken = answered
        for shadow in given.route.shadows:
            if shadow.version in (taken, answered) or shadow.of not in (None, answered):
                continue
            if self._draw() < shadow.share:
                taken = shadow.version
                self._drawn.append((given, given.route.ref(shadow.version)))
        if self._drawn and not self._scheduled:
            self._soon()

    # In a later turn of the loop

    def _soon(self) -> None:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._scheduled = True
        self._due = self._clock.monotonic()
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        late = self._clock.monotonic() - self._due > LATE_S
        drawn, self._drawn = self._drawn, []
        if self._stopped:
            return
        for given, shadow in drawn:
            self._take(given, shadow)
        self._launch_all(late=late)

    def _take(self, given: Given, shadow: VersionRef) -> None:
        """The copy joins its line, if there is room for it."""
        route, handle = given.route, self._handles.get(shadow)
        now = self._clock.monotonic()
        key = (route.name, shadow)
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = Line()
            line.most = ALONE if shadow in self._answering else TOGETHER
        if handle is None or line.full or line.rests(now):
            self._tell(given, shadow, "dropped")
            return
        try:
            fitted = _inputs_for(handle, given)
        except InvalidInput as refusal:
            self._say_once(route.name, shadow, f"it cannot take what {given.decision.version} answers: {refusal}")
            self._tell(given, shadow, "failed")
            return
        held = self._held_bytes.get(route.name, 0)
        size = 0 if fitted is None else cost_of(fitted[0]) + cost_of(given.outputs)
        if fitted is None or held + size > MOST_BYTES_A_ROUTE:
            self._tell(given, shadow, "dropped")
            return
        self._held_bytes[route.name] = held + size
        inputs, rows = fitted
        deadline = now + route.limits.timeout_ms / 1000
        line.waiting.append(
            Copy(route, given.decision, shadow, _own(inputs), rows, _own(given.outputs), deadline, size)
        )

    def _launch_all(self, *, late: bool = False) -> None:
        """Whatever can be launched now is; what waits for others is looked at again a little later."""
        now = self._clock.monotonic()
        held_up = False
        for line in list(self._lines.values()):
            for copy in line.expired(now):
                self._end(copy, "dropped")
            while line.waiting and line.under_way < line.most:
                handle = self._handles.get(line.waiting[0].shadow)
                if handle is not None and (late or not self._can_spare(handle, line)):
                    held_up = True
                    break
                self._launch(line, line.waiting.popleft(), handle)
        if held_up and self._timer is None:
            due = now + RETRY_S
            self._timer = self._clock.call_at(due, partial(self._again, due))

    def _again(self, due: float) -> None:
        self._timer = None
        self._launch_all(late=self._clock.monotonic() - due > LATE_S)

    def _can_spare(self, handle: Handle, line: Line) -> bool:
        if line.most == ALONE and not handle.idle:
            return False
        device = handle.device
        return not any(other.urgent_rows and other.device == device for other in self._handles.values())

    def _launch(self, line: Line, copy: Copy, handle: Handle | None) -> None:
        now = self._clock.monotonic()
        if handle is None or line.rests(now):
            self._end(copy, "dropped")
            return
        idle = handle.idle
        try:
            lease = handle.lease()
            item = handle.submit(
                copy.inputs,
                copy.rows,
                copy.deadline,
                queue_rows=copy.route.limits.queue_rows,
                priority=Priority.SPARE,
                client=f"shadow:{copy.route.name}",
            )
        except (*_NOT_ASKED, DeadlineExceeded):
            self._end(copy, "dropped")
            return
        lease.__enter__()
        line.under_way += 1
        self._flights[item.future] = _Flight(copy, line, handle, lease, item, idle)
        item.future.add_done_callback(self._landed)

    def _landed(self, future: asyncio.Future[Answer]) -> None:
        flight = self._flights.pop(future, None)
        if flight is None:
            return
        copy, line = flight.copy, flight.line
        line.under_way -= 1
        flight.lease.__exit__(None, None, None)
        failure = None if future.cancelled() else future.exception()
        if failure is not None or future.cancelled():
            self._failed(flight, failure)
        else:
            line.answered()
            self._compare(copy, future.result().outputs)
        if line.waiting and not self._scheduled and not self._stopped:
            self._soon()

    def _failed(self, flight: _Flight, failure: BaseException | None) -> None:
        copy = flight.copy
        if isinstance(failure, VersionCrashed | VersionHung):
            flight.line.died(self._clock.monotonic())
        starved = isinstance(failure, DeadlineExceeded) and not flight.idle
        lost = failure is None or starved or isinstance(failure, _NOT_ASKED)
        if not lost:
            self._say_once(copy.route.name, copy.shadow, f"{type(failure).__name__}: {failure}")
        self._end(copy, "dropped" if lost else "failed")

    def _compare(self, copy: Copy, outputs: Arrays) -> None:
        compared = partial(compare, copy.outputs, outputs, copy.route.tolerance)
        if cost_of(outputs) <= COMPARED_IN_THREAD_BYTES:
            self._compared(copy, compared())
            return
        waiting = asyncio.get_running_loop().run_in_executor(None, compared)
        waiting.add_done_callback(lambda done: self._compared(copy, None if done.cancelled() else done.result()))

    def _compared(self, copy: Copy, comparison: Comparison | None) -> None:
        if comparison is None:
            self._end(copy, "dropped")
            return
        if comparison.reason:
            self._say_once(copy.route.name, copy.shadow, comparison.reason)
        self._end(copy, "differs" if comparison.differs else "agrees", comparison.difference)

    def _give_up(self, line: Line) -> None:
        while line.waiting:
            self._end(line.waiting.popleft(), "dropped")
        for flight in [flight for flight in self._flights.values() if flight.line is line]:
            flight.handle.forget(flight.item)  # its end is told by the future's own callback
            self._landed(flight.item.future)

    def _end(self, copy: Copy, outcome: str, difference: float = 0.0) -> None:
        name = copy.route.name
        left = self._held_bytes.get(name, 0) - copy.size_bytes
        if left > 0:
            self._held_bytes[name] = left
        else:
            self._held_bytes.pop(name, None)
        decision = copy.decision
        self._observer.shadow_compared(
            ShadowRecord(
                name, decision.epoch, decision.bucket, decision.version, copy.shadow, outcome, copy.rows, difference
            )
        )

    def _tell(self, given: Given, shadow: VersionRef, outcome: str) -> None:
        """Of what never became a copy."""
        decision = given.decision
        self._observer.shadow_compared(
            ShadowRecord(
                given.route.name, decision.epoch, decision.bucket, decision.version, shadow, outcome, given.rows
            )
        )

    def _say_once(self, route: str, shadow: VersionRef, what: str) -> None:
        """The first of a kind; the metrics count the others."""
        told = (route, shadow, what.partition(":")[0])
        if told not in self._told:
            self._told.add(told)
            log.warning("shadow %s of route %s: %s", shadow, route, what)


def _answering(table: RoutingTable) -> frozenset[VersionRef]:
    """The versions that clients may be answered by, unless they pin another."""
    found: set[VersionRef] = set()
    for route in table.routes.values():
        numbers = {arm.version for arm in route.arms if arm.weight}
        numbers.update(*(rule.versions() for rule in route.rules), () if route.fallback is None else (route.fallback,))
        found.update(route.ref(number) for number in numbers - route.quarantined)
    return frozenset(found)


def _inputs_for(handle: Handle, given: Given) -> tuple[Arrays, int] | None:
    """The request's inputs as the shadow takes them; None where that takes another process, which clients need. An
    inline version may have written on the arrays that it was given. Raises InvalidInput."""
    if handle.state is not VersionState.ACTIVE:
        return None
    answered = given.handle
    if handle.signature.inputs == answered.signature.inputs and answered.spec.placement != "inline":
        return given.inputs, given.rows
    fitted = given.decode(handle.signature)
    if isinstance(fitted, tuple):
        return fitted
    close = getattr(fitted, "close", None)
    if close is not None:
        close()  # never begun
    return None


def _own(arrays: Arrays) -> dict[str, Array]:
    return {
        name: array.copy() if array.base is not None and array.nbytes <= COPIED_BYTES else array
        for name, array in arrays.items()
    }
