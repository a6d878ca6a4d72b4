"""What a server costs, from ``/proc``: processor time and memory of a process with everything that it started.

Times are counted in the kernel's ticks (10 ms), so a measurement should last a second or more. A process's own
time counts together with that of its ended and reaped children, so nothing is lost when a
child ends between two readings.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Held",
    "Usage",
    "cpu_s",
    "each_cpu_s",
    "held",
    "machine_time",
    "processes",
    "resident_mb",
    "threads_cpu_s",
    "usage",
]

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# /proc/<pid>/stat, counted after the command's closing bracket (proc(5) counts from 1, and the state is its field 3).
_PARENT, _SESSION, _FIRST_TIME, _LAST_TIME, _RESIDENT = 1, 3, 11, 15, 21


@dataclass(frozen=True, slots=True)
class Usage:
    """User and system time so far; ``resident_mb`` sums over processes, so pages they share count more than once."""

    cpu_s: float
    resident_mb: float
    processes: int


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds. ``private_mb``: pages that no other process shares, which its end would give back."""

    resident_mb: float
    private_mb: float
    descriptors: int
    threads: int


def held(pid: int) -> Held:
    """Raises ProcessLookupError when the process is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        rows = (line.split() for line in (folder / "smaps_rollup").read_text(encoding="utf-8").splitlines()[1:])
        kilobytes = {row[0].rstrip(":"): int(row[1]) for row in rows}
        descriptors = len(list((folder / "fd").iterdir()))
        threads = len(list((folder / "task").iterdir()))
    except FileNotFoundError as gone:
        raise ProcessLookupError(f"process {pid} has ended; what it holds cannot be read any more") from gone
    private = kilobytes.get("Private_Clean", 0) + kilobytes.get("Private_Dirty", 0)
    return Held(kilobytes.get("Rss", 0) * 1024 / 1e6, private * 1024 / 1e6, descriptors, threads)


def processes(pid: int) -> list[int]:
    """``pid`` and all its living descendants, and whoever is of the session that it leads: a child that a process
    between them left behind costs, too."""
    children: dict[int, list[int]] = {}
    session = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _fields(int(folder.name))) is not None:
            children.setdefault(int(fields[_PARENT]), []).append(int(folder.name))
            if int(fields[_SESSION]) == pid:
                session.append(int(folder.name))
    found = list(dict.fromkeys([pid, *session]))
    for parent in found:
        found.extend(child for child in children.get(parent, ()) if child not in found)
    return found


def usage(pid: int) -> Usage:
    """Raises ProcessLookupError when the process itself is gone."""
    if _fields(pid) is None:
        raise ProcessLookupError(f"process {pid} has ended; its cost cannot be read any more")
    ticks, pages, alive = 0, 0, 0
    for each in processes(pid):
        fields = _fields(each)
        if fields is not None:
            ticks += _ticks(fields)
            pages += int(fields[_RESIDENT])
            alive += 1
    return Usage(ticks / _TICKS, pages * _PAGE / 1e6, alive)


def cpu_s(pid: int) -> float:
    return usage(pid).cpu_s


def each_cpu_s(pid: int) -> dict[int, float]:
    """By process, of ``pid`` and all that descend from it."""
    found = {each: _fields(each) for each in processes(pid)}
    return {each: _ticks(fields) / _TICKS for each, fields in found.items() if fields is not None}


def threads_cpu_s(pid: int) -> dict[int, float]:
    """By thread, of ``pid`` and all that descend from it; finer than ticks."""
    found = {}
    for each in processes(pid):
        for path in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                found[int(path.parent.name)] = int(path.read_text(encoding="utf-8").split()[0]) / 1e9
    return found


def resident_mb(pid: int) -> float:
    """Of this one process."""
    fields = _fields(pid)
    if fields is None:
        raise ProcessLookupError(f"process {pid} has ended; its memory cannot be read any more")
    return int(fields[_RESIDENT]) * _PAGE / 1e6


@dataclass(frozen=True, slots=True)
class MachineTime:
    """Ticks of all cores: altogether, stolen by the host for other machines, and not idle; ``own``: those that this
    process and everything it started and waited for has had."""

    everything: float
    stolen: float
    busy: float
    own: float

    def since(self, before: MachineTime) -> tuple[float, float]:
        """Percent of the machine's time that its host took, and that other processes on it took."""
        everything = max(1.0, self.everything - before.everything)
        others = (self.busy - before.busy) - (self.own - before.own)
        return 100 * (self.stolen - before.stolen) / everything, 100 * max(0.0, others) / everything


def machine_time() -> MachineTime:
    ticks = [int(field) for field in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:9]]
    _, _, _, idle, waiting, _, _, stolen = ticks
    own = sum(os.times()[:4]) * _TICKS
    return MachineTime(sum(ticks), stolen, sum(ticks) - idle - waiting - stolen, own)


def _ticks(fields: list[str]) -> int:
    return sum(int(field) for field in fields[_FIRST_TIME:_LAST_TIME])


def _fields(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(")")[2].split()
