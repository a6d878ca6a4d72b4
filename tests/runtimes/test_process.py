"""What a process settles with the system."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import runtimes
from runtimes.process import out_of_reach, own_group, thread_environment

ROOT = Path(runtimes.__file__).parents[1]

PROBE = """
import json, os, resource, sys, threading
from runtimes.process import Priority
if sys.argv[1] == "nobody":
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    os.setuid(65534)

def standing(task=0):
    return [os.sched_getscheduler(task), os.getpriority(os.PRIO_PROCESS, task)]

told = {"before": standing()}
done = threading.Event()

def pool():
    ready.set()
    done.wait()
    told["left behind"] = standing(threading.get_native_id())

def work():
    told["during"] = standing()
    told["in the main thread"] = threading.current_thread() is threading.main_thread()
    if sys.argv[3] == "fail":
        raise ValueError("as asked")
    if sys.argv[3] == "late":
        while os.sched_getscheduler(0) == os.SCHED_IDLE:
            pass
        told["late"] = standing()
    thread.start()
    ready.wait()
    return "result"

ready, thread = threading.Event(), threading.Thread(target=pool)
try:
    priority = Priority(patience_s=0.01 if sys.argv[3] == "late" else 60)
    told["gave"] = priority.run(work, movable=sys.argv[2] == "movable", awaited=sys.argv[3] == "awaited")
except ValueError as error:
    told["gave"] = str(error)
told["after"] = standing()
done.set()
if thread.ident:
    thread.join()
print(json.dumps(told))
"""

NORMAL, IDLE = os.SCHED_OTHER, os.SCHED_IDLE
may_return = pytest.mark.skipif(os.geteuid() != 0, reason="only root is sure to be allowed back")
may_become_another = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")


def probed(who: str, kind: str = "fixed", how: str = "well") -> dict[str, Any]:
    """Scheduling class and niceness, as the process itself saw them."""
    command = [sys.executable, "-c", PROBE, who, kind, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@may_return
def test_work_is_done_behind_everybody_else_and_the_process_is_back_after_it() -> None:
    """Threads that the work leaves behind had inherited its priority, and are back as well."""
    told = probed("me")
    assert told["gave"] == "result"
    assert told["during"][0] == IDLE
    assert told["after"] == told["left behind"] == told["before"]


@may_return
def test_work_that_fails_brings_the_process_back_too() -> None:
    """A load that fails is followed by another."""
    told = probed("me", how="fail")
    assert (told["gave"], told["after"]) == ("as asked", told["before"])


@may_return
def test_a_machine_without_idle_time_does_not_keep_a_version_from_loading() -> None:
    """The idle class gets next to nothing there, so after a while the work is merely nice."""
    told = probed("me", how="late")
    assert told["late"] == [NORMAL, min(19, told["before"][1] + 10)]
    assert told["after"] == told["before"]


@may_return
def test_work_that_requests_wait_for_is_merely_nice_from_the_start() -> None:
    """The place of a process that died is taken on a full machine, too; nobody ever was in the idle class."""
    told = probed("me", how="awaited")
    assert told["during"] == [NORMAL, min(19, told["before"][1] + 10)]
    assert told["after"] == told["left behind"] == told["before"]


@may_become_another
def test_who_could_not_come_back_does_not_step_back_for_work_that_requests_wait_for() -> None:
    told = probed("nobody", "movable", "awaited")
    assert told["during"] == told["after"] == told["before"]
    assert told["in the main thread"] is True


@may_become_another
def test_who_could_not_come_back_does_movable_work_in_a_thread_that_ends() -> None:
    """In a container without CAP_SYS_NICE too, a version loads behind those that serve."""
    told = probed("nobody", "movable")
    assert told["during"][0] == IDLE
    assert (told["gave"], told["in the main thread"], told["after"]) == ("result", False, told["before"])


@may_become_another
def test_who_could_not_come_back_does_other_work_as_it_is() -> None:
    """A version that serves slowly for ever is worse than one that loads at normal priority."""
    told = probed("nobody")
    assert told["during"] == told["after"] == told["left behind"] == told["before"]
    assert told["in the main thread"] is True


def test_a_group_of_its_own_stays_in_the_session() -> None:
    """The scheduler compares priorities within a session alone (autogroups)."""
    pid = os.fork()
    if pid == 0:
        own_group()
        os._exit(0 if os.getpgrp() == os.getpid() and os.getsid(0) != os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_threads_are_capped_for_vendors_that_read_it_at_import() -> None:
    """OpenMP, OpenBLAS, MKL."""
    assert thread_environment(3)["OMP_NUM_THREADS"] == "3"


def test_code_that_is_given_back_runs_as_before() -> None:
    """In a process of its own: what start has read leaves it, and all of it still works."""
    program = (
        "import hashlib, numpy, ssl\n"
        "from pathlib import Path\n"
        "from runtimes.process import give_back_code\n"
        "def pages(): return int(Path('/proc/self/statm').read_text().split()[1])\n"
        "def works(): return hashlib.sha256(numpy.arange(9.0).tobytes()).hexdigest(), numpy.linalg.det(numpy.eye(3))\n"
        "before, expected = pages(), works()\n"
        "give_back_code()\n"
        "after = pages()\n"
        "print(after < before, works() == expected)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert found.stdout.split() == ["True", "True"]


def test_a_heap_that_is_kept_is_not_faulted_in_again() -> None:
    """In a process of its own: blocks that come and go take the pages that others have left."""
    program = (
        "import resource\n"
        "from runtimes.process import keep_heap\n"
        "def faults(rounds):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(rounds):\n"
        "        first, second = b'x' * 1_000_000, b'y' * 1_000_000\n"
        "        del first, second\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "keep_heap(8 * 1024 * 1024)\n"
        "faults(2)\n"
        "print(faults(100))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert int(found.stdout) < 100 * 50, "two blocks are some 490 pages"


def test_what_lies_free_in_a_kept_heap_is_given_back_when_asked() -> None:
    """In a process of its own: the block above holds the others in the heap, as a long life does."""
    program = (
        "from pathlib import Path\n"
        "from runtimes.process import give_back_heap, keep_heap\n"
        "def held(): return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "keep_heap(8 * 1024 * 1024)\n"
        "blocks = [b'x' * 100_000 for _ in range(400)]\n"
        "above = b'y' * 100_000\n"
        "del blocks\n"
        "kept = held()\n"
        "give_back_heap()\n"
        "print(kept - held())\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT
    )
    assert int(found.stdout) > 20_000_000, "40 MB of them were free"


LATE = """
import os, signal, sys
from runtimes.process import ignore_signals
held = signal.sigpending() | signal.pthread_sigmask(signal.SIG_BLOCK, ())
os.kill(os.getpid(), signal.SIGTERM)
os.kill(os.getpid(), signal.SIGINT)
ignore_signals()
print(sorted(map(int, held)), sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
"""


def test_a_process_that_is_starting_does_not_end_by_a_stop_of_its_whole_group() -> None:
    """Ctrl-C while it imports: it ignores that when it can, and hears of it no sooner. The mask is its parent's again
    afterwards, and none of its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    command = [sys.executable, "-c", LATE]
    with out_of_reach():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
    said, _ = process.communicate(timeout=120)
    assert (said, process.returncode) == ("[2, 15] []\n", 0)
