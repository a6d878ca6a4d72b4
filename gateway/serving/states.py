"""The states of a version's life, and the record of what is here of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.messages import VersionRef
from gateway.serving.tally import BatcherStatistics

__all__ = ["HandleStatistics", "VersionState"]


class VersionState(StrEnum):
    REGISTERED = "registered"
    GATED = "gated"
    LOADING = "loading"
    WARMING = "warming"
    ACTIVE = "active"
    DRAINING = "draining"
    RETIRED = "retired"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class HandleStatistics:
    """What is here of a version. ``loaded`` maps file name to the SHA-256 of the bytes read; ``costs_s``
    rows to warm seconds; ``batcher`` is None before the version was warm."""

    ref: VersionRef
    digest: str
    state: VersionState
    reason: str
    ready: bool
    pid: int | None
    device: str | None
    loaded: Mapping[str, str]
    leases: int
    deaths: int
    restarts: int
    max_rows: int
    costs_s: Mapping[int, float]
    batcher: BatcherStatistics | None
