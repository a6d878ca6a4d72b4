"""The recorder as the gateway has it: started, kept alive, given what happened, asked, and ended with all it was given.

Nothing that it does, or fails to do, reaches a request: one that dies is replaced, one that does not keep up is told
less, and both are counted, here and in what it writes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway import errors
from gateway.clock import Clock
from gateway.errors import RecorderUnavailable, TurnoutError
from gateway.events.observer import Observer
from gateway.recording.child import ChildProcess
from gateway.recording.frames import Down, Up, pack, unpack
from gateway.recording.large import Policy, no_policy
from gateway.recording.road import LIMIT_BYTES, Road, RoadStatistics
from gateway.recording.sender import Sender
from gateway.telemetry.feedback.asks import ASK_CLOCK

__all__ = ["DECISIONS", "EVERY", "KEEPS", "Losses", "Recorder", "RecorderStatistics"]

log = logging.getLogger("turnout.recording")

DECISIONS = "decisions"
KEEPS = frozenset({DECISIONS, "truth"})
"""Options of parts that want more of some requests than their outcome: key, context and content."""

EVERY = frozenset({DECISIONS, "request_log"})
"""Options of parts that take every request."""

_MODULE = "gateway.recording.process"
_ASK_S = 5.0
_CLOSE_S = 10.0
_GOOD_SPELL_S = 30.0
_LONGEST_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class RecorderStatistics:
    """``standing`` is the latest that it said of itself."""

    pid: int | None
    restarts: int
    road: RoadStatistics
    standing: Mapping[str, Any]


class Recorder(Sender):
    """``options`` are plain, and say which parts it has (``gateway.recording.process``); ``descriptors`` are theirs,
    and stay the caller's. ``road.full`` is what routes that would rather refuse go by."""

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        clock: Clock,
        descriptors: Sequence[int] = (),
        policy: Policy = no_policy,
        limit_bytes: int = LIMIT_BYTES,
        spawn: Callable[[str, socket.socket], ChildProcess] = ChildProcess,
    ) -> None:
        road = Road(limit_bytes=limit_bytes, decisions=DECISIONS in options)
        super().__init__(road, policy, every=not EVERY.isdisjoint(options))
        self._options = dict(options)
        self._descriptors = tuple(descriptors)
        self._clock = clock
        self._spawn = spawn
        self._process: ChildProcess | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._closing = False
        self._restarts = self._deaths = 0
        # What a new one must know of what was told before, the latest by name.
        self._state: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._questions = 0
        self._standing: Mapping[str, Any] = {}
        self._restarted: list[Callable[[], None]] = []

    def __repr__(self) -> str:
        pid = None if self._process is None else self._process.pid
        return f"<Recorder [pid {pid} | {self._restarts} restarts | {self.road!r}]>"

    @property
    def options(self) -> Mapping[str, Any]:
        return self._options

    def statistics(self) -> RecorderStatistics:
        pid = None if self._process is None else self._process.pid
        return RecorderStatistics(pid, self._restarts, self.road.statistics(), self._standing)

    def shown(self, kind: str) -> Mapping[str, Any]:
        """What a part last said of itself, of those questions whose answers come unasked; nothing so far."""
        found: Mapping[str, Any] = self._standing.get("shown", {}).get(kind, {})
        return found

    def degraded(self) -> Sequence[str]:
        """What keeps its parts from keeping what comes, or from ending what is old, for ``/readyz``."""
        decisions, labels = self.shown(DECISIONS), self.shown(ASK_CLOCK)
        if not self.road.statistics().connected:
            return ["the recorder does not run just now: what comes waits for it, as far as there is room"]
        troubles = decisions.get("trouble"), decisions.get("clock_trouble"), labels.get("unkept"), labels.get("trouble")
        found = [str(trouble) for trouble in troubles if trouble]
        if self.road.full and not found:
            found.append("the recorder does not keep up with what comes; what it has no room for is counted and lost")
        return found

    # What it is given

    def tell(self, event: str, body: Mapping[str, Any], *, lasting: str | None = None, soon: bool = True) -> bool:
        """A control event, in its place among the records; False when it was lost. ``lasting``: a recorder that takes
        over is told the latest of that name again. Not ``soon``: with what comes next."""
        if lasting is not None:
            self._state[lasting] = (event, body)
        return self.road.tell(event, body, soon=soon)

    def hand(self, event: str, body: Mapping[str, Any]) -> None:
        """What is so from now on, whatever else waits, and for a recorder that takes over too."""
        self._state[event] = (event, body)
        self.road.send(Down.STATE, pack((event, dict(body))))

    def forget(self, lasting: str) -> None:
        self._state.pop(lasting, None)

    async def ask(self, kind: str, body: Mapping[str, Any], *, within_s: float = _ASK_S) -> Mapping[str, Any]:
        """What a part answers. Raises what the part raised, NotFound for what no part answers, and RecorderUnavailable
        when there is no recorder, or no answer in time."""
        if not self.road.statistics().connected:
            raise RecorderUnavailable("the recorder does not run just now; ask again in a moment")
        self._questions += 1
        number = self._questions
        waiting: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        self.road.send(Down.ASK, pack((number, kind, dict(body))))
        try:
            async with asyncio.timeout(within_s):
                return await waiting
        except TimeoutError:
            raise RecorderUnavailable(f"the recorder has not answered within {within_s:g} s; it may be busy") from None
        finally:
            self._asked.pop(number, None)

    def line(self) -> socket.socket | None:
        """One end of a further line, for a web worker; None while there is no recorder."""
        if not self.road.statistics().connected:
            return None
        ours, theirs = socket.socketpair()
        self.road.send(Down.LINE, b"", [theirs.detach()])
        return ours

    def on_restart(self, told: Callable[[], None]) -> None:
        """Whoever holds lines is told when there is a new recorder to hold them to."""
        self._restarted.append(told)

    # Its life

    async def start(self) -> None:
        """Returns at once: what is given before it is there waits for it. Raises OSError."""
        process = self._begin()
        self._keeping = asyncio.ensure_future(self._keep(process))

    def _begin(self) -> ChildProcess:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._spawn(_MODULE, theirs)
        except OSError:
            ours.close()
            raise
        self._process = process
        self.road.connect(ours, self._heard, self._lost)
        state = [(Down.STATE, pack((event, dict(body))), ()) for event, body in self._state.values()]
        fds = [os.dup(fd) for fd in self._descriptors]
        self.road.begin([(Down.BEGIN, pack((self._options, len(fds))), fds), *state])
        return process

    async def _keep(self, process: ChildProcess) -> None:
        while True:
            began = self._clock.monotonic()
            status = await process.gone
            self.road.hang_up()
            self._lost()
            self._process = None
            if self._closing:
                return
            self._deaths = 1 if self._clock.monotonic() - began > _GOOD_SPELL_S else self._deaths + 1
            pause = min(_LONGEST_PAUSE_S, 0.1 * 2 ** (self._deaths - 1)) if self._deaths > 1 else 0.0
            log.error(
                "the recorder (pid %d) ended with status %d; what it had not acknowledged is lost and counted, "
                "the next starts%s", process.pid, status, f" in {pause:g} s" if pause else " now",
            )  # fmt: skip
            process = await self._next(pause)
            for told in self._restarted:
                told()

    async def _next(self, pause: float) -> ChildProcess:
        while True:
            if pause:
                await self._clock.sleep(pause)
            self._restarts += 1
            try:
                return self._begin()
            except OSError as fault:
                pause = _LONGEST_PAUSE_S
                log.error("no recorder can be started: %s; tried again in %g s", fault.strerror, pause)

    def _heard(self, kind: int, body: bytes) -> None:
        if kind == Up.STANDING:
            self._standing = unpack(body)
        elif kind == Up.ANSWER:
            number, answer, failure = unpack(body)
            waiting = self._asked.get(number)
            if waiting is None or waiting.done():
                return
            if failure is None:
                waiting.set_result(answer)
            else:
                waiting.set_exception(_failure(*failure))

    def _lost(self) -> None:
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_exception(
                    RecorderUnavailable("the recorder ended while it was asked; ask again in a moment")
                )

    async def close(self, within_s: float = _CLOSE_S) -> bool:
        """It takes in what it was given, writes it, and ends; False when it was given up after ``within_s``."""
        await self.settle()
        self._closing = True
        process, keeping = self._process, self._keeping
        if keeping is None:
            return True
        in_time = process is not None
        if process is None:
            keeping.cancel()
        else:
            self.road.finish()
            await asyncio.wait([process.gone], timeout=within_s)
            in_time = process.gone.done()
            if not in_time:
                log.error("the recorder has not ended within %g s; what it had not taken in is lost", within_s)
                process.kill()
        with suppress(asyncio.CancelledError):
            await keeping
        if lost := self.road.statistics().lost:
            log.warning("records that were lost, by cause: %s", lost)
        return in_time


class Losses(Observer):
    """At a node whose web workers answer: their records come by lines of their own, and what was lost with one of them
    is known here."""

    def __init__(self, recorder: Recorder) -> None:
        self._road = recorder.road

    def requests_lost(self, route: str, count: int) -> None:
        self._road.lose(count, "worker")


def _failure(name: str, text: str) -> TurnoutError:
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, TurnoutError)):
        return TurnoutError(f"{name}: {text}")
    return kind(text)
