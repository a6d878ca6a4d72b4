"""The node's end of one web worker: what it is told, what it asks, what it has in force, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.clock import Clock
from gateway.errors import TurnoutError
from gateway.messages import VersionRef
from gateway.serving.leases import Leases
from gateway.workers import tunnel
from gateway.workers.forms import reference_from_json
from gateway.workers.lender import Lender
from gateway.workers.link import Link
from gateway.workers.process import WebProcess
from gateway.workers.publisher import Lent
from gateway.workers.replay import Replay

__all__ = ["Colleague", "Desk", "State"]

log = logging.getLogger("turnout.workers")


class State(StrEnum):
    STARTING = "starting"
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Desk:
    """What every worker's end needs of the node. ``changed`` is told whenever a worker's state, or what it has
    in force, has changed."""

    lender: Lender
    application: tunnel.Application
    lent: Callable[[], Mapping[VersionRef, Lent]]
    changed: Callable[[], None]
    clock: Clock


class Colleague:
    """One worker process from start to end. Used from the event loop only.

    ``due``: the number that it is to have in force before it is given a socket to listen on. Set by the crew when it
    has the first one in force; before that, nobody waits for it.
    """

    def __init__(self, place: int, process: WebProcess, link: Link, replay: Replay, desk: Desk) -> None:
        self.place = place
        self.process = process
        self.state = State.STARTING
        self.replay = replay
        self.taken = 0
        self.applied = 0
        self.due: int | None = None
        self._told: list[tuple[int, float]] = []  # number and time of what it has not taken in yet
        self._link = link
        self._desk = desk
        self._leases: dict[int, Leases] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Colleague {self.place} pid {self.process.pid} [{self.state} | {self.applied} applied]>"

    # What it is told

    def begin(self, settings: Mapping[str, Any], everything: Mapping[str, Any]) -> None:
        self._link.start(self)
        self._link.send({"op": "begin", "settings": settings})
        self.tell(everything)

    def tell(self, table: Mapping[str, Any]) -> None:
        """A state, or a change of it. Versions in it stay leased until the worker gives them back, or ends."""
        for body in table["versions"]:
            self._lease(reference_from_json(body["ref"]), body["lending"])
        self._told.append((table["number"], self._desk.clock.monotonic()))
        self._link.send(table)

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        self.state = State.SERVING
        self._link.send({"op": "listen"}, [os.dup(listening.fileno()) for listening in sockets])

    def line(self, line: socket.socket | None) -> None:
        """One to the recorder, the worker's own from now on."""
        if line is not None:
            self._link.send({"op": "recorder"}, [line.detach()])

    def drain(self) -> None:
        if self.state is not State.ENDED:
            self.state = State.DRAINING
            self._link.send({"op": "drain"})

    def behind_s(self) -> float:
        """How long it has left the oldest message unread: one that is stopped or stuck."""
        return self._desk.clock.monotonic() - self._told[0][1] if self._told else 0.0

    def _lease(self, ref: VersionRef, lending: int) -> None:
        lent = self._desk.lent().get(ref)
        if lent is not None and lent.number == lending:
            with contextlib.suppress(TurnoutError):
                self._leases[lending] = lent.handle.lease().__enter__()

    # What it says

    def control(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        try:
            self._hear(message, fds)
        except (KeyError, TypeError, ValueError) as error:
            self._mistrust(f"it sent nonsense: {type(error).__name__}: {error}")

    def telemetry(self, body: bytes) -> None:
        try:
            self.replay.take(body)
        except (TypeError, ValueError, AttributeError) as error:
            self._mistrust(f"it told of events in no known form: {error}")

    def ended(self, why: str) -> None:
        """Its link is closed: it is gone, or of no use any more."""
        if self.state is State.ENDED:
            return
        log.debug("worker %d: %s", self.process.pid, why)
        self.state = State.ENDED
        self.process.kill()
        self.replay.end()
        self._told.clear()
        for leases in self._leases.values():
            leases.__exit__(None, None, None)
        self._leases.clear()
        self._desk.changed()

    def close(self) -> None:
        self._link.close()
        self.ended("it was closed")

    def _hear(self, message: Mapping[str, Any], fds: Sequence[int]) -> None:
        match message["op"]:
            case "taken":
                self._take(message["number"])
            case "applied":
                self.applied = int(message["number"])
                self._desk.changed()
            case "released":
                leases = self._leases.pop(message["lending"], None)
                if leases is not None:
                    leases.__exit__(None, None, None)
            case "borrow":
                self._start(self._lend(message["id"], reference_from_json(message["ref"]), message["gone"]))
            case "hung":
                hung = reference_from_json(message["ref"])
                self._start(self._desk.lender.report_hung(hung, int(message["pid"]), int(message["held"])))
            case "ask":
                self._start(tunnel.serve(self._desk.application, socket.socket(fileno=fds[0])))
            case unknown:
                raise ValueError(f"no message {unknown!r:.100} is known")

    def _take(self, number: int) -> None:
        self.taken = int(number)
        self._told = [told for told in self._told if told[0] > self.taken]
        self._desk.changed()

    async def _lend(self, request: int, ref: VersionRef, gone: int | None) -> None:
        try:
            fd, info = await self._desk.lender.lend(ref, gone)
        except TurnoutError as error:
            self._link.send({"op": "refused", "id": request, "why": str(error)})
        else:
            self._link.send({"op": "lent", "id": request, "info": info}, [fd])  # closed there, whatever becomes of it

    def _start(self, work: Awaitable[None]) -> None:
        """What is asked for is done to its end: a worker's death must not leave a change half made."""
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("worker %d: what it asked for went wrong", self.process.pid, exc_info=fault)

    def _mistrust(self, why: str) -> None:
        log.error("worker %d is ended: %s", self.process.pid, why)
        self.close()
