"""Settings of the decision log: whether there is one, how it is cut and synced, and how long it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from gateway.settings_groups import Group, Positive, Seconds
from gateway.settings_sinks import MAX_SINKS, SinkSettings, told_apart

__all__ = ["DecisionSettings"]


class DecisionSettings(Group):
    """One record an answer, in ``HOME/decisions``. A segment ends at ``segment_bytes`` or ``segment_s`` and is then
    compacted to Parquet, where pyarrow is installed. What was written is made durable every ``sync_s``, and signed
    every ``checkpoint_s`` or ``checkpoint_records``; ``checkpoint_copy`` is a file elsewhere that gets each checkpoint,
    too. Segments that ended more than ``keep_days`` ago go, and the oldest while all hold more than ``keep_bytes``.
    ``sinks``: where else records go."""

    enabled: bool = True
    segment_bytes: Annotated[int, Field(ge=64 * 1024, le=1024**3)] = 32 * 1024 * 1024
    segment_s: Seconds = 86_400.0
    sync_s: Seconds = 1.0
    checkpoint_s: Seconds = 60.0
    checkpoint_records: Positive = 100_000
    checkpoint_copy: Path | None = None
    compact: bool = True
    keep_days: Seconds | None = 190.0
    keep_bytes: Positive | None = 20 * 1024**3
    sinks: Annotated[tuple[SinkSettings, ...], Field(max_length=MAX_SINKS)] = ()

    @field_validator("sinks")
    @classmethod
    def _told_apart(cls, sinks: tuple[SinkSettings, ...]) -> tuple[SinkSettings, ...]:
        told_apart(sinks)
        return sinks
