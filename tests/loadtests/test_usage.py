"""What a process tree costs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from loadtests.usage import MachineTime, each_cpu_s, held, machine_time, processes, resident_mb, threads_cpu_s, usage

SPIN = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\n"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {SPIN!r}], check=True)
print("ended", flush=True)
with subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=subprocess.PIPE) as child:
    input()
    child.stdin.close()
"""


def test_time_of_an_ended_child_counts_and_a_living_one_is_seen() -> None:
    """A reaped child's processor time stays in the tree's; a child that lives is among its processes."""
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert [parent.stdout.readline().strip() for _ in range(2)] == ["ended", "up"]
        found = usage(parent.pid)
        assert found.cpu_s >= 0.25
        assert found.processes == 2
        assert len(processes(parent.pid)) == 2
        assert found.resident_mb > resident_mb(parent.pid) > 1
        parent.communicate("\n", timeout=60)


def test_an_ended_process_costs_nothing_that_could_be_read() -> None:
    """A measurement on a server that has died is an error, not a zero."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(60)
    with pytest.raises(ProcessLookupError, match=str(process.pid)):
        usage(process.pid)
    assert usage(os.getpid()).processes >= 1


def test_what_a_process_holds_is_read_from_the_kernel() -> None:
    """An open file is one descriptor more; private memory is part of resident memory."""
    before = held(os.getpid())
    with open(os.devnull, encoding="utf-8"):  # noqa: PTH123
        assert held(os.getpid()).descriptors == before.descriptors + 1
    assert 0 < before.private_mb <= before.resident_mb
    assert before.threads >= 1


def test_processor_time_adds_up_over_processes_and_threads() -> None:
    """The profile scales its tables with both."""
    assert each_cpu_s(os.getpid())[os.getpid()] > 0
    spent = threads_cpu_s(os.getpid())
    assert spent[os.getpid()] > 0, "the first thread has its process's number"


ORPHAN = """
import subprocess, sys
middle = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import sys; sys.stdin.read()'])"
subprocess.run([sys.executable, "-c", middle], check=True)
print("left behind", flush=True)
input()
"""


def test_a_child_that_its_parent_left_behind_still_counts() -> None:
    """Whose work it does is told by the session; init has adopted it."""
    command = [sys.executable, "-c", ORPHAN]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as leader:
        assert leader.stdout is not None
        assert leader.stdout.readline().strip() == "left behind"
        assert len(processes(leader.pid)) == 2
        leader.communicate("\n", timeout=60)


def test_what_others_took_of_the_machine_is_what_was_busy_and_not_ours() -> None:
    """On a shared machine a figure says how much it was shared; waited-for children are ours."""
    before = MachineTime(everything=1000, stolen=10, busy=100, own=50)
    after = MachineTime(everything=2000, stolen=30, busy=800, own=650)
    assert after.since(before) == (2.0, 10.0)
    assert before.since(before) == (0.0, 0.0)
    began = machine_time()
    subprocess.run([sys.executable, "-c", SPIN], check=True)
    assert machine_time().own - began.own >= 25
