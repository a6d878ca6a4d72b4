"""What a process holds of a GPU's memory, out of what the driver tells: here a script in the driver's place."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from runtimes.device_memory import DeviceMemory

MIB = 1 << 20


class ScriptedNvml:
    """Two devices; ``processes`` of each, and what is ``free``."""

    class NVMLError(Exception):
        """As pynvml's."""

    def __init__(self, *, driver: bool = True) -> None:
        self.driver = driver
        self.free = [80 * MIB, 80 * MIB]
        self.processes: list[list[tuple[int, int | None]]] = [[], []]

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own name
        if not self.driver:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(free=self.free[handle])

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=used) for pid, used in self.processes[handle]]


def test_the_driver_tells_what_each_process_holds() -> None:
    """Whatever neighbours do meanwhile."""
    nvml = ScriptedNvml()
    memory = DeviceMemory(nvml)
    nvml.processes[1] = [(os.getpid(), 30 * MIB), (1, 20 * MIB)]
    nvml.free = [10 * MIB, 10 * MIB]
    assert memory.taken() == 30 * MIB
    assert memory.taken(1) == 20 * MIB


@pytest.mark.parametrize("processes", [[], [(os.getpid(), None)]])
def test_where_processes_have_other_numbers_it_is_what_the_load_took(processes: list[tuple[int, int | None]]) -> None:
    """In a container: the device that lost most of its free memory since."""
    nvml = ScriptedNvml()
    memory = DeviceMemory(nvml)
    nvml.processes[0] = processes
    nvml.free = [90 * MIB, 55 * MIB]
    assert memory.taken() == 25 * MIB


def test_without_a_driver_nothing_is_held() -> None:
    """As on most machines."""
    assert DeviceMemory(ScriptedNvml(driver=False)).taken() == 0


def test_a_machine_is_asked_for_what_it_has() -> None:
    """The real library, whatever is here."""
    assert DeviceMemory().taken() >= 0
