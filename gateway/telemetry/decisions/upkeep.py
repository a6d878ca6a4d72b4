"""What is done with closed segments: one after the other is compacted by a child process, and the oldest are retired.

While processors are short, segments wait, up to four of them: a compaction takes as much of a processor as the
recording did, and answers would pay for it. Look-ups search what waits, some 25 ms a segment for a request's id.

A segment is retired whole, by age or because the log holds more bytes than it may; a control record says so before its
files go, so that the verifier knows a retired segment from a missing one.
"""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.telemetry.decisions.log import DecisionLog
from gateway.telemetry.decisions.segments import Segment, listed, remove, unfinished

__all__ = ["LogUpkeep", "UpkeepOptions"]

log = logging.getLogger("turnout.telemetry.decisions")

_COMPACTION = "gateway.telemetry.decisions.compaction"
_DAMAGED = 3
_LOOK_S = 5.0
_CLOCKS_DIFFER_S = 3600.0
"""Checkpoints signed so long before the last retired record was written, and earlier, are of no more use."""
_AGAIN_S = 60.0
_MOST_WAITING = 4


@dataclass(frozen=True, slots=True)
class UpkeepOptions:
    """``keep_s`` from a segment's end; ``keep_bytes`` of closed segments; None: without bound."""

    keep_s: float | None = None
    keep_bytes: int | None = None
    compact: bool = True


class LogUpkeep:
    """Ticks with the log's part. ``held_bytes`` and segments are as of the last look. ``needed``: the first segment
    whose frames somebody still reads; it is not compacted, nor are those after it. ``short``: are processors short."""

    def __init__(
        self,
        decisions: DecisionLog,
        options: UpkeepOptions,
        *,
        clock: Clock,
        needed: Callable[[Sequence[Segment]], int | None] = lambda _: None,
        short: Callable[[], bool] = lambda: False,
    ) -> None:
        self._log = decisions
        self._options = options
        self._needed = needed
        self._short = short
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._working_on = 0
        self._compacts = options.compact and importlib.util.find_spec("pyarrow") is not None
        self._left_alone: set[int] = set()
        # How often each could not be compacted: one that never can be holds up none of the others.
        self._fails: Counter[int] = Counter()
        self._look_at = self._try_at = clock.monotonic()
        self._segments: Sequence[Segment] = ()
        self._held_bytes = self._compacted = self._retired = self._failed = 0
        for path in unfinished(decisions.folder):
            with suppress(OSError):
                path.unlink()

    def __repr__(self) -> str:
        state = f"compacting {self._working_on}" if self._child is not None else "idle"
        return f"<LogUpkeep [{state} | {self._compacted} compacted | {self._retired} retired]>"

    def statistics(self) -> Mapping[str, Any]:
        return {
            "segments": len(self._segments),
            "held_bytes": self._held_bytes,
            "compacted": self._compacted,
            "retired": self._retired,
            "compactions_failed": self._failed,
            "damaged_segments": len(self._left_alone),
            "clock_trouble": self._log.time.trouble,
        }

    def tick(self) -> None:
        now = self._clock.monotonic()
        if self._child is not None:
            self._reap(self._child)
        elif now >= self._look_at:
            self._look_at = now + _LOOK_S
            self.look()

    def look(self) -> None:
        """Reads the folder; retires what must go, and starts the compaction of a segment that waits for it: the oldest
        of those that failed least often."""
        self._log.time.look()
        self._segments = listed(self._log.folder)
        self._held_bytes = sum(segment.bytes for segment in self._segments)
        self._retire([one for one in self._segments if one.number <= self._log.settled])
        if self._compacts and self._child is None and self._clock.monotonic() >= self._try_at:
            needed = self._needed(self._segments)
            last = self._log.settled if needed is None else min(self._log.settled, needed - 1)
            waiting = [one for one in self._segments if one.raw and one.number <= last]
            waiting = [one for one in waiting if one.number not in self._left_alone and one.log.exists()]
            if waiting and (len(waiting) > _MOST_WAITING or not self._short()):
                self._start(min(waiting, key=lambda one: (self._fails[one.number], one.number)))

    def wait(self, timeout_s: float) -> None:
        """For the compaction under way, if there is one. Raises subprocess.TimeoutExpired."""
        if self._child is not None:
            self._child.wait(timeout_s)
            self._reap(self._child)

    def close(self) -> None:
        """A compaction under way is ended: what it has written is unfinished, and nothing is lost."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def _start(self, segment: Segment) -> None:
        command = [sys.executable, "-m", _COMPACTION, str(segment.folder), str(segment.number)]
        try:
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        except OSError as error:
            log.warning("no process to compact segment %d of the decision log: %s", segment.number, error)
            self._try_at = self._clock.monotonic() + _AGAIN_S
            return
        self._working_on = segment.number

    def _reap(self, child: subprocess.Popen[bytes]) -> None:
        status = child.poll()
        if status is None:
            return
        self._child = None
        if status == 0:
            self._compacted += 1
            self._look_at = self._clock.monotonic()
        elif status == _DAMAGED:
            self._left_alone.add(self._working_on)
            log.error("segment %d of the decision log is damaged and stays as it is", self._working_on)
        else:
            self._failed += 1
            self._fails[self._working_on] += 1
            self._try_at = self._clock.monotonic() + _AGAIN_S
            log.warning("segment %d of the decision log could not be compacted (exit %d)", self._working_on, status)

    def _retire(self, closed: Sequence[Segment]) -> None:
        """All are told of, and what says so is durable, before one goes: not while nothing can be written, or the
        verifier would take them for removed. One sync for all, so that a bound that was lowered holds up nobody."""
        if self._log.full:
            return
        going = list(self._due(closed))
        for segment, size, reason, _ in going:
            self._log.control("retired", {"segment": segment.number, "bytes": size, "reason": reason})
        if not going or not self._log.sync(timeout_s=5.0):
            return
        ended_at = self._clock.wall() - min(age_s for *_, age_s in going)
        for segment, size, *_ in going:
            with suppress(OSError):
                remove(segment)
                self._retired += 1
                self._held_bytes -= size
        self._log.notes.prune(ended_at - _CLOCKS_DIFFER_S)

    def _due(self, closed: Sequence[Segment]) -> Iterator[tuple[Segment, int, str, float]]:
        """The oldest first, and none in the middle: what is left is one chain."""
        options, held = self._options, self._held_bytes
        for segment, age_s in zip(closed, self._log.time.ages_s(closed), strict=True):
            if segment.number == self._working_on and self._child is not None:
                return
            if options.keep_s is not None and age_s > options.keep_s:
                reason = "age"
            elif options.keep_bytes is not None and held > options.keep_bytes:
                reason = "size"
            else:
                return
            size = segment.bytes
            held -= size
            yield segment, size, reason, age_s
