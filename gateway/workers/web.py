"""A web worker: HTTP, queues and leases of its own, over engines, a table and tokens that the node gives it.

Started by the node (``--fd``: its link, ``--parent``: whom it ends with). It stores nothing, and
what it knows came over the link, so one that dies is replaced by one that is told the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any

import uvloop

from gateway.clock import SystemClock
from gateway.control.flag_rules import FlagRules
from gateway.control.flags import Flags
from gateway.control.tokens import TokenRing
from gateway.dataplane import Dataplane
from gateway.errors import NotFound, TurnoutError
from gateway.events.fan_out import FanOut
from gateway.messages import VersionRef
from gateway.recording.large import Wanted, content_policy
from gateway.recording.recorder import DECISIONS, EVERY, KEEPS
from gateway.recording.road import Road, ignore
from gateway.recording.sender import Sender
from gateway.server import Listener, allow_descriptors, spare_the_collector
from gateway.serving.engine import VersionSpec
from gateway.serving.fleet import Fleet
from gateway.serving.warmup import Warmth
from gateway.web.large_bodies import large_bodies
from gateway.web.services import IndexEntry, Services
from gateway.web.statistics import ModelStatistics
from gateway.workers.begin import Beginning
from gateway.workers.borrowing import Borrower
from gateway.workers.face import Face
from gateway.workers.follower import Follower, Told
from gateway.workers.link import Link
from gateway.workers.relay import Relay
from runtimes.process import die_with, give_back_code, ignore_signals, name_process

__all__ = ["WebWorker", "main"]

log = logging.getLogger("turnout.workers")

_BORROWS_AT_ONCE = 8
_FLUSH_S = 2.0


class _NodeRepository:
    """The model repository is the node's: its paths never reach this process."""

    async def index(self) -> Sequence[IndexEntry]:
        return ()

    async def load(self, reference: str, *, actor: str) -> None:
        raise NotFound(f"{reference} is not loaded from a web worker")

    async def unload(self, reference: str, *, actor: str) -> None:
        raise NotFound(f"{reference} is not unloaded from a web worker")


