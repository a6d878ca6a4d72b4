"""The process that versions are forked from: it has the heavy imports done, and does nothing else.

No tensor work and no CUDA call happens here, since neither survives a fork. It dies with the
gateway, and its children die with it. Requests and reports are JSON packets on a SOCK_SEQPACKET
socket: ``spawn`` comes with the child's channel, ``spawned`` goes back with the child's pidfd,
``exited`` tells how a child ended.
"""

from __future__ import annotations

import argparse
import array
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from runtimes import boot, catalog, worker
from runtimes.packets import failure, send
from runtimes.process import (
    Priority,
    close_all_but,
    die_with,
    ignore_signals,
    name_process,
    own_group,
    step_back,
    thread_environment,
)

__all__ = ["Server", "main"]

_REQUEST_BYTES = 64 * 1024
# These would point another interpreter at this one's packages.
_OWN_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "__PYVENV_LAUNCHER__")


class Server:
    """Forks on request, reaps, reports. Single-threaded: a child dies with the *thread* that forked it."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._children: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)

    def serve(self) -> None:
        """Returns when the gateway closes its end."""
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._reap(key.data)
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        room = socket.CMSG_SPACE(array.array("i").itemsize)
        data, ancillary, _, _ = self._control.recvmsg(_REQUEST_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        if not data:
            return False
        fds = array.array("i")
        for _level, _kind, body in ancillary:
            fds.frombytes(body)
        channel = socket.socket(fileno=fds[0])
        try:
            self._spawn(json.loads(data), channel)
        finally:
            channel.close()
        return True

    def _spawn(self, request: dict[str, Any], channel: socket.socket) -> None:
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"op": "refused", "id": request["id"], "reason": f"fork failed: {error.strerror}"})
            return
        if pid == 0:
            self._become(request, channel)
        pidfd = os.pidfd_open(pid)
        self._children[pid] = pidfd
        self._selector.register(pidfd, selectors.EVENT_READ, pid)
        self._tell({"op": "spawned", "id": request["id"], "pid": pid}, [pidfd])

    def _become(self, request: dict[str, Any], channel: socket.socket) -> NoReturn:
        """In the child. Everything the server holds is closed before model code can see it."""
        try:
            own_group()
            if not request["awaited"] and Priority().may_return:
                step_back()  # until it has loaded: what it sets up before is work beside traffic too
            if request["interpreter"] is None:
                worker.enter(channel, parent=self._pid, name=request["name"], threads=request["threads"])
            self._execute(request, channel)
        finally:
            os._exit(1)

    def _execute(self, request: dict[str, Any], channel: socket.socket) -> None:
        die_with(self._pid)
        close_all_but({channel.fileno()})
        channel.set_inheritable(True)
        told = ["--fd", str(channel.fileno()), "--parent", str(self._pid)]
        told += ["--name", request["name"], "--threads", str(request["threads"])]
        command = boot.command("worker", told, interpreter=request["interpreter"])
        environment = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
        try:
            environment |= thread_environment(request["threads"])
            os.execve(command[0], command, environment)  # noqa: S606 - a list, never a shell
        except OSError as error:
            message = f"interpreter {request['interpreter']} cannot be started: {error.strerror}"
            send(channel, failure("load-failed", message))

    def _reap(self, pid: int) -> None:
        pidfd = self._children.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        # What the version's code had started ends with it; not reaped yet, the number is still the child's.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._tell({"op": "exited", "pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _tell(self, body: dict[str, Any], fds: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._control.sendmsg([json.dumps(body).encode()], ancillary)


def main(arguments: Sequence[str]) -> None:
    """``--fd N --parent PID --preload torch,onnxruntime``. A module that cannot be imported is left out."""
    parser = argparse.ArgumentParser("runtimes.fork_server")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--preload", default="")
    told = parser.parse_args(arguments)
    die_with(told.parent)
    ignore_signals()
    os.dup2(2, 1)
    name_process("turnout forks")
    os.environ.update(thread_environment(1))
    wanted = list(filter(None, told.preload.split(",")))
    skipped = [name for name in wanted if not _imported(name)]
    for name in set(wanted).difference(skipped):
        for companion in catalog.COMPANIONS.get(name, ()):
            _imported(companion)  # private to the vendor, so it may not be there
    gc.collect()
    gc.freeze()  # keeps the children's collector from touching, and so copying, what was imported
    control = socket.socket(fileno=told.fd)
    server = Server(control)
    with suppress(ConnectionError):  # the gateway is gone, or never meant to wait
        server._tell({"op": "ready", "skipped": skipped})  # noqa: SLF001 - the first word is the server's own
        server.serve()
    os._exit(0)


def _imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    except Exception as error:  # noqa: BLE001 - a broken package must not keep every other version from starting
        sys.stderr.write(f"[fork server] {name} is not preloaded: {type(error).__name__}: {error}\n")
        return False
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
