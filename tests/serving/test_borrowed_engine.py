"""A child that serves several gateways: channels of its own for each, batches that merge, ends that stay apart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import LoadError, ModelError, NotBegun, VersionCrashed, VersionHung, VersionUnavailable
from gateway.messages import VersionRef
from gateway.serving.borrowed_engine import BorrowedEngine
from gateway.serving.engine import BatchPolicy, EngineInfo, VersionSpec, run_on
from gateway.serving.fork_server import ForkServer
from gateway.serving.process_engine import ProcessEngine
from runtimes.base import LoadSpec
from runtimes.packets import Op, Packet, send
from tests.runtimes.versions import signature
from tests.serving.processes import LONG_S, descriptors, descriptors_of, eventually, gone
from tests.serving.test_launch import Outcomes


@pytest.fixture
async def forks():
    server = ForkServer(preload=())
    yield server
    await server.close()


def spec_of(max_rows: int = 32, signature_: Any = None, **options: Any) -> VersionSpec:
    load = LoadSpec("echo", "", (), signature=signature_, options=options)
    retry = options.pop("retry", True)
    return VersionSpec(VersionRef("m", 1), "sha256:0", load, batch=BatchPolicy(max_rows=max_rows), retry=retry)


class Borrower:
    """One gateway's share of a child, with what it was told."""

    def __init__(self, owner: ProcessEngine, info: EngineInfo, spec: VersionSpec) -> None:
        self.exits: list[str] = []
        self.hangs = 0
        self.outcomes = Outcomes()
        self._owner, self._info = owner, info
        self.engine = BorrowedEngine(spec, self._connect, self.exits.append, self._hung)

    async def _connect(self) -> tuple[socket.socket, EngineInfo]:
        return self._owner.share(), self._info

    def _hung(self) -> None:
        self.hangs += 1
        os.kill(self._info.pid or 0, signal.SIGKILL)

    def launch(
        self, name: str, count: int = 1, value: float = 1.0, limit_s: float = LONG_S, alone: bool = False
    ) -> None:
        self.engine.launch([rows(count, value)], limit_s=limit_s, done=self.outcomes.of(name), alone=alone)


@asynccontextmanager
async def shared(forks: ForkServer, borrowers: int = 2, spec: VersionSpec | None = None, **options: Any):
    spec = spec or spec_of(**options)
    exits: list[str] = []
    owner = ProcessEngine(spec, forks, exits.append)
    info = await owner.start()
    made = [Borrower(owner, info, spec) for _ in range(borrowers)]
    for borrower in made:
        assert await borrower.engine.start() == info
    try:
        yield owner, exits, made
    finally:
        for borrower in made:
            await borrower.engine.close()
        await owner.close()


def rows(count: int = 1, value: float = 1.0):
    return {"x": np.full((count, 4), value, np.float32)}


async def answered(*borrowers: Borrower, count: int = 1) -> None:
    await eventually(lambda: all(len(borrower.outcomes) >= count for borrower in borrowers))


async def test_each_gateway_gets_its_own_rows_in_its_own_order(forks: ForkServer):
    """Three at once, two batches under way each, for two hundred batches; some of them run together."""
    merged = 0
    async with shared(forks, 3) as (owner, exits, borrowers):

        async def ask(who: int, engine: Any) -> None:
            nonlocal merged
            for turn in range(100):
                values = [who * 1000 + turn, who * 1000 + turn + 0.5]
                results = await asyncio.gather(
                    *(run_on(engine.launch, [rows(turn % 3 + 1, value)], LONG_S) for value in values)
                )
                for value, result in zip(values, results, strict=True):
                    assert result.outputs["y"].tolist() == [[value] * 4] * (turn % 3 + 1)
                    merged += result.ran_rows > turn % 3 + 1

        await asyncio.gather(*(ask(n, one.engine) for n, one in enumerate(borrowers)), ask(9, owner))
        assert exits == []
        assert merged > 0
        assert repr(borrowers[0].engine).startswith("<BorrowedEngine m/1 [idle | pid ")


async def test_batches_that_wait_on_different_channels_run_together(forks: ForkServer, tmp_path: Path):
    """Up to the version's rows, each answered with its own; what the run took is told with the rows that ran."""
    hold = tmp_path / "hold"
    hold.touch()
    async with shared(forks, 3, max_rows=5, delay_per_row_ms=40, hold=str(hold)) as (owner, _, (one, two, three)):
        owner_outcomes = Outcomes()
        owner.launch([rows(3, 9)], limit_s=LONG_S, done=owner_outcomes.of("first"))
        await eventually(lambda: owner._conversation.begun)
        one.launch("a", 2, 1)
        two.launch("b", 3, 2)
        three.launch("c", 1, 3)
        hold.unlink()
        await answered(one, two, three)
        results = [borrower.outcomes[0][1] for borrower in (one, two, three)]
        assert [result.outputs["y"].tolist() for result in results] == [[[1] * 4] * 2, [[2] * 4] * 3, [[3] * 4]]
        assert sorted(result.ran_rows for result in results) == [1, 5, 5]
        assert min(result.compute_s for result in results if result.ran_rows == 5) >= 0.2