class WebWorker:
    """``ended`` is done when the worker is through: told to drain, or its link lost."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._road = Road()
        self._borrower = Borrower(link, self._holds)
        self._listeners: list[Listener] = []
        self._serving: list[asyncio.Task[None]] = []
        self._stopping: asyncio.Task[None] | None = None
        self._beginning: Beginning | None = None
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<WebWorker {self._listeners}>"

    def start(self) -> None:
        self._link.start(self)

    # What the node says

    def control(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        """What cannot be taken in ends the worker: one that has missed a change would serve the past."""
        try:
            self._hear(message, fds)
        except (TurnoutError, AttributeError, LookupError, TypeError, ValueError) as fault:
            log.exception("the node's message %r cannot be taken in; this worker ends", message["op"])
            self.ended(f"{type(fault).__name__}: {fault}")

    def _hear(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        match message["op"]:
            case "begin":
                self._begin(Beginning.model_validate(message["settings"]))
            case "table":
                self._link.send({"op": "taken", "number": message["number"]})
                self._follower.take(message)
            case "listen":
                self._listen([socket.socket(fileno=fd) for fd in fds])
            case "recorder":
                self._road.connect(socket.socket(fileno=fds[0]), ignore, self._road.hang_up)
                self._road.begin()
            case "lent":
                self._borrower.lent(message, fds)
            case "refused":
                self._borrower.refused(message)
            case "drain" if self._stopping is None:
                self._stopping = asyncio.ensure_future(self._stop())

    def telemetry(self, body: bytes) -> None:
        """The node tells none."""

    def ended(self, why: str) -> None:
        log.error("this worker ends: %s", why)
        if not self.over.done():
            self.over.set_exception(ConnectionError(why))

    def _begin(self, beginning: Beginning) -> None:
        self._beginning = beginning
        clock = SystemClock()
        self._relay = relay = Relay(self._link, self._forgive)
        self._sender = sender = Sender(self._road, self._content_policy, every=not EVERY.isdisjoint(beginning.recorded))
        self._road.decisions = DECISIONS in beginning.recorded
        self._road.limit_bytes = beginning.recorder_bytes
        self._observer = observer = FanOut(relay, sender, clock=clock)
        cores = max(1, len(os.sched_getaffinity(0)) // beginning.server.workers)
        self._dataplane = dataplane = Dataplane(
            observer=observer,
            clock=clock,
            cores=cores,
            records=None if KEEPS.isdisjoint(beginning.recorded) else self._road,
        )
        ring = TokenRing(clock)
        self._fleet = fleet = Fleet(
            self._borrower.factory,
            clock=clock,
            observer=observer,
            loads_at_once=_BORROWS_AT_ONCE,
            drain_timeout_s=beginning.server.drain_s,
            probe_interval_s=beginning.readiness_s,
            warmth=self._warmth,
        )
        self._flags = Flags(beginning.flags, clock=clock, source=f"web worker {os.getpid()}", tell=relay.flag_source)
        self._flags_started = asyncio.ensure_future(self._flags.start())
        self._follower = Follower(
            fleet=fleet,
            dataplane=dataplane,
            ring=ring,
            clock=clock,
            observer=observer,
            told=Told(applied=self._applied, released=self._released),
            default_timeout_ms=beginning.limits.timeout_ms,
            flags=FlagRules(self._flags, here=lambda ref: ref in dataplane.current.handles, missed=relay.flag_missed),
        )
        limits = beginning.web_limits()
        self._large = large_bodies(limits, clock, cores=cores)
        self._services = Services(
            dataplane=dataplane,
            observer=observer,
            clock=clock,
            verify=ring.verify,
            repository=_NodeRepository(),
            statistics=ModelStatistics(),
            limits=limits,
            trace_ratio=beginning.trace_ratio,
            large=self._large,
        )

    def _content_policy(self, route: str) -> Wanted:
        return content_policy(self._dataplane.current.table, route)

    def _warmth(self, spec: VersionSpec) -> Warmth | None:
        return self._follower.warmth(spec)

    def _forgive(self, ref: VersionRef) -> None:
        """When to start a child again is for the node to say, which has it, and makes who borrows wait or refuses:
        a pause of our own on top would refuse requests because of another worker's deaths."""
        handle = self._fleet.handles.get(ref)
        if handle is not None:
            handle.forgive()

    def _holds(self, ref: VersionRef) -> int:
        handle = self._fleet.handles.get(ref)
        batcher = None if handle is None else handle.statistics().batcher
        return 0 if batcher is None else batcher.queued_items + batcher.running_items

    def _applied(self, number: int) -> None:
        self._link.send({"op": "applied", "number": number})

    def _released(self, lending: int) -> None:
        self._observer.flush()
        self._relay.flush()  # what was seen of the version is told before it is given back
        self._link.send({"op": "released", "lending": lending})

    def _listen(self, sockets: Sequence[socket.socket]) -> None:
        if self._beginning is None or self._stopping is not None:
            return
        face = Face(self._services, self._ask)
        for listening in sockets:
            listening.setblocking(False)
            listener = Listener(face, listening, self._beginning.server)
            self._listeners.append(listener)
            self._serving.append(asyncio.create_task(self._serve(listener)))
        spare_the_collector()
        give_back_code()

    async def _serve(self, listener: Listener) -> None:
        """Connections wait in the kernel until flags have data, or could not get any in time."""
        await asyncio.wait({self._flags_started})
        await listener.serve()

    def _ask(self, fd: int) -> None:
        """Behind all that was seen here before: what the node is asked may be how often."""
        self._observer.flush()
        self._relay.flush()
        self._link.send({"op": "ask"}, [fd])

    async def _stop(self) -> None:
        """What was admitted is answered, within the drain time; what happened is told; then it is over."""
        drain_s = 0.0 if self._beginning is None else self._beginning.server.drain_s
        self._dataplane.drain()
        try:
            async with asyncio.timeout(drain_s):
                await self._dataplane.drained()
        except TimeoutError:
            log.warning("%d requests are not answered after %g s and are given up", self._dataplane.inflight, drain_s)
            await self._fleet.close(abandon=True)
        if self._beginning is not None and not self._fleet.idle:  # a shadow's copy: nobody waits for it
            await self._fleet.close(abandon=True)
        for listener in self._listeners:
            listener.stop()
        if self._serving:
            await asyncio.wait(self._serving, timeout=5.0)
        if self._beginning is not None:
            await self._large.close()
            await self._flags.close()
        await self._follower.close()
        await self._fleet.close()
        await self._told_all()
        if not self.over.done():
            self.over.set_result(None)

    async def _told_all(self) -> None:
        if self._beginning is None:
            return
        self._observer.flush()
        self._relay.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self._link.sent()
                await self._sender.settle()
                await self._road.clear()


async def _run(fd: int) -> int:
    worker = WebWorker(Link(socket.socket(fileno=fd)))
    worker.start()
    try:
        await worker.over
    except ConnectionError:
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="gateway.workers.web", description="Started by turnout serve --workers N.")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    given = parser.parse_args(arguments)
    die_with(given.parent)
    ignore_signals()
    name_process("turnout web")
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("openfeature.contrib").setLevel(logging.CRITICAL)  # it logs what clients send, at each request
    allow_descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(given.fd))


if __name__ == "__main__":
    sys.exit(main())
