"""Servers of tests end with the process that started them, and so do the processes that they started themselves."""

from __future__ import annotations

import subprocess
import sys

import psutil

from loadtests.live_gateway import wait_until
from loadtests.tied import tied

_SERVER = "import subprocess, sys, time; subprocess.Popen(['sleep', '1000']); print('up', flush=True); time.sleep(1000)"
_STARTER = f"""
import subprocess, sys, time
from loadtests.tied import tied
server = subprocess.Popen(
    tied([sys.executable, "-c", {_SERVER!r}]), stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
)
server.stdout.readline()
print(server.pid, flush=True)
time.sleep(1000)
"""


def test_a_killed_starter_leaves_no_server_behind() -> None:
    """kill -9, which no handler hears of: the server and its worker are gone soon after."""
    with subprocess.Popen([sys.executable, "-c", _STARTER], stdout=subprocess.PIPE) as starter:
        try:
            assert starter.stdout is not None
            server = psutil.Process(int(starter.stdout.readline()))
            family = [server, *server.children(recursive=True)]
            assert "sleep" in {process.name() for process in family}
        finally:
            starter.kill()
    wait_until(lambda: not any(_lives(process) for process in family), what="the end of the server")


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_server_that_ends_by_itself_is_seen_to_end() -> None:
    """With its own exit status, so that whoever waits for it to come up need not wait long."""
    with subprocess.Popen(tied([sys.executable, "-c", "exit(3)"]), stdin=subprocess.PIPE, process_group=0) as server:
        assert server.wait(60) == 3
