"""What a process of ours settles with the system: who it dies with, its descriptors, threads and priority."""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import signal
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

__all__ = [
    "Priority",
    "cap_threads",
    "close_all_but",
    "die_with",
    "go_first",
    "ignore_signals",
    "name_process",
    "reseed",
    "thread_environment",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_LOAD_NICENESS = 10


def _prctl(option: int, value: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def die_with(parent: int) -> None:
    """The kernel kills this process when its parent ends; at once, if that has happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def name_process(name: str) -> None:
    """What ``ps`` and ``top`` show, 15 bytes of it."""
    with suppress(OSError):
        _prctl(_PR_SET_NAME, name.encode("utf-8", "replace")[:15])


def go_first() -> None:
    """When the machine's memory ends, the kernel takes this process rather than the gateway."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500", "ascii")


def close_all_but(keep: Collection[int]) -> None:
    """Closes every descriptor but these and the standard three."""
    for entry in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names only, and this runs between fork and work
        fd = int(entry)
        if fd > 2 and fd not in keep:
            with suppress(OSError):
                os.close(fd)


def ignore_signals() -> None:
    """Ctrl-C and a stop of the whole service are for the gateway, which drains first and then closes the channel."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def thread_environment(threads: int) -> dict[str, str]:
    """For a process that has not imported its vendors yet: most read these once, at import."""
    return dict.fromkeys(_THREAD_VARIABLES, str(threads))


def cap_threads(threads: int) -> None:
    """For a process that may have imported them: BLAS and OpenMP pools, as far as they can be told."""
    os.environ.update(thread_environment(threads))
    with suppress(ImportError):
        importlib.import_module("threadpoolctl").threadpool_limits(limits=threads)


def reseed() -> None:
    """Forked children would all draw the same numbers."""
    random.seed()
    with suppress(ImportError):
        importlib.import_module("numpy.random").seed(int.from_bytes(os.urandom(4), "little"))


class Priority:
    """This process's niceness while it loads, and the way back, if the system allows one."""

    def __init__(self) -> None:
        self._normal = os.getpriority(os.PRIO_PROCESS, 0)
        self._lowered = False

    def lower(self) -> None:
        """Does nothing where the way back is denied: a version that serves slowly for ever is worse."""
        if self._can_return():
            os.setpriority(os.PRIO_PROCESS, 0, min(19, self._normal + _LOAD_NICENESS))
            self._lowered = True

    def restore(self) -> None:
        """Niceness belongs to a thread on Linux, and pools made while loading have inherited ours."""
        if not self._lowered:
            return
        self._lowered = False
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(task.name), self._normal)

    def _can_return(self) -> bool:
        # Asked of a thread that ends right after: its own niceness is all that can get stuck.
        allowed = []

        def probe() -> None:
            me = threading.get_native_id()
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, me, min(19, self._normal + 1))
                os.setpriority(os.PRIO_PROCESS, me, self._normal)
                allowed.append(True)

        thread = threading.Thread(target=probe)
        thread.start()
        thread.join()
        return bool(allowed)
