"""The truth's part over a file that cannot be opened yet, or turns out to be damaged: the other parts never notice."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import orjson

from gateway.clock import Clock, SystemClock
from gateway.errors import NotFound, RecorderUnavailable
from gateway.events.records import RequestRecord
from gateway.telemetry.feedback.asks import ASK_CLOCK, ASKS
from gateway.telemetry.feedback.nouns import Answered, Bounds
from gateway.telemetry.feedback.part import TruthPart
from gateway.telemetry.feedback.tables import is_damaged, put_aside

__all__ = ["TruthAtPath", "truth_at", "truth_part"]

log = logging.getLogger("turnout.truth")

T = TypeVar("T")

TRY_EVERY_S = 5.0

_BY_THE_FILE = (sqlite3.Error, orjson.JSONDecodeError)
"""What reading it raises."""


class TruthAtPath:
    """See ``gateway.recording.parts.Part``. Until the file opens (the disk is full, or read-only, or it is a newer
    program's), labels are refused with the reason, and answers that come cannot be joined. One that is found to be
    damaged, whenever that is, is put aside, and another begun: it would never take a label again."""

    def __init__(self, path: Path, clock: Clock, bounds: Bounds) -> None:
        self._path, self._clock, self._bounds = path, clock, bounds
        self._part: TruthPart | None = None
        self._table: Mapping[str, Any] | None = None
        self._waiting: Sequence[Answered] = ()
        self._why = ""
        self._due = 0.0
        self._open()

    def __repr__(self) -> str:
        return f"<TruthAtPath {self._path} [{self._part or self._why}]>"

    def _open(self) -> None:
        try:
            self._part = self._opened()
        except (RecorderUnavailable, OSError, *_BY_THE_FILE) as error:
            if not self._why:
                log.error("labels cannot be kept; tried again: %s", error)
            self._why, self._due = str(error), self._clock.monotonic() + TRY_EVERY_S
            return
        self._why, self._waiting = "", ()
        if self._table is not None:
            self._part.told("table", self._table)

    def _opened(self) -> TruthPart:
        try:
            return TruthPart(self._path, self._clock, self._bounds, self._waiting)
        except _BY_THE_FILE as error:
            if not is_damaged(error):
                raise
            put_aside(self._path, error)
            return TruthPart(self._path, self._clock, self._bounds, self._waiting)

    @property
    def full(self) -> bool:
        return False

    def take(self, records: Sequence[RequestRecord]) -> None:
        if self._part is not None:
            self._of(self._part, lambda part: part.take(records))

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        if event == "table":
            self._table = body
        if self._part is not None:
            self._part.told(event, body)

    def tick(self) -> None:
        if self._part is not None:
            self._of(self._part, TruthPart.tick)
        elif self._clock.monotonic() >= self._due:
            self._open()

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._part is not None:
            answer = self._of(self._part, lambda part: part.ask(kind, body))
            if answer is None:
                raise RecorderUnavailable(f"{self._path} was damaged, and another is begun; send the labels again")
            return answer
        if kind not in ASKS:
            raise KeyError(kind)
        if kind == ASK_CLOCK:
            return {"trouble": "", "unkept": f"labels cannot be kept: {self._why}"}
        raise RecorderUnavailable(f"labels cannot be kept: {self._why}")

    def close(self) -> None:
        if self._part is not None:
            self._of(self._part, TruthPart.close)

    def _of(self, part: TruthPart, work: Callable[[TruthPart], T]) -> T | None:
        """None where its file turned out to be damaged. Raises what the part does."""
        try:
            return work(part)
        except (RecorderUnavailable, *_BY_THE_FILE) as error:
            if not is_damaged(error):
                raise
            self._part, self._waiting = None, part.abandon()
            self._begin_another(error)
            return None

    def _begin_another(self, why: Exception) -> None:
        try:
            put_aside(self._path, why)
        except OSError as error:
            log.error("%s is damaged and cannot be put aside: %s", self._path, error)
            self._why, self._due = str(why), self._clock.monotonic() + TRY_EVERY_S
            return
        self._open()


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
    try:
        part = TruthPart(path, SystemClock())
        try:
            return part.report(route, days)
        finally:
            part.close()
    except _BY_THE_FILE as error:
        raise RecorderUnavailable(f"{path} cannot be read: {error}; a gateway puts a damaged one aside") from error
