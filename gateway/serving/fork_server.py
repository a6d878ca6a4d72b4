"""The gateway's side of the fork server: starts it, asks it for children, learns how they ended.

The fork server is one process; its death takes its children along (the kernel sees to that),
and the next spawn starts a new one. Everything here runs on the event loop and nothing polls.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from gateway.errors import LoadError
from gateway.serving.child import Child, in_words
from runtimes import boot
from runtimes.process import out_of_reach

__all__ = ["ForkServer"]

log = logging.getLogger("turnout.serving.fork_server")

_REPORT_BYTES = 64 * 1024
_START_LIMIT_S = 120.0
_SPAWN_LIMIT_S = 30.0
_CLOSE_LIMIT_S = 5.0


class _Connection:
    """One running fork server process and what is under way with it."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self.process = process
        self.control = control
        self.ready: asyncio.Future[list[str]] = loop.create_future()
        self.pending: dict[int, asyncio.Future[Child]] = {}
        self.children: dict[int, Child] = {}
        self.alive = True
        loop.add_reader(control, self._on_report)

    def _on_report(self) -> None:
        while self.alive:
            try:
                room = socket.CMSG_SPACE(array.array("i").itemsize)
                data, ancillary, _, _ = self.control.recvmsg(_REPORT_BYTES, room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            if not data:
                self.end()
                return
            fds = array.array("i")
            for _level, _kind, body in ancillary:
                fds.frombytes(body)
            self._take(json.loads(data), fds.tolist())

    def _take(self, report: dict[str, Any], fds: list[int]) -> None:
        if report["op"] == "ready":
            if not self.ready.done():
                self.ready.set_result(report["skipped"])
        elif report["op"] == "spawned":
            if fds:
                self._spawned(report, fds[0])
            else:  # the kernel had no number for it; the child ends with the channel that its asker gives up
                self._refused(report["id"], "the gateway has no free descriptor; raise its limit of open files")
        elif report["op"] == "refused":
            self._refused(report["id"], report["reason"])
        else:
            child = self.children.pop(report["pid"], None)
            if child is not None:
                child.reaped(in_words(report["status"]))

    def _spawned(self, report: dict[str, Any], pidfd: int) -> None:
        child = Child(report["pid"], pidfd)
        self.children[child.pid] = child
        waiting = self.pending.pop(report["id"], None)
        if waiting is None or waiting.done():
            child.kill()  # whoever asked has left
        else:
            waiting.set_result(child)

    def _refused(self, number: int, reason: str) -> None:
        waiting = self.pending.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(LoadError(f"no process could be started: {reason}"))

    def end(self) -> None:
        """The process is gone or is told to go: nobody waits for it any longer."""
        if not self.alive:
            return
        self.alive = False
        asyncio.get_running_loop().remove_reader(self.control)
        self.control.close()
        for child in self.children.values():
            child.orphaned()
        gone = LoadError("the fork server ended while it started a process; the next attempt starts a new one")
        waiters: list[asyncio.Future[Any]] = [self.ready, *self.pending.values()]
        for waiting in waiters:
            if not waiting.done():
                waiting.set_exception(gone)
                waiting.exception()  # seen here: whoever waits sees it too
        self.pending.clear()


class ForkServer:
    """Starts children in tens of milliseconds. ``preload`` names the modules they share (``catalog.preloads()``).

    ``spawn`` starts the server process when there is none. ``close`` ends it and its children.
    """

    def __init__(self, *, preload: Sequence[str] = ("numpy",)) -> None:
        self._preload = tuple(preload)
        self._connection: _Connection | None = None
        self._starting = asyncio.Lock()
        self._numbers = 0
        self._retiring: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        children = len(self._connection.children) if self._connection else 0
        return f"<ForkServer [pid {self.pid} | {children} children]>"

    @property
    def pid(self) -> int | None:
        """Of the server process, None while there is none."""
        connection = self._connection
        return connection.process.pid if connection is not None and connection.alive else None

    async def start(self) -> None:
        """Starts the process and waits until its imports are done. ``LoadError`` when it does not come up."""
        await self._connected()

    async def spawn(
        self,
        channel: socket.socket,
        *,
        name: str,
        threads: int = 1,
        interpreter: str | None = None,
        awaited: bool = False,
    ) -> Child:
        """A child that holds ``channel``, which stays the caller's to close here. ``LoadError`` when there is none.
        Not ``awaited``: behind all other work of the machine, until it has loaded.

        Cancelled, it leaves no child behind.
        """
        connection = await self._connected()
        self._numbers += 1
        number = self._numbers
        waiting: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        connection.pending[number] = waiting
        request = {
            "op": "spawn", "id": number, "name": name, "threads": threads, "interpreter": interpreter,
            "awaited": awaited,
        }  # fmt: skip
        try:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [channel.fileno()]))]
            connection.control.sendmsg([json.dumps(request).encode()], rights)
        except OSError as error:
            connection.pending.pop(number, None)
            raise LoadError(f"the fork server does not take requests: {error.strerror}; try again") from error
        try:
            async with asyncio.timeout(_SPAWN_LIMIT_S):
                return await asyncio.shield(waiting)
        except TimeoutError:
            waiting.cancel()  # one that comes later is killed
            raise LoadError(f"no process was started within {_SPAWN_LIMIT_S:g} s") from None
        except asyncio.CancelledError:
            await _undo(waiting)
            raise

    async def close(self) -> None:
        """Ends the server and every child of it, and waits until they are gone. Idempotent."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection is not None:
            children = list(connection.children.values())
            for child in children:
                child.kill()
            await _gone(children)
            connection.end()
            await self._retire(connection)
        await asyncio.gather(*self._retiring)

    async def _connected(self) -> _Connection:
        async with self._starting:
            if self._closed:
                raise LoadError("the fork server is closed")
            if self._connection is not None and not self._connection.alive:
                self._leave(self._connection)
                self._connection = None
            if self._connection is None:
                self._connection = await self._launch()
            return self._connection

    async def _launch(self) -> _Connection:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            ours.setblocking(False)
            connection = _Connection(_popen(theirs, self._preload), ours)
        try:
            async with asyncio.timeout(_START_LIMIT_S):
                skipped = await connection.ready
        except BaseException as error:
            connection.end()
            self._leave(connection)
            if isinstance(error, TimeoutError):
                raise LoadError(f"the fork server was not ready within {_START_LIMIT_S:g} s") from None
            raise
        if skipped:
            log.info("not installed, so not preloaded: %s", ", ".join(skipped))
        return connection

    def _leave(self, connection: _Connection) -> None:
        task = asyncio.get_running_loop().create_task(self._retire(connection))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, connection: _Connection) -> None:
        """Reaps the process, which ends by itself when its socket closes, and its children with it."""
        await _reaped(connection.process)
        for child in list(connection.children.values()):
            child.kill()
        await _gone(list(connection.children.values()))
        connection.children.clear()


def _popen(control: socket.socket, preload: Sequence[str]) -> subprocess.Popen[bytes]:
    told = ["--fd", str(control.fileno()), "--parent", str(os.getpid()), "--preload", ",".join(preload)]
    command = boot.command("fork_server", told)
    with out_of_reach():
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[control.fileno()])


async def _undo(waiting: asyncio.Future[Child]) -> None:
    """Ends the child that was asked for, whenever it comes; does not return before it is gone."""
    try:
        async with asyncio.timeout(_CLOSE_LIMIT_S):
            child = await waiting
    except (TimeoutError, LoadError):
        return
    child.kill()
    await _gone([child])


async def _gone(children: Sequence[Child]) -> None:
    if children:
        await asyncio.wait([child.ended for child in children], timeout=_CLOSE_LIMIT_S)


async def _reaped(process: subprocess.Popen[bytes]) -> None:
    """Waits for the end of a process of ours, and kills it when that takes too long."""
    if process.poll() is not None:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, ended.set)
    try:
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_LIMIT_S):
                    await ended.wait()
                    return
            process.kill()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.poll()
