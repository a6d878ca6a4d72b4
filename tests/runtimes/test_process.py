"""What a process settles with the system."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import runtimes
from runtimes.process import Priority, thread_environment

ROOT = Path(runtimes.__file__).parents[1]

PROBE = """
import os, resource, sys, threading
from runtimes.process import Priority
if sys.argv[1] == "nobody":
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    os.setuid(65534)
priority = Priority()
before = os.getpriority(os.PRIO_PROCESS, 0)
priority.lower()
low = os.getpriority(os.PRIO_PROCESS, 0)
ready, done, seen = threading.Event(), threading.Event(), []
def pool():
    ready.set()
    done.wait()
    seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
thread = threading.Thread(target=pool)
thread.start()
ready.wait()
priority.restore()
done.set()
thread.join()
print(before, low, os.getpriority(os.PRIO_PROCESS, 0), seen[0])
"""


def probed(who: str) -> list[int]:
    """Niceness before, lowered and after, and after of a thread that was started while it was low."""
    done = subprocess.run([sys.executable, "-c", PROBE, who], cwd=ROOT, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_priority_is_low_only_where_the_way_back_is_allowed() -> None:
    """And the way back takes along the threads made meanwhile, which inherited it."""
    before, low, after, thread = probed("me")
    assert low in (before, min(19, before + 10))
    assert (after, thread) == (before, before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not")
def test_a_process_that_could_not_come_back_stays_as_it_is() -> None:
    """A version that serves slowly for ever is worse than one that loads at normal priority."""
    before, low, after, thread = probed("nobody")
    assert [low, after, thread] == [before] * 3


def test_restoring_what_was_never_lowered_does_nothing() -> None:
    """Nor does asking whether one may return."""
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    Priority().restore()
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_threads_are_capped_for_vendors_that_read_it_at_import() -> None:
    """OpenMP, OpenBLAS, MKL."""
    assert thread_environment(3)["OMP_NUM_THREADS"] == "3"
