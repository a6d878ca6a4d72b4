"""The fork server: what it starts, what it reports, and that nothing outlives anybody."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import gateway
from gateway.errors import LoadError
from gateway.serving.fork_server import ForkServer
from tests.serving.processes import LONG_S, descriptors, ended, eventually, text_of

ROOT = Path(gateway.__file__).parents[1]


def ignores(pid: int) -> bool:
    """Whether a process has come to ignore SIGINT and SIGTERM."""
    line = next(line for line in text_of(f"/proc/{pid}/status").splitlines() if line.startswith("SigIgn"))
    mask = int(line.split()[1], 16)
    return all(mask >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))


def channel() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def test_a_child_ends_with_its_channel_and_is_reaped():
    """Its end is told in words; no zombie, no descriptor stays."""
    before = descriptors()
    server = ForkServer(preload=("json", "no_such_module"))
    ours, theirs = channel()
    child = await server.spawn(theirs, name="digits/3")
    theirs.close()
    assert psutil.Process(child.pid).ppid() == server.pid
    assert repr(server) == f"<ForkServer [pid {server.pid} | 1 children]>"
    assert repr(child) == f"<Child {child.pid} [alive]>"
    ours.close()
    assert await asyncio.wait_for(child.ended, LONG_S) == "exit status 0"
    assert not psutil.pid_exists(child.pid)
    child.kill()
    await server.close()
    assert server.pid is None
    assert descriptors() == before


async def test_many_children_can_be_asked_for_at_once():
    """One server process, started once."""
    server = ForkServer(preload=())
    pairs = [channel() for _ in range(8)]
    children = await asyncio.gather(*(server.spawn(theirs, name=f"m/{i}") for i, (_, theirs) in enumerate(pairs)))
    assert len({child.pid for child in children}) == 8
    assert {psutil.Process(child.pid).ppid() for child in children} == {server.pid}
    children[3].kill()
    assert await asyncio.wait_for(children[3].ended, LONG_S) == "killed by SIGKILL"
    await server.close()
    assert [psutil.pid_exists(child.pid) for child in children] == [False] * 8
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_a_gateway_without_a_free_descriptor_is_told_so_at_once():
    """The child's handle cannot be taken in: nobody waits, the child ends with its channel, the next comes."""
    server = ForkServer(preload=())
    await server.start()
    ours, theirs = channel()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(LoadError, match="descriptor"):
            async with asyncio.timeout(LONG_S / 2):
                await server.spawn(theirs, name="digits/3")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    ours.close()
    await eventually(lambda: not psutil.Process(server.pid).children())
    assert await server.spawn(theirs, name="digits/3")
    theirs.close()
    await server.close()


async def test_children_die_with_the_server_and_the_next_spawn_starts_a_new_one():
    """Also when the server is killed while nothing is under way."""
    before = descriptors()
    server = ForkServer(preload=())
    ours, theirs = channel()
    with ours, theirs:
        child = await server.spawn(theirs, name="digits/3")
        first = server.pid
        os.kill(first, signal.SIGKILL)
        assert await asyncio.wait_for(child.ended, LONG_S) == "ended with its fork server"
        assert ended(child.pid)
        other = await server.spawn(theirs, name="digits/3")
        assert server.pid not in (None, first)
        assert other.pid != child.pid
        await server.close()
    assert descriptors() == before


async def test_a_closed_server_starts_nothing():
    """And closing twice is as good as once."""
    server = ForkServer(preload=())
    await server.start()
    await server.close()
    await server.close()
    ours, theirs = channel()
    with ours, theirs, pytest.raises(LoadError, match="closed"):
        await server.spawn(theirs, name="digits/3")


async def test_ctrl_c_and_a_stop_of_the_whole_service_leave_children_to_the_gateway():
    """The gateway drains first; its children must be there for that."""
    server = ForkServer(preload=())
    ours, theirs = channel()
    child = await server.spawn(theirs, name="digits/3")
    theirs.close()
    assert server.pid is not None
    await eventually(lambda: ignores(child.pid))
    for pid in (server.pid, child.pid):
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    other_ours, other_theirs = channel()
    other = await server.spawn(other_theirs, name="digits/4")
    assert not child.ended.done()
    assert not other.ended.done()
    ours.close()
    assert await asyncio.wait_for(child.ended, LONG_S) == "exit status 0"
    await server.close()
    other_ours.close()
    other_theirs.close()


OWNER = """
import asyncio, socket, sys
from gateway.messages import VersionRef
from gateway.serving.engine import VersionSpec
from gateway.serving.fork_server import ForkServer
from tests.serving.processes import LONG_S, descriptors, ended, eventually, text_of
from gateway.serving.process_engine import ProcessEngine
from runtimes.base import LoadSpec

async def main():
    server = ForkServer(preload=())
    pids = []
    for number in range(3):
        spec = VersionSpec(VersionRef("m", number), "sha256:0", LoadSpec("echo", "", ()))
        engine = ProcessEngine(spec, server, print)
        pids.append((await engine.start()).pid)
        globals()[f"engine{number}"] = engine
    spec = VersionSpec(VersionRef("m", 9), "sha256:0", LoadSpec("echo", "", ()), interpreter=sys.executable)
    engine = ProcessEngine(spec, server, print)
    pids.append((await engine.start()).pid)
    print(server.pid, *pids, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def owning_process() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", OWNER], cwd=ROOT, stdout=subprocess.PIPE, text=True)


async def test_killing_the_gateway_leaves_no_process():
    """SIGKILL, so that no handler runs: the kernel takes the fork server, and every child, forked or executed."""
    owner = owning_process()
    assert owner.stdout is not None
    with owner.stdout as stdout:
        pids = [int(word) for word in stdout.readline().split()]
    assert len(pids) == 5
    assert all(psutil.pid_exists(pid) for pid in pids)
    owner.kill()
    owner.wait()
    await eventually(lambda: all(ended(pid) for pid in pids))
