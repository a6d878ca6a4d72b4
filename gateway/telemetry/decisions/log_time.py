"""How old segments are, by a time that a wrong clock does not move; kept in a file beside them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from gateway.clock import Clock
from gateway.telemetry.decisions.segments import Segment, listed
from gateway.telemetry.proven_time import STANDS_S, STEP_MS, KeptTime, ProvenTime

__all__ = ["TIME_FILE", "LogTime"]

log = logging.getLogger("turnout.telemetry.decisions")

TIME_FILE = "time"
_KEEP_S = 60.0


class LogTime:
    """The writer's. Where there is no file yet, it begins where the newest segment was written; where one is torn, at
    the oldest: a clock that was ahead may have stamped those after it."""

    def __init__(self, folder: Path, clock: Clock, *, stands_s: float = STANDS_S) -> None:
        self._path = folder / TIME_FILE
        self._clock = clock
        self._proven = ProvenTime(
            clock, _left(self._path, clock.wall()), stands_s=stands_s, what=f"the decision log in {folder}"
        )
        self._kept_at: float | None = None
        self._fault = ""

    def __repr__(self) -> str:
        return f"<LogTime {self._proven!r}>"

    @property
    def trouble(self) -> str:
        return self._proven.trouble

    @property
    def stamp(self) -> float:
        """For what ends now, in seconds since the epoch."""
        return self._proven.latest_ms() / 1000

    def look(self) -> None:
        """Every few seconds."""
        self._proven.look()
        now = self._clock.monotonic()
        if self._kept_at is None or now - self._kept_at >= _KEEP_S:
            self._kept_at = now
            self.keep()

    def keep(self) -> None:
        """For the next writer. Where it cannot be written, the one before stands, and what is old stays longer."""
        partial = self._path.with_name(f".{self._path.name}.partial")
        fault = ""
        try:
            partial.write_bytes(orjson.dumps(self._proven.kept.to_json()))
            partial.replace(self._path)
        except OSError as error:
            fault = f"{self._path} cannot be written: {error.strerror}"
            if fault != self._fault:
                log.warning("%s; segments go by their age later than they should after the next start", fault)
        self._fault = fault

    def ages_s(self, segments: Sequence[Segment]) -> Sequence[float]:
        """Since the end of each. One that seems to end after now was stamped by a clock that was ahead: it ended no
        later than the next one."""
        proven, latest = self._proven.now_ms() / 1000, self.stamp
        found, later = list[float](), latest
        for segment in reversed(segments):
            stamped = _stamp_of(segment)
            if stamped is not None and stamped <= latest + STEP_MS / 1000:
                later = stamped
            found.append(max(0.0, proven - later))
        return found[::-1]


def _left(path: Path, wall: float) -> KeptTime | None:
    stamps = [stamp for one in listed(path.parent) if (stamp := _stamp_of(one)) is not None]
    try:
        return KeptTime.from_json(orjson.loads(path.read_bytes()))
    except FileNotFoundError:
        begun = max(stamps, default=wall)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        log.warning("%s cannot be read (%s); the time goes on from the oldest segment", path, fault)
        begun = min(stamps, default=wall)
    return KeptTime(int(min(wall, begun) * 1000)) if stamps else None


def _stamp_of(segment: Segment) -> float | None:
    for path in (segment.parquet, segment.log):
        with suppress(OSError):
            return path.stat().st_mtime
    return None
