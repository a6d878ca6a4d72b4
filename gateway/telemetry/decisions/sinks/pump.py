"""One sink at work: a thread that reads the log's files, sends what it finds, and keeps how far it has come.

Nothing is held in memory but one page, however long the receiver is away. A record is sent at least once: one that was
taken just before the process died is sent again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.clock import Clock
from gateway.telemetry.decisions.sinks.cursor import CursorFile
from gateway.telemetry.decisions.sinks.delivery import Delivery, Refused, Unavailable
from gateway.telemetry.decisions.sinks.trail import Entry, Trail

__all__ = ["Pump", "PumpOptions", "PumpStatistics"]

log = logging.getLogger("turnout.telemetry.decisions")

KEEP_S = 1.0
LOOK_S = 1.0
END_S = 2.0


@dataclass(frozen=True, slots=True)
class PumpOptions:
    """``from_start``: a sink without a cursor begins with the oldest record, not with the next."""

    name: str
    batch_records: int = 512
    batch_bytes: int = 1024 * 1024
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    from_start: bool = False


@dataclass(frozen=True, slots=True)
class PumpStatistics:
    """``lag_lines`` of the log that were not looked at yet; ``lag_s`` is the age of the first record not sent.
    ``skipped`` lines were gone before they could be sent, ``refused`` records were not wanted."""

    name: str
    sent: int
    failed_attempts: int
    refused: int
    skipped: int
    lag_lines: int
    lag_s: float
    trouble: str


class Pump:
    """``start`` begins the thread, ``wake`` tells it that there may be more."""

    def __init__(
        self, options: PumpOptions, delivery: Delivery, trail: Trail, cursor: CursorFile, *, clock: Clock
    ) -> None:
        self.options = options
        self._delivery = delivery
        self._trail = trail
        self._cursor = cursor
        self._clock = clock
        self._ending = threading.Event()
        self._woken = threading.Event()
        # Written by the thread alone, whole values at once.
        self._sequence = self._kept = 0
        self._kept_at = 0.0
        self._sent = self._failed = self._refused = self._skipped = 0
        self._waiting_ms: int | None = None
        self._trouble = ""
        self._thread = threading.Thread(target=self._work, name=f"turnout-sink-{options.name}", daemon=True)

    def __repr__(self) -> str:
        return f"<Pump {self.options.name} [{self._sent} sent | at {self._sequence} of {self._trail.durable}]>"

    @property
    def segment(self) -> int:
        """The log's segment that is still needed; 0: not known yet, so all of them."""
        return self._trail.segment

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._woken.set()

    def renew(self, secrets: Mapping[str, Any]) -> None:
        self._delivery.renew(secrets)

    def end(self) -> None:
        """Returns at once; what was not sent yet is sent by the next process."""
        self._ending.set()
        self._woken.set()
        self._delivery.abort()

    def close(self) -> None:
        """Waits for what is under way to break off, within bounds."""
        self.end()
        self._thread.join(END_S)

    def statistics(self) -> PumpStatistics:
        waiting = self._waiting_ms
        return PumpStatistics(
            name=self.options.name,
            sent=self._sent,
            failed_attempts=self._failed,
            refused=self._refused,
            skipped=self._skipped,
            lag_lines=max(0, self._trail.durable - self._sequence),
            lag_s=0.0 if waiting is None else max(0.0, self._clock.wall() - waiting / 1000),
            trouble=self._trouble,
        )

    # The thread's

    def _work(self) -> None:
        try:
            self._begin()
            while not self._ending.is_set():
                self._round()
            self._keep(now=True)
        except Exception:  # a sink that ends by a fault of its own must say so; the recorder goes on
            self._trouble = "it has ended by a fault of its own; see the log"
            log.exception("sink %s of the decision log has ended", self.options.name)
        finally:
            self._delivery.close()
            self._trail.close()

    def _begin(self) -> None:
        """Where the last process was. A cursor beyond the log is of a log that is gone."""
        found, newest = self._cursor.read(), self._trail.durable
        if found is not None and found > newest:
            log.warning("sink %s: the decision log is another than was followed; all of it is sent", self.options.name)
            found = 0
        self._sequence = found if found is not None else 0 if self.options.from_start else newest
        self._keep(now=True)

    def _round(self) -> None:
        options = self.options
        try:
            page = self._trail.page(self._sequence, records=options.batch_records, size=options.batch_bytes)
        except OSError as fault:
            self._trouble = f"the decision log cannot be read: {fault.strerror}"
            self._ending.wait(LOOK_S)
            return
        if page.skipped:
            self._skipped += page.skipped
            log.error("sink %s: %d lines of the decision log were gone before", options.name, page.skipped)
        if page.entries:
            self._send(page.entries)
        if not self._ending.is_set() or not page.entries:
            self._sequence = max(self._sequence, page.end)
        self._keep(now=not page.entries)
        if not page.entries:
            self._waiting_ms = None
            self._woken.wait(LOOK_S)
            self._woken.clear()

    def _send(self, entries: Sequence[Entry]) -> None:
        """Until all are sent, or not wanted; halved while they are refused together. Returns early when it ends."""
        left = [entries]
        while left and not self._ending.is_set():
            batch = left.pop()
            self._waiting_ms = batch[0].written_ms
            try:
                unwanted = self._sent_at_last(batch)
            except Refused as refusal:
                if len(batch) > 1:
                    middle = len(batch) // 2
                    left += [batch[middle:], batch[:middle]]
                    continue
                unwanted, self._trouble = 1, f"record {batch[0].sequence} was refused: {refusal}"
                log.error("sink %s: record %d is given up: %s", self.options.name, batch[0].sequence, refusal)
            if unwanted is None:
                return
            self._refused += unwanted
            self._sent += len(batch) - unwanted
            self._sequence = batch[-1].sequence
            self._keep()

    def _sent_at_last(self, batch: Sequence[Entry]) -> int | None:
        """How many were not wanted; None: it ends before they were taken. Raises Refused."""
        pause = self.options.first_pause_s
        while not self._ending.is_set():
            try:
                unwanted = self._delivery.send(batch)
            except Unavailable as fault:
                self._failed += 1
                if not self._trouble:
                    log.warning("sink %s takes nothing: %s", self.options.name, fault)
                self._trouble = str(fault)
                self._keep(now=True)
                self._ending.wait(max(pause, fault.after_s))
                pause = min(self.options.longest_pause_s, pause * 2)
            else:
                self._trouble = ""
                return unwanted
        return None

    def _keep(self, *, now: bool = False) -> None:
        """At most once a second: at worst a second's records are sent again."""
        at = self._clock.monotonic()
        if (self._kept == self._sequence and self._kept_at) or (not now and at - self._kept_at < KEEP_S):
            return
        try:
            self._cursor.write(self._sequence)
        except OSError as fault:
            self._trouble = f"how far it has come cannot be kept: {fault.strerror}"
        self._kept, self._kept_at = self._sequence, at
