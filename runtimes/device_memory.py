"""How much memory of GPUs a process holds, its CUDA context included.

NVML tells it by process, but not in every container, where process numbers may be others than the driver's. Then it is
by how much the free memory had shrunk after the load, which neighbours that load or end meanwhile make wrong.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DeviceMemory"]

_DRIVER = Path("/dev/nvidiactl")


class DeviceMemory:
    """Made before a load, asked after it. Without a driver, or without nvidia-ml-py, everything is 0.

    ``nvml`` is the module pynvml, found by itself unless given.
    """

    def __init__(self, nvml: Any = None) -> None:
        self._nvml = _started(nvml)
        self._free_before = self._free()

    def __repr__(self) -> str:
        return f"<DeviceMemory [{len(self._free_before)} devices]>"

    def taken(self, pid: int | None = None) -> int:
        """Bytes that the process (this one, unless named) holds on all devices: a version is on one."""
        held = self.held_by(os.getpid() if pid is None else pid)
        if held is not None:
            return held
        pairs = zip(self._free_before, self._free(), strict=False)
        return max((before - after for before, after in pairs if before > after), default=0)

    def held_by(self, pid: int) -> int | None:
        """None when the driver does not know the process."""
        found = [process.usedGpuMemory for process in self._processes() if process.pid == pid]
        known = [count for count in found if count is not None]
        return sum(known) if known else None

    def _processes(self) -> Iterator[Any]:
        for handle in self._handles():
            yield from self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)

    def _free(self) -> Sequence[int]:
        return [int(self._nvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in self._handles()]

    def _handles(self) -> list[Any]:
        if self._nvml is None:
            return []
        return [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in range(self._nvml.nvmlDeviceGetCount())]


def _started(nvml: Any) -> Any:
    if nvml is None and not _DRIVER.exists():
        return None
    try:
        nvml = importlib.import_module("pynvml") if nvml is None else nvml
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver here
        return None
    return nvml
