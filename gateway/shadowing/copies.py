"""Takes copies of answered requests and has shadows answer them from capacity that nobody else wants.

Nothing is done in a request's own time but drawing lots, and noting what was drawn; the rest happens in a later turn
of the loop, when the answer is on its way. There is capacity to spare when the loop is not behind, no request that a
client waits for is queued on the shadow's device, and, where that is the processor, a core is left beside the loop's.
When there was none, the next look is a little later, not in the next gap: a gateway at its limit has many gaps, all
too short. A version that clients are answered by, too, is given one copy at a time, and only while it is idle: a batch
that runs cannot be stopped. What finds no room, or no time before its route's time-out, is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import random
from typing import NamedTuple

from gateway.clock import Clock, Timer
from gateway.errors import DeadlineExceeded, Overloaded, TurnoutError, VersionCrashed, VersionHung, VersionUnavailable
from gateway.events.observer import Observer
from gateway.messages import VersionRef
from gateway.routing.table import RoutingTable
from gateway.serving.answer_cache import cost_of
from gateway.serving.handle import Handle
from gateway.serving.item import Answer, Item, Priority
from gateway.serving.leases import Leases
from gateway.shadowing.capacity import Capacity, answering
from gateway.shadowing.comparison import Comparison, compare
from gateway.shadowing.given import Given, inputs_for, owned
from gateway.shadowing.lines import ALONE, TOGETHER, Copy, Line
from gateway.shadowing.outcomes import UNANSWERED, Outcomes, Run

__all__ = ["Shadowing", "ShadowingStatistics"]

MOST_BYTES_A_ROUTE = 64 * 1024 * 1024
COMPARED_IN_THREAD_BYTES = 64 * 1024
"""Half a millisecond of the loop, where every number has to be looked at."""
LATE_S = 0.002
RETRY_S = 0.005

_NOT_ASKED = (Overloaded, VersionUnavailable)


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
    """Copies of all routes. Used from the event loop only."""

    def __init__(
        self, *, clock: Clock, observer: Observer, draw: Callable[[], float] = random, cores: int | None = None
    ) -> None:
        """``draw`` gives numbers from 0 up to 1; ``cores`` None: those of this process."""
        self._clock = clock
        self._outcomes = Outcomes(observer)
        self._draw = draw
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handles: Mapping[VersionRef, Handle] = {}
        self._wanted: set[tuple[str, VersionRef]] = set()
        self._answering: frozenset[VersionRef] = frozenset()
        self._lines: dict[tuple[str, VersionRef], Line] = {}
        self._flights: dict[asyncio.Future[Answer], _Flight] = {}
        self._drawn: list[tuple[Given, VersionRef]] = []
        self._held_bytes: dict[str, int] = {}
        self._due = 0.0
        self._scheduled = False
        self._timer: Timer | None = None
        self._stopped = False
        self._capacity = Capacity(cores)

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
        self._answering = answering(table)
        named = {(r.name, r.ref(shadow.version)) for r in table.routes.values() for shadow in r.shadows}
        self._wanted = wanted = {key for key in named if key[1] in handles}
        for key, line in list(self._lines.items()):
            line.most = ALONE if key[1] in self._answering else TOGETHER
            if key not in wanted:
                self._give_up(line)
                del self._lines[key]
        self._outcomes.keep(named)

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
        if self._timer is None:
            self._launch_all(late=late)

    def _take(self, given: Given, shadow: VersionRef) -> None:
        """The copy joins its line, if there is room for it."""
        route, now = given.route, self._clock.monotonic()
        line = self._line(route.name, shadow)
        if line is None or line.full or line.rests(now):
            self._outcomes.tell(given.decision, shadow, "dropped", given.rows)
            return
        try:
            fitted = inputs_for(self._handles[shadow], given)
        except TurnoutError as refusal:
            what = f"it cannot take what {given.decision.version} answers: {refusal}"
            self._outcomes.say_once(route.name, shadow, what)
            self._outcomes.tell(given.decision, shadow, "failed", given.rows)
            return
        held = self._held_bytes.get(route.name, 0)
        size = 0 if fitted is None else cost_of(fitted[0]) + cost_of(given.outputs)
        if fitted is None or held + size > MOST_BYTES_A_ROUTE:
            self._outcomes.tell(given.decision, shadow, "dropped", given.rows)
            return
        self._held_bytes[route.name] = held + size
        inputs, rows = fitted
        deadline = now + route.limits.timeout_ms / 1000
        outputs = owned(given.outputs)
        whose = given.trace, given.decision_id
        copy = Copy(route, given.decision, shadow, owned(inputs), rows, outputs, deadline, size, *whose)
        line.waiting.append(copy)

    def _line(self, route: str, shadow: VersionRef) -> Line | None:
        """None for what is no shadow any more, and for one that is not loaded here."""
        key = (route, shadow)
        line = self._lines.get(key)
        if line is None and key in self._wanted:
            line = self._lines[key] = Line()
            line.most = ALONE if shadow in self._answering else TOGETHER
        return line

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
        return (line.most > ALONE or handle.idle) and self._capacity.spare_for(handle, self._handles)

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
            self._compare(copy, future.result())
        if line.waiting and not self._scheduled and not self._stopped:
            self._soon()

    def _failed(self, flight: _Flight, failure: BaseException | None) -> None:
        copy = flight.copy
        if isinstance(failure, VersionCrashed | VersionHung):
            flight.line.died(self._clock.monotonic())
        starved = isinstance(failure, DeadlineExceeded) and not flight.idle
        lost = failure is None or starved or isinstance(failure, _NOT_ASKED)
        if not lost:
            self._outcomes.say_once(copy.route.name, copy.shadow, f"{type(failure).__name__}: {failure}")
        self._end(copy, "dropped" if lost else "failed")

    def _compare(self, copy: Copy, answer: Answer) -> None:
        outputs, wall = answer.outputs, self._clock.wall()
        run = Run(answer._replace(outputs={}), ended_wall=wall)
        compared = partial(compare, copy.outputs, outputs, copy.route.tolerance)
        if cost_of(outputs) <= COMPARED_IN_THREAD_BYTES:
            self._compared(copy, run, compared())
            return
        waiting = asyncio.get_running_loop().run_in_executor(None, compared)
        waiting.add_done_callback(lambda done: self._compared(copy, run, None if done.cancelled() else done.result()))

    def _compared(self, copy: Copy, run: Run, comparison: Comparison | None) -> None:
        if comparison is None:
            self._end(copy, "dropped", run)
            return
        if comparison.reason:
            self._outcomes.say_once(copy.route.name, copy.shadow, comparison.reason)
        run = run._replace(difference=comparison.difference)
        self._end(copy, "differs" if comparison.differs else "agrees", run)

    def _give_up(self, line: Line) -> None:
        while line.waiting:
            self._end(line.waiting.popleft(), "dropped")
        for flight in [flight for flight in self._flights.values() if flight.line is line]:
            flight.handle.forget(flight.item)
            self._landed(flight.item.future)  # now: who installs a table looks at the leases

    def _end(self, copy: Copy, outcome: str, run: Run = UNANSWERED) -> None:
        name = copy.route.name
        left = self._held_bytes.get(name, 0) - copy.size_bytes
        if left > 0:
            self._held_bytes[name] = left
        else:
            self._held_bytes.pop(name, None)
        told = run._replace(trace=copy.trace, decision_id=copy.decision_id)
        self._outcomes.tell(copy.decision, copy.shadow, outcome, copy.rows, told)
