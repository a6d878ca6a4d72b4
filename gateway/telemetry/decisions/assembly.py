"""Builds the decision log's part of the recorder from plain options (``configured.decision_options``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.checkpoints import DECISIONS, SigningKey
from gateway.clock import Clock
from gateway.telemetry.decisions.awaited import AwaitedPart
from gateway.telemetry.decisions.log import DecisionLog, LogOptions
from gateway.telemetry.decisions.part import DecisionPart
from gateway.telemetry.decisions.scribe import Scribe
from gateway.telemetry.decisions.secret import KeyedHash
from gateway.telemetry.decisions.segments import Segment
from gateway.telemetry.decisions.sinks.following import Sinks
from gateway.telemetry.decisions.upkeep import LogUpkeep, UpkeepOptions
from runtimes.pressure import processors_are_short

__all__ = ["decision_part"]


def decision_part(options: Mapping[str, Any], clock: Clock) -> AwaitedPart:
    """Begun as soon as it can be."""
    return AwaitedPart(lambda: _begun(options, clock), clock=clock)


def _begun(options: Mapping[str, Any], clock: Clock) -> DecisionPart:
    """Raises SettingsError."""
    home = Path(options["home"])
    keyed = KeyedHash.of(home)
    labels = {**options["labels"], "hash_key": keyed.name}
    folder = Path(options["folder"])
    log = DecisionLog(
        folder,
        SigningKey.of(home, DECISIONS),
        clock=clock,
        options=LogOptions(
            segment_bytes=options["segment_bytes"],
            segment_s=options["segment_s"],
            sync_s=options["sync_s"],
            checkpoint_s=options["checkpoint_s"],
            checkpoint_records=options["checkpoint_records"],
            copy=None if options["copy"] is None else Path(options["copy"]),
            labels=tuple(sorted(labels.items())),
            stands_s=options["stands_s"],
        ),
    )
    sinks = None
    if wanted := options.get("sinks"):
        sinks = Sinks(wanted, folder=folder, durable=lambda: log.statistics().durable, clock=clock, labels=labels)
    upkeep = LogUpkeep(
        log,
        UpkeepOptions(options["keep_s"], options["keep_bytes"], compact=options["compact"]),
        clock=clock,
        needed=_nobody if sinks is None else sinks.first_needed,
        short=processors_are_short,
    )
    return DecisionPart(log, Scribe(keyed), upkeep=upkeep, sinks=sinks)


def _nobody(segments: Sequence[Segment]) -> int | None:  # noqa: ARG001 (a question's shape)
    return None
