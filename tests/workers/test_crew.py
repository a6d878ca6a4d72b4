"""When a worker may take connections, and who is waited for, with workers that say what the test has them say."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.clock import ManualClock
from gateway.dataplane import Current
from gateway.events.observer import RecordingObserver
from gateway.routing.table import RoutingTable
from gateway.serving.fleet import Fleet
from gateway.serving.scripted_engine import ScriptedEngines
from gateway.workers.colleague import Desk
from gateway.workers.crew import IN_FORCE_S, STALE_S, START_S, STUCK_S, Crew
from gateway.workers.lender import Lender
from gateway.workers.link import Link
from gateway.workers.process import WebProcess
from gateway.workers.publisher import Publisher, Sources
from gateway.workers.replay import Replays
from tests.serving.stage import turns, until


class ScriptedWorker(WebProcess):
    """The other end of a link, in this process: ``heard`` is what the node said."""

    def __init__(self, link: socket.socket) -> None:
        self.heard: list[dict[str, Any]] = []
        self.gone = asyncio.get_running_loop().create_future()
        self._link = Link(link.dup())
        self._link.start(self)

    @property
    def pid(self) -> int:
        return os.getpid()

    @property
    def listens(self) -> bool:
        return any(message["op"] == "listen" for message in self.heard)

    def kill(self) -> None:
        self._link.close()
        if not self.gone.done():
            self.gone.set_result(-9)

    def applies(self, number: int) -> None:
        self._link.send({"op": "taken", "number": number})
        self._link.send({"op": "applied", "number": number})

    def control(self, message: dict[str, Any], fds: Sequence[int]) -> None:
        self.heard.append(message)
        for fd in fds:
            os.close(fd)

    def telemetry(self, body: bytes) -> None: ...

    def ended(self, why: str) -> None: ...


@dataclass
class Stage:
    clock: ManualClock
    crew: Crew
    workers: list[ScriptedWorker]
    publisher: Publisher
    revision: list[int] = field(default_factory=lambda: [1])

    def change(self) -> int:
        """Something is newly in force at the node; its number."""
        self.revision[0] += 1
        self.crew.publish()
        return self.publisher.number


@asynccontextmanager
async def two_workers() -> AsyncIterator[Stage]:
    clock, observer, revision = ManualClock(), RecordingObserver(), [1]
    fleet = Fleet(ScriptedEngines(clock), clock=clock, observer=observer, probe_interval_s=1e6, drain_timeout_s=1e6)
    table = Sources(current=lambda: Current(RoutingTable({}, None, revision[0]), {}), in_force=dict, tokens=dict)
    workers: list[ScriptedWorker] = []

    def spawn(link: socket.socket) -> WebProcess:
        workers.append(ScriptedWorker(link))
        return workers[-1]

    async def application(*_: object) -> None: ...

    publisher = Publisher(table)
    crew = Crew(
        [socket.socket(), socket.socket()],
        rebind=socket.socket,
        settings={},
        publisher=publisher,
        replays=Replays(observer, lambda _: None, lambda _: None),
        desk=lambda changed: Desk(Lender(fleet, clock), application, lambda: publisher.lent, changed, clock),
        clock=clock,
        spawn=spawn,
    )
    starting = asyncio.ensure_future(crew.start())
    await until(lambda: len(workers) == 2)
    yield Stage(clock, crew, workers, publisher, revision)
    await crew.stop(drain_s=0)
    starting.cancel()
    await asyncio.wait({starting})
    await fleet.close(abandon=True)


async def test_a_worker_that_starts_late_listens_once_it_has_what_was_answered_for_meanwhile() -> None:
    """``/readyz`` at the first said that a version answers; requests that wait for the second are not refused by it."""
    async with two_workers() as stage:
        first, second = stage.workers
        begun = stage.publisher.number
        first.applies(begun)
        await until(lambda: first.listens)
        loaded = stage.change()
        first.applies(loaded)
        assert await stage.crew.in_force()  # nobody waits for the second, which takes no connection
        second.applies(begun)
        await until(lambda: not stage.crew._applied(loaded))
        assert stage.crew.view()[1]["state"] == "starting"
        waiting = asyncio.ensure_future(stage.crew.in_force())  # from now on it is waited for
        second.applies(loaded)
        assert await waiting
        await until(lambda: second.listens)


async def test_a_worker_that_never_catches_up_listens_all_the_same() -> None:
    """As late as an answer to a change goes out all the same: one version that hangs closes no worker."""
    async with two_workers() as stage:
        second, begun = stage.workers[1], stage.publisher.number
        loaded = stage.change()
        second.applies(begun)
        await until(lambda: not stage.crew._applied(loaded))
        stage.clock.advance(IN_FORCE_S + 0.01)
        await until(lambda: second.listens)


async def test_an_answer_that_waits_for_a_worker_no_longer_owns_up_to_it_once(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the log knows of which changes "answered" did not mean "in force everywhere", and where not."""
    async with two_workers() as stage:
        for worker in stage.workers:
            worker.applies(stage.publisher.number)
        await until(lambda: all(worker.listens for worker in stage.workers))
        with caplog.at_level(logging.WARNING, "turnout.workers"):
            first, _ = stage.workers
            first.applies(stage.change())
            waiting = [asyncio.ensure_future(stage.crew.in_force()) for _ in range(2)]
            await until(lambda: stage.crew.view()[0]["current"])
            assert not any(each.done() for each in waiting)
            stage.clock.advance(STALE_S * 1.1)
            assert await asyncio.gather(*waiting) == [True, True]
        assert [record.getMessage() for record in caplog.records] == [
            "a change is answered, and not in force yet in web worker 2, which does not keep up"
        ]


async def test_a_worker_that_takes_the_place_of_another_has_the_time_to_start() -> None:
    """A busy machine needs more than five seconds for that: who is ended for it never comes, however often it is
    tried. One that has read, and then no more, is stuck."""
    async with two_workers() as stage:
        for worker in stage.workers:
            worker.applies(stage.publisher.number)
        await until(lambda: repr(stage.crew) == "<Crew [serving | serving]>")
        await turns()
        stage.workers[0].kill()
        await until(lambda: len(stage.workers) == 3)
        for _ in range(int(START_S) - 1):
            stage.clock.advance(1.0)
        assert len(stage.workers) == 3
        stage.workers[2].applies(stage.publisher.number)
        await until(lambda: repr(stage.crew) == "<Crew [serving | serving]>")
        number = stage.change()
        stage.workers[1].applies(number)
        await until(lambda: stage.crew.view()[1]["current"])
        for _ in range(int(STUCK_S) + 2):
            stage.clock.advance(1.0)
        await until(lambda: len(stage.workers) == 4)
        assert stage.crew.view()[0]["restarts"] == 2