@pytest.mark.parametrize("reason", ["alone", "no retry", "other layout", "not batched"])
async def test_what_must_not_run_together_does_not(forks: ForkServer, reason: str, tmp_path: Path):
    """Asked to be alone, effects that must not repeat, other shapes, no axis of rows."""
    given, hold = None, tmp_path / "hold"
    hold.touch()
    if reason != "no retry":
        axis: tuple[Any, ...] = ("batch", "w")
        given = signature({"x": ("FP32", axis)}, {"y": ("FP32", axis)}, batched=reason != "not batched")
    spec = spec_of(signature_=given, hold=str(hold))
    if reason == "no retry":
        spec = VersionSpec(spec.ref, spec.digest, spec.load, retry=False)
    async with shared(forks, 2, spec) as (owner, _, (one, two)):
        owner.launch([rows()], limit_s=LONG_S, done=Outcomes().of("first"))
        await eventually(lambda: owner._conversation.begun)
        one.launch("a", 2, alone=reason == "alone")
        if reason == "other layout":
            wide = {"x": np.ones((2, 5), np.float32)}
            two.engine.launch([wide], limit_s=LONG_S, done=two.outcomes.of("b"))
        else:
            two.launch("b", 2)
        hold.unlink()
        await answered(one, two)
        own = 1 if reason == "not batched" else 2
        assert [one.outcomes[0][1].ran_rows, two.outcomes[0][1].ran_rows] == [own, own]


async def test_the_bad_rows_of_one_never_fail_anothers_batch(forks: ForkServer, tmp_path: Path):
    """A run that fails together is run again apart: only the guilty is told."""
    hold = tmp_path / "hold"
    hold.touch()
    async with shared(forks, 3, hold=str(hold), fail={"equals": 13}) as (owner, _, (one, two, three)):
        owner.launch([rows()], limit_s=LONG_S, done=Outcomes().of("first"))
        await eventually(lambda: owner._conversation.begun)
        one.launch("good", 2, 1)
        two.launch("bad", 2, 13)
        three.launch("good", 1, 2)
        hold.unlink()
        await answered(one, two, three)
        assert one.outcomes.told + two.outcomes.told + three.outcomes.told == [
            "good BatchResult",
            "bad ModelError",
            "good BatchResult",
        ]
        assert one.outcomes[0][1].outputs["y"].tolist() == [[1] * 4] * 2
        assert one.outcomes[0][1].ran_rows == 2


async def test_a_run_that_is_too_large_together_is_run_apart_and_stays_so(forks: ForkServer, tmp_path: Path):
    """Out of memory for the sum, not for the parts: nobody is told of it."""
    hold = tmp_path / "hold"
    async with shared(forks, 2, hold=str(hold), oom_above_rows=3) as (owner, _, (one, two)):
        for _ in range(2):
            hold.touch()
            owner.launch([rows()], limit_s=LONG_S, done=Outcomes().of("first"))
            await eventually(lambda: owner._conversation.begun)
            one.launch("a", 2)
            two.launch("b", 2)
            hold.unlink()
            await eventually(lambda: not one.engine._conversation.busy and not two.engine._conversation.busy)
            await eventually(lambda: owner._conversation.underway == 0)
        assert one.outcomes.told + two.outcomes.told == ["a BatchResult"] * 2 + ["b BatchResult"] * 2


async def test_the_end_of_one_channel_takes_nothing_along(forks: ForkServer, tmp_path: Path):
    """Closed at work, closed idle: the child goes on for the others, and keeps nothing of it."""
    hold = tmp_path / "hold"
    async with shared(forks, 0, hold=str(hold)) as (owner, exits, _):
        info = EngineInfo(signature({"x": ("FP32", ("batch", 4))}, {"y": ("FP32", ("batch", 4))}), "cpu", 1, {})
        for _ in range(3):
            await owner.run([rows()], limit_s=LONG_S)
        held = [descriptors_of(pid) for pid in (owner._child.pid, os.getpid())]
        one, two = (Borrower(owner, info, owner._spec) for _ in range(2))
        await one.engine.start()
        await two.engine.start()
        hold.touch()
        one.launch("lost")
        one.launch("never")
        await eventually(lambda: one.engine._conversation.begun)
        await one.engine.close()
        assert one.outcomes.told == ["lost VersionCrashed", "never NotBegun"]
        assert one.exits == []
        hold.unlink()
        assert (await two.engine.run([rows(2, 7)], limit_s=LONG_S)).outputs["y"].tolist() == [[7] * 4] * 2
        await two.engine.close()
        with pytest.raises(NotBegun):
            await two.engine.run([rows()], limit_s=LONG_S)
        assert await owner.run([rows()], limit_s=LONG_S)
        await eventually(lambda: held == [descriptors_of(pid) for pid in (owner._child.pid, os.getpid())])
        assert exits == []


