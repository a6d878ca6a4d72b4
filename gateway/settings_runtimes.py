"""The settings of versions at work: on which devices, in how many processes, within what bounds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway.settings_groups import Group, Positive, Seconds
from runtimes.devices import check_device

__all__ = ["ModelPlacement", "RuntimeSettings"]

Device = Annotated[str, AfterValidator(check_device)]


class ModelPlacement(Group):
    """Where the versions of one model run; None: as for all."""

    devices: tuple[Device, ...] | None = None
    instances: Positive | None = None


class RuntimeSettings(Group):
    """How versions run. The packages of the ``preload`` formats are imported once, by the fork server, so that
    versions start in milliseconds; a format whose packages are not installed is left out.

    ``instances`` of a version run on each of its ``devices`` (none named: on its ``device``); ``models`` says it for
    single models. Above ``memory_bytes`` of the machine's memory, or ``device_memory_bytes`` of a CUDA device's,
    versions that no traffic reaches are unloaded until they are asked for; with ``lazy``, also idle ones that it does
    reach.
    """

    preload: tuple[Literal["onnx", "torch", "sklearn", "python", "echo"], ...] = ("onnx", "torch", "sklearn", "python")
    device: Device = "auto"
    devices: tuple[Device, ...] = ()
    instances: Positive = 1
    models: dict[str, ModelPlacement] = Field(default_factory=dict)
    memory_bytes: Positive | None = None
    device_memory_bytes: Positive | None = None
    lazy: bool = False
    threads: Positive = 1
    max_rows: Positive = 32
    queue_rows: Positive = 4096
    hang_floor_ms: Positive = 600
    load_timeout_s: Seconds = 120.0
    parallel_loads: Positive = 1
    readiness_s: Seconds = 5.0
    allow_pickle: tuple[str, ...] = ()
    allow_inline: tuple[str, ...] = ()
