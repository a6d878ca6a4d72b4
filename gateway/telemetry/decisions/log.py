"""The log's writer: records in, frames out, one chain over all of them, through full disks and ends without notice.

What is taken is handed to the system at once, a frame a burst, so the death of this process costs nothing that it had
taken; the death of the machine costs at most what came since the last sync. While nothing can be written, records are
counted and dropped, and the first thing that is written again says how many.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.checkpoints import DECISIONS, Checkpoint, SigningKey
from gateway.clock import Clock
from gateway.errors import SettingsError
from gateway.telemetry.decisions.fields import COLUMNS, SCHEMA
from gateway.telemetry.decisions.frames import CONTROL, MAGIC, RECORDS, pack
from gateway.telemetry.decisions.log_time import LogTime
from gateway.telemetry.decisions.missed import Missed
from gateway.telemetry.decisions.notes import Notes
from gateway.telemetry.decisions.recovery import Recovered, recover
from gateway.telemetry.decisions.segment_file import SegmentFile, room
from gateway.telemetry.decisions.segments import raw_path
from gateway.telemetry.decisions.syncing import Mark, Syncer
from gateway.telemetry.proven_time import STANDS_S

__all__ = ["DecisionLog", "LogOptions", "LogStatistics"]

log = logging.getLogger("turnout.telemetry.decisions")

_MAX_PENDING = 10_000
_RETRY_S = 0.2
_HEADROOM_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogOptions:
    """A segment ends at ``segment_bytes`` or ``segment_s``, whichever is first. ``copy``: a file on another disk or
    machine that gets each checkpoint as well. ``labels`` go into each segment: which instance this is, which build.
    ``stands_s``: so long a step of the clock must stand before ages go by it."""

    segment_bytes: int = 32 * 1024 * 1024
    segment_s: float = 24 * 3600.0
    sync_s: float = 1.0
    checkpoint_s: float = 60.0
    checkpoint_records: int = 100_000
    copy: Path | None = None
    labels: tuple[tuple[str, str], ...] = ()
    stands_s: float = STANDS_S


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """``sequence`` lines so far, ``durable`` of them; ``unsynced_s`` since when some are not. ``dropped`` records
    since this writer began. ``trouble``: what is wrong, in words."""

    sequence: int
    durable: int
    unsynced_s: float
    written: int
    dropped: int
    segment: int
    segment_bytes: int
    full: bool
    signed: int
    trouble: str | None


class DecisionLog:
    """One writer a folder: a lock holds the others off. Single-threaded but for the sync."""

    def __init__(self, folder: Path, key: SigningKey, *, clock: Clock, options: LogOptions | None = None) -> None:
        self._folder = folder
        self._clock = clock
        self._options = options or LogOptions()
        self._lock = _lock(folder)
        try:
            found = recover(folder)
            self.notes = Notes(folder, key, copy=self._options.copy)
            self.time = LogTime(folder, clock, stands_s=self._options.stands_s)
            self._begin(found)
        except OSError as error:
            os.close(self._lock)
            raise SettingsError(
                f"the decision log in {folder} cannot be begun: {error.strerror}; make room there, give this user the "
                "right to write, or turn it off (telemetry.decisions.enabled)"
            ) from error

    def _begin(self, found: Recovered) -> None:
        self.standing = found.standing
        self._number, self._sequence, self._link = found.number, found.sequence, found.link
        self._records, self._begun_ms = found.records, found.begun_ms or self._now_ms()
        self._written = self._dropped = 0
        self._missed: Missed | None = None
        self._pending: list[bytes] = []
        self._changed_at: float | None = None
        self._synced_at = self._signed_at = self._clock.monotonic()
        self._unsigned = 0
        self._tried_at = 0.0
        signed = self.notes.newest
        if not found.resumable and signed is not None:  # the file is gone: go on from what was signed of it
            self._sequence, self._link = signed.size, bytes.fromhex(signed.head)
        if found.resumable:
            self._file = SegmentFile.resume(raw_path(self._folder, found.number))
            self._syncer = Syncer(Mark(self._number, 0, self._link, self._synced_at), self._folder)
        else:
            self._file = self._open_segment()
            self._syncer = Syncer(Mark(self._number - 1, 0, self._link, self._synced_at), self._folder)
        self._told_start(found, 0 if signed is None else signed.size)
        self._flush()

    def __repr__(self) -> str:
        state = "full" if self.full else "open"
        return f"<DecisionLog [{state} | segment {self._number} | {self._sequence} lines | {self._dropped} dropped]>"

    @property
    def full(self) -> bool:
        return self._missed is not None

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def segment(self) -> int:
        """The open one."""
        return self._number

    @property
    def settled(self) -> int:
        """Segments up to this one are closed, and what follows them is durable: they may be compacted."""
        return self._syncer.done.segment - 1

    def statistics(self) -> LogStatistics:
        waited = 0.0 if self._changed_at is None else self._clock.monotonic() - self._changed_at
        reason = None if self._missed is None else self._missed.reason
        return LogStatistics(
            sequence=self._sequence,
            durable=self._syncer.done.sequence,
            unsynced_s=waited,
            written=self._written,
            dropped=self._dropped,
            segment=self._number,
            segment_bytes=self._file.size_bytes,
            full=self.full,
            signed=0 if self.notes.newest is None else self.notes.newest.size,
            trouble=reason or self._syncer.fault or self.notes.fault,
        )

    def append(self, records: Sequence[bytes]) -> None:
        """One burst, each record in its canonical form; control records that came before stand before it."""
        if not records:
            return
        self._flush()
        if self._missed is not None:
            self._missed.records += len(records)
            self._dropped += len(records)
        elif self._frame(RECORDS, records):
            self._records += len(records)
            self._written += len(records)
            self._unsigned += len(records)
            self._rotate_if_due()
        elif (missed := self._missed_now()) is not None:
            missed.records += len(records)
            self._dropped += len(records)

    def control(self, event: str, body: Mapping[str, Any]) -> None:
        """A control record: it goes out before the next records, or with the next ``tick``."""
        told = {"event": event, "at": self._now_ms(), **body}
        self.standing.take(told)
        if len(self._pending) >= _MAX_PENDING:
            self._flush()
        line = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
        if self._missed is not None:
            self._missed.lose([line])
            return
        self._pending.append(line)

    def tick(self) -> None:
        """What time brings: another try while nothing can be written, sync, checkpoint, rotation."""
        now = self._clock.monotonic()
        if self._missed is not None and now - self._tried_at >= _RETRY_S:
            self._retry()
        self._flush()
        self._rotate_if_due()
        if self._changed_at is not None and not self._syncer.busy and now - self._synced_at >= self._options.sync_s:
            self._sync()
        self._sign_if_due()

    def sync(self, timeout_s: float | None = None) -> bool:
        """All that was taken is durable when this returns True."""
        self._flush()
        self._sync()
        return self._syncer.wait(timeout_s) and self._syncer.fault is None and self._missed is None

    def rotate(self) -> None:
        """Ends the open segment and begins the next, if it has records."""
        self._flush()
        if self._records and self._missed is None:
            self._turn()

    def close(self) -> None:
        if self._missed is not None:
            self._retry()
        self.control("close", {})
        self._flush()
        self._sync()
        self._syncer.wait()
        self.sign()
        self.time.keep()
        self._syncer.close()
        self._file.close()
        os.close(self._lock)

    def _told_start(self, found: Recovered, signed: int) -> None:
        labels = dict(self._options.labels)
        if found.number and not found.closed:
            lost: dict[str, Any] = {"cause": "unclean-end", "records": None, "cut_bytes": found.cut_bytes}
            if found.cut_bytes:
                lost["at_least"] = max(1, found.cut_lines + 1)
            if signed > found.sequence:
                lost["signed"] = signed
            if found.damaged:
                lost["damaged"] = list(found.damaged)
            self.control("gap", lost)
        elif found.damaged:
            self.control("gap", {"cause": "damage", "records": None, "damaged": list(found.damaged)})
        self.control("open", {**labels, "schema": SCHEMA, "signed_by": str(self.notes.public)})

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)

    def _flush(self) -> None:
        if self._pending and self._missed is None:
            lines, self._pending = self._pending, []
            if self._frame(CONTROL, lines):
                self._unsigned += 1
            elif (missed := self._missed_now()) is not None:
                missed.lose(lines)

    def _missed_now(self) -> Missed | None:
        """As it stands after a write: whoever has just written must not take the state before for it."""
        return self._missed

    def _frame(self, kind: int, lines: Sequence[bytes]) -> bool:
        frame, link = pack(self._link, kind, self._sequence + 1, self._now_ms(), lines)
        try:
            self._file.append(frame)
        except OSError as error:
            self._fail(error, len(frame))
            return False
        self._sequence += len(lines)
        self._link = link
        if self._changed_at is None:
            self._changed_at = self._clock.monotonic()
        return True

    def _fail(self, error: OSError, size: int = 0) -> None:
        self._tried_at = self._clock.monotonic()
        if self._missed is None:
            reason = f"the decision log cannot be written: {error.strerror}"
            self._missed = Missed(self._now_ms(), reason, max(_HEADROOM_BYTES, 4 * size))
            self._missed.lose(self._pending)
            self._pending = []
            log.error("%s; make room in %s", reason, self._folder)

    def _retry(self) -> None:
        """The gap is written first; what was in force is written with it, since changes may have been lost."""
        missed = self._missed
        self._tried_at = self._clock.monotonic()
        if missed is None or room(self._folder) < missed.headroom_bytes:
            return
        now = self._now_ms()
        standing = {"event": "standing", "at": now, "standing": self.standing.to_json()}
        lines = [*missed.gaps_told(now), orjson.dumps(standing, option=orjson.OPT_SORT_KEYS)]
        self._missed = None
        if not self._frame(CONTROL, lines):
            self._missed = missed
            return
        self._unsigned += 1
        log.warning("the decision log is written again; %d records were dropped meanwhile", missed.records)

    def _rotate_if_due(self) -> None:
        if self._missed is not None or not self._records:
            return
        old = self._now_ms() - self._begun_ms >= self._options.segment_s * 1000
        if old or self._file.size_bytes >= self._options.segment_bytes:
            self._turn()

    def _turn(self) -> None:
        before, ended = self._file, Mark(self._number, self._sequence, self._link, self._clock.monotonic())
        try:
            self._file = self._open_segment()
        except OSError as error:
            self._fail(error)
            return
        with suppress(OSError):  # its time says when it ended: retention goes by it
            os.utime(raw_path(self._folder, ended.segment), (self.time.stamp, self.time.stamp))
        self._ask_sync(before.descriptor, ended)
        before.close()
        self._sync()

    def _open_segment(self) -> SegmentFile:
        """A new file with its first frame in it. Raises OSError, and leaves nothing behind."""
        number = self._number + 1
        now = self._now_ms()
        heading = {
            "event": "segment",
            "at": now,
            "schema": SCHEMA,
            "number": number,
            "previous": self._link.hex(),
            "first": self._sequence + 1,
            "columns": COLUMNS,
            "labels": dict(self._options.labels),
            "standing": self.standing.to_json(),
            "checkpoint": self.notes.text,
        }
        line = orjson.dumps(heading, option=orjson.OPT_SORT_KEYS)
        frame, link = pack(self._link, CONTROL, self._sequence + 1, now, [line])
        file = SegmentFile.create(raw_path(self._folder, number), MAGIC + frame)
        self._number, self._sequence, self._link = number, self._sequence + 1, link
        self._records, self._begun_ms = 0, now
        self._changed_at = self._changed_at or self._clock.monotonic()
        return file

    def _sync(self) -> None:
        now = self._clock.monotonic()
        if self._ask_sync(self._file.descriptor, Mark(self._number, self._sequence, self._link, now)):
            self._changed_at, self._synced_at = None, now

    def _ask_sync(self, descriptor: int, mark: Mark) -> bool:
        try:
            self._syncer.ask(descriptor, mark)
        except OSError as error:  # no descriptor left: with the next tick
            self._syncer.fault = f"what was recorded cannot be made durable: {error.strerror}"
            return False
        return True

    def _sign_if_due(self) -> None:
        waited = self._clock.monotonic() - self._signed_at >= self._options.checkpoint_s
        if self._unsigned and (waited or self._unsigned >= self._options.checkpoint_records):
            self.sign()

    def sign(self) -> None:
        """What is signed is durable: a checkpoint never says more than the disk can show."""
        done = self._syncer.done
        newest = self.notes.newest
        if done.sequence == 0 or (newest is not None and done.sequence <= newest.size):
            return
        self._signed_at, self._unsigned = self._clock.monotonic(), 0
        self.notes.sign(Checkpoint(done.sequence, done.link.hex(), int(self._clock.wall()), DECISIONS))


def _lock(folder: Path) -> int:
    """Held until the descriptor is closed, or the process ends. Raises SettingsError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"the decision log's folder {folder} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise SettingsError(
            f"another process writes the decision log in {folder}; end it, or give this one a home of its own"
        ) from None
    return descriptor
