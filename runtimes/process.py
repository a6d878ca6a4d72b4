"""What a process of ours settles with the system: who it dies with, its descriptors, threads and priority."""

from __future__ import annotations

import ctypes
import importlib
import os
import random
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

__all__ = [
    "Priority",
    "be_nice",
    "cap_threads",
    "close_all_but",
    "die_with",
    "give_back_code",
    "give_back_heap",
    "go_first",
    "ignore_signals",
    "keep_heap",
    "name_process",
    "out_of_reach",
    "own_group",
    "reseed",
    "step_back",
    "thread_environment",
]

_STOPS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_MADV_DONTNEED = 4
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_LOAD_NICENESS = 10
_PATIENCE_S = 30.0

# ioprio_set(2) has no wrapper in glibc.
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IOPRIO_WHO_PROCESS = 1
_IDLE_READS = 3 << 13
_NORMAL_READS = 0

T = TypeVar("T")


def _prctl(option: int, value: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
    if libc.prctl(option, argument, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def die_with(parent: int, told: signal.Signals = signal.SIGKILL) -> None:
    """The kernel sends this process a signal, which kills it, when its parent ends; it ends at once, if that has
    happened already."""
    _prctl(_PR_SET_PDEATHSIG, told)
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


def own_group() -> None:
    """A process group of its own, so that what the process starts can be ended with it.

    Not a session: Linux gives each one an equal share of the processor (autogroups), and compares priorities within it
    alone, so that a version loading at the lowest one would still take turns with the gateway.
    """
    os.setpgid(0, 0)


@contextmanager
def out_of_reach() -> Iterator[None]:
    """What is started meanwhile hears of no stop before it has said that it ignores it (``ignore_signals``): Ctrl-C
    goes to the whole group, and would end a process that is still importing."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_signals() -> None:
    """Ctrl-C and a stop of the whole service are for the gateway, which drains first and then closes the channel."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # printing to the terminal of a group that is not ours
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)


def give_back_code() -> None:
    """Takes the pages of programs and libraries that start has read out of this process: a sixth of a gateway's memory,
    most of it code that runs once. What is needed again comes from the system's cache, half a microsecond a page.

    Only what is mapped to be read and run: nobody has written to it, so nothing is lost.
    """
    with suppress(OSError, AttributeError, ValueError):
        advise = ctypes.CDLL(None).madvise
        for line in Path("/proc/self/maps").read_text("utf-8", "replace").splitlines():
            span, rights, *rest = line.split(maxsplit=5)
            if rights == "r-xp" and len(rest) == 4 and rest[3].startswith("/"):
                begin, end = (int(address, 16) for address in span.split("-"))
                advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def keep_heap(most_bytes: int) -> None:
    """What this process frees stays its own up to so many bytes, and so does every block up to that size: who takes and
    frees much in turns would otherwise fault the same pages in again each time, up to half of what its work costs."""
    with suppress(OSError, AttributeError):  # a C library without such a choice
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, most_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, most_bytes)


def give_back_heap() -> None:
    """Takes the pages that lie free in the heap out of this process, wherever in it they are: now and then, so that a
    kept heap does not spread over ever more of them."""
    with suppress(OSError, AttributeError):  # a C library that cannot
        ctypes.CDLL(None).malloc_trim(0)


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
    """This process behind all others while it loads, and the way back, if the system allows one.

    The idle class, not niceness: a thread that is merely nice finishes its slice before one that wakes up gets the
    processor (3 ms and more on two cores, measured), an idle one gives way at once. It also gets next to nothing on a
    machine with no idle time, so a load that takes longer than ``patience_s`` goes on as a merely nice one; and one
    that is *awaited*, by requests whose process has died, begins as one.
    """

    def __init__(self, *, patience_s: float = _PATIENCE_S) -> None:
        # This process may have been started low already; the one that started it never is.
        parent = os.getppid()
        self._policy = os.sched_getscheduler(parent)
        self._parameters = os.sched_getparam(parent)
        self._niceness = os.getpriority(os.PRIO_PROCESS, parent)
        self._patience_s = patience_s
        self._back = threading.Event()
        self._patience: threading.Thread | None = None
        self._lowered = False

    def run(self, work: Callable[[], T], *, movable: bool, awaited: bool = False) -> T:
        """Does the work at the lowest priority. Threads that it makes and leaves behind are brought back too.

        Where the way back is denied, ``movable`` work is done in a thread of its own, which ends with it and needs
        no way back; other work is done as it is: a version that serves slowly for ever is worse.
        """
        if not self.lower(awaited=awaited):
            return _in_own_thread(work) if movable and not awaited else work()
        try:
            return work()
        finally:
            self.restore()

    def lower(self, *, awaited: bool = False) -> bool:
        """False, with nothing done, where the way back is denied."""
        if not self.may_return:
            return False
        self._lowered = True
        if awaited:
            self._be_merely_nice()
            return True
        self._patience = threading.Thread(target=self._lose_patience, daemon=True)
        self._patience.start()
        step_back()
        return True

    def restore(self) -> None:
        """Does nothing when it was not lowered."""
        patience, self._patience = self._patience, None
        if patience is not None:
            self._back.set()
            patience.join()
        if self._lowered:
            self._lowered = False
            self._restore(self._policy, self._parameters, self._niceness)

    def _lose_patience(self) -> None:
        if not self._back.wait(self._patience_s):
            self._be_merely_nice()

    def _be_merely_nice(self) -> None:
        self._restore(os.SCHED_OTHER, os.sched_param(0), min(19, self._niceness + _LOAD_NICENESS))

    @staticmethod
    def _restore(policy: int, parameters: os.sched_param, niceness: int) -> None:
        """Priority belongs to a thread on Linux, and pools made while loading have inherited ours."""
        for task in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                os.sched_setscheduler(int(task.name), policy, parameters)
                os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)
                _reads(int(task.name), _NORMAL_READS)

    @property
    def may_return(self) -> bool:
        """Whether this process, once lowered, could come back."""
        # Asked of a thread that ends right after: its own priority is all that can get stuck.
        allowed = []

        def probe() -> None:
            with suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
                os.sched_setscheduler(0, self._policy, self._parameters)
                me = threading.get_native_id()
                os.setpriority(os.PRIO_PROCESS, me, min(19, self._niceness + 1))
                os.setpriority(os.PRIO_PROCESS, me, self._niceness)
                allowed.append(True)

        thread = threading.Thread(target=probe)
        thread.start()
        thread.join()
        return bool(allowed)


def step_back() -> None:
    """The calling thread, and those that it makes, run when nobody else wants the processor, or the disk."""
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        _reads(0, _IDLE_READS)


def be_nice() -> None:
    """For a process that ends with its work, and need not come back."""
    with suppress(OSError):
        os.nice(_LOAD_NICENESS)
        _reads(0, _IDLE_READS)


def _reads(task: int, priority: int) -> None:
    number = _IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        ctypes.CDLL(None).syscall(number, _IOPRIO_WHO_PROCESS, task, priority)


def _in_own_thread(work: Callable[[], T]) -> T:
    done: Future[T] = Future()

    def run() -> None:
        step_back()
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the work was asked for
            done.set_exception(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return done.result()
