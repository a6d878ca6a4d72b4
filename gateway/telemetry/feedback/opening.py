"""The truth's part for a file that cannot be opened yet: it tries again, and the other parts never notice."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.clock import Clock, SystemClock
from gateway.errors import NotFound, RecorderUnavailable
from gateway.events.records import RequestRecord
from gateway.telemetry.feedback.asks import ASKS
from gateway.telemetry.feedback.nouns import Bounds
from gateway.telemetry.feedback.part import TruthPart

__all__ = ["TruthAtPath", "truth_at", "truth_part"]

log = logging.getLogger("turnout.truth")

TRY_EVERY_S = 5.0


class TruthAtPath:
    """See ``gateway.recording.parts.Part``. Until the file opens (the disk is full, or read-only, or it is a newer
    program's), labels are refused with the reason, and answers that come cannot be joined."""

    def __init__(self, path: Path, clock: Clock, bounds: Bounds) -> None:
        self._path, self._clock, self._bounds = path, clock, bounds
        self._part: TruthPart | None = None
        self._table: Mapping[str, Any] | None = None
        self._why = ""
        self._due = 0.0
        self._open()

    def __repr__(self) -> str:
        return f"<TruthAtPath {self._path} [{self._part or self._why}]>"

    def _open(self) -> None:
        try:
            self._part = TruthPart(self._path, self._clock, self._bounds)
        except (RecorderUnavailable, OSError) as error:
            if not self._why:
                log.error("labels cannot be kept; tried again: %s", error)
            self._why, self._due = str(error), self._clock.monotonic() + TRY_EVERY_S
            return
        if self._table is not None:
            self._part.told("table", self._table)

    @property
    def full(self) -> bool:
        return False

    def take(self, records: Sequence[RequestRecord]) -> None:
        if self._part is not None:
            self._part.take(records)

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        if event == "table":
            self._table = body
        if self._part is not None:
            self._part.told(event, body)

    def tick(self) -> None:
        if self._part is not None:
            self._part.tick()
        elif self._clock.monotonic() >= self._due:
            self._open()

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._part is not None:
            return self._part.ask(kind, body)
        if kind not in ASKS:
            raise KeyError(kind)
        raise RecorderUnavailable(f"labels cannot be kept: {self._why}")

    def close(self) -> None:
        if self._part is not None:
            self._part.close()


def truth_part(options: Mapping[str, Any], clock: Clock) -> TruthAtPath:
    """``path`` of the file; ``answers``, ``held``, ``days`` and ``stands_s`` as in ``Bounds``."""
    bounds = Bounds(
        answers=options["answers"], held=options["held"], days=options["days"], stands_s=options["stands_s"]
    )
    return TruthAtPath(Path(options["path"]), clock, bounds)


def truth_at(path: Path, route: str, days: int) -> Mapping[str, Any]:
    """The report out of a home's file, also beside a gateway at work on it. Raises NotFound, RecorderUnavailable."""
    if not path.exists():
        raise NotFound(f"no label has come here yet: there is no {path}")
    part = TruthPart(path, SystemClock())
    try:
        return part.report(route, days)
    finally:
        part.close()