async def test_the_end_of_the_main_channel_ends_the_child_for_all(forks: ForkServer):
    """Whoever waits is told whether its batch had begun; whoever does not is told of the exit."""
    async with shared(forks, 3, hang={"equals": 5}) as (owner, exits, (one, two, three)):
        pid = one.engine._pid
        one.launch("begun", value=5)
        await eventually(lambda: one.engine._conversation.begun)
        two.launch("waiting")
        await owner.close()
        await answered(one, two)
        await eventually(lambda: three.exits != [])
        assert one.outcomes.told == ["begun VersionCrashed"]
        assert two.outcomes.told == ["waiting NotBegun"]
        assert (len(one.exits), len(two.exits), len(three.exits)) == (0, 1, 1)
        assert gone(pid)
        assert exits == []
        with pytest.raises(VersionUnavailable):
            owner.share()


async def test_a_crash_blames_those_alone_whose_batch_ran(forks: ForkServer):
    """The child leaves word of what it has begun, where its death cannot take it away."""
    async with shared(forks, 2, crash={"equals": 13}, delay_ms=50) as (owner, exits, (one, two)):
        owner.launch([rows(value=2)], limit_s=LONG_S, done=Outcomes().of("first"))
        await eventually(lambda: owner._conversation.begun)
        one.launch("killer", value=13, alone=True)
        one.launch("behind")
        two.launch("bystander", alone=True)
        await answered(one, two, count=1)
        await eventually(lambda: len(one.outcomes) == 2)
        assert one.outcomes.told == ["killer VersionCrashed", "behind NotBegun"]
        assert two.outcomes.told in (["bystander NotBegun"], ["bystander BatchResult"])
        await eventually(lambda: exits != [])


async def test_a_hang_is_told_to_the_owner_who_ends_the_child(forks: ForkServer):
    """The one whose batch hangs says so; one that merely waits behind it is patient, and was not begun."""
    async with shared(forks, 2, hang={"equals": 5}) as (_, exits, (one, two)):
        one.launch("hanging", value=5, limit_s=0.3)
        await eventually(lambda: one.engine._conversation.begun)
        two.launch("waiting", limit_s=0.2)
        await answered(one, two)
        assert one.outcomes.told == ["hanging VersionHung"]
        assert two.outcomes.told == ["waiting NotBegun"]
        assert (one.hangs, two.hangs) == (1, 0)
        await eventually(lambda: exits != [])


async def test_one_that_waits_behind_a_hang_that_nobody_watches_has_it_ended(forks: ForkServer):
    """The gateway whose batch hangs is gone itself: those behind it wait some limits long, and no longer."""
    async with shared(forks, 2, hang={"equals": 5}) as (_, exits, (one, two)):
        one.launch("hanging", value=5)
        await eventually(lambda: one.engine._conversation.begun)
        two.launch("waiting", limit_s=0.05)
        await answered(two)
        assert two.outcomes.told == ["waiting NotBegun"]
        assert (two.hangs, len(two.exits)) == (1, 1)
        await eventually(lambda: exits != [])


HOSTILE: dict[str, list[Any]] = {
    "nonsense": [b"\xff" * 40],
    "batch without a layout": [Packet(Op.RUN, rows=1)],
    "layout without a memory": [Packet(Op.LAYOUT, rows=8, tail=b"[[4]]"), Packet(Op.RUN, rows=1)],
    "layout that lies": [Packet(Op.LAYOUT, rows=8, tail=b"[[5]]")],
    "memory that could shrink": [Packet(Op.INPUT, size_bytes=4096), "loose"],
    "memory without descriptor": [Packet(Op.OUTPUT, size_bytes=4096)],
    "load": [Packet(Op.LOAD, size_bytes=10)],
    "normal": [Packet(Op.NORMAL)],
    "one more channel": [Packet(Op.CHANNEL), "loose"],
    "answer": [Packet(Op.DONE)],
}


@pytest.mark.parametrize("attack", HOSTILE)
async def test_a_hostile_channel_loses_itself_and_nothing_else(forks: ForkServer, attack: str):
    """Whatever comes over a borrowed channel: that channel is closed, and the child serves on, with nothing left."""
    async with shared(forks, 1) as (owner, exits, (one,)):
        pid = one.engine._pid
        assert await one.engine.run([rows()], limit_s=LONG_S)
        assert await owner.run([rows()], limit_s=LONG_S)
        held = descriptors_of(pid)
        with owner.share() as channel:
            packets = HOSTILE[attack]
            if packets[-1] == "loose":
                fd = os.memfd_create("loose")
                os.ftruncate(fd, 4096)
                send(channel, packets[0], [fd])
                os.close(fd)
            else:
                for packet in packets:
                    with suppress(BrokenPipeError):
                        channel.send(packet) if isinstance(packet, bytes) else send(channel, packet)
            channel.settimeout(LONG_S)
            with suppress(ConnectionResetError):
                assert channel.recv(100) == b""
        assert (await one.engine.run([rows(2, 3)], limit_s=LONG_S)).outputs["y"].tolist() == [[3] * 4] * 2
        assert await owner.run([rows()], limit_s=LONG_S)
        await eventually(lambda: descriptors_of(pid) == held)
        assert exits == []


async def test_a_channel_that_is_not_read_stalls_nobody(forks: ForkServer):
    """Its answers have no room in the end: it is closed, and the child never waits for it."""
    async with shared(forks, 1) as (owner, exits, (one,)):
        with owner.share() as channel:
            layout = Packet(Op.LAYOUT, rows=8, tail=b"[[4]]")
            channel.setblocking(False)
            from runtimes.memory import Memory

            memory = Memory.create("test", 1 << 20, writable_by_child=True)
            send(channel, Packet(Op.INPUT, size_bytes=1 << 20), [memory.fd])
            send(channel, layout)
            with suppress(BrokenPipeError, ConnectionResetError):
                for turn in range(5000):
                    with suppress(BlockingIOError):
                        send(channel, Packet(Op.RUN, rows=1, output=3))
                    if turn % 50 == 0:
                        assert await one.engine.run([rows()], limit_s=LONG_S)
            memory.close()
        assert (await owner.run([rows(1, 4)], limit_s=LONG_S)).outputs["y"].tolist() == [[4] * 4]
        assert exits == []


async def test_starting_says_why_it_cannot(forks: ForkServer):
    """The owner has nothing to share, is late, or the engine was closed meanwhile; nothing is left."""
    await forks.start()
    before = descriptors()
    spec = VersionSpec(VersionRef("m", 1), "sha256:0", LoadSpec("echo", "", ()), load_timeout_s=0.05)
    info: Any = None
    gate = asyncio.Event()

    async def late() -> tuple[socket.socket, EngineInfo]:
        await gate.wait()
        ours, theirs = socket.socketpair()
        theirs.close()
        return ours, info

    async def refused() -> tuple[socket.socket, EngineInfo]:
        raise ConnectionRefusedError("nobody there")

    for connect, told in ((late, "not loaded within"), (refused, "nobody there")):
        engine = BorrowedEngine(spec, connect, print, print)
        with pytest.raises(LoadError, match=told):
            await engine.start()
        with pytest.raises(LoadError, match="make a new one"):
            await engine.start()
    engine = BorrowedEngine(spec_of(), late, print, print)
    start = asyncio.ensure_future(engine.start())
    await asyncio.sleep(0)
    await engine.close()
    gate.set()
    with pytest.raises(LoadError, match="closed while it started"):
        await start
    assert descriptors() == before
    with pytest.raises(VersionUnavailable):
        ProcessEngine(spec, forks, print).share()


async def test_failures_keep_their_kind_over_a_borrowed_channel(forks: ForkServer, tmp_path: Path):
    """And a cancelled batch ends the channel, not the child."""
    control, hold = tmp_path / "control.json", tmp_path / "hold"
    async with shared(forks, 2, control=str(control), hold=str(hold)) as (owner, exits, (one, two)):
        control.write_text(json.dumps({"fail": "always"}))
        with pytest.raises(ModelError, match="scripted"):
            await one.engine.run([rows()], limit_s=LONG_S)
        control.write_text("{}")
        hold.touch()
        work = asyncio.ensure_future(one.engine.run([rows()], limit_s=LONG_S))
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        with pytest.raises((VersionHung, NotBegun)):
            await two.engine.run([rows()], limit_s=0.001)
        with pytest.raises((VersionCrashed, NotBegun)):
            await owner.run([rows()], limit_s=LONG_S)
        await eventually(lambda: two.hangs == 1)
        assert len(exits) <= 1
