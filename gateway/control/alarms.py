"""Alarms of those who watch what is served, made part of the record: each is raised once and cleared once, whoever saw
it first, and so many replicas told of it as there are.

An alarm that stands is a document (``alarm/<name>``), changed by compare-and-set with its audit record; notifications
follow the audit log. Who watches may tell the same thing again and again: only changes are written.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.clock import Clock
from gateway.control.ending import ended
from gateway.control.store import AuditEntry, Change, Document, DocumentKey, Store
from gateway.errors import StaleRevision, StoreUnavailable

__all__ = ["ALARM", "CLEARED", "RAISED", "Alarm", "Alarms", "step"]

log = logging.getLogger("turnout.control")

ALARM = "alarm"
RAISED, CLEARED = "alarm-raised", "alarm-cleared"
"""Actions of the audit log."""

SCHEMA = 1
RETRY_S = 1.0
MAX_RACES = 20
MAX_UNWRITTEN = 1000
MAX_NAME = 300


@dataclass(frozen=True, slots=True)
class Alarm:
    """``name`` is the same from the raising to the clearing: ``drift/digits/3/inputs``. ``kind`` is ``drift``,
    ``data-pipeline``, ``gates`` or ``decision-log``; ``subject`` what it is about: ``route/digits``, ``model/digits``;
    ``by`` who watches. ``reason``: a sentence on what was found, ``advice`` one on what to do, ``numbers`` the figures
    that it was found by, with their names for people."""

    name: str
    kind: str
    subject: str
    raised: bool
    reason: str
    advice: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    by: str = "drift"

    @property
    def key(self) -> DocumentKey:
        return DocumentKey(ALARM, self.name[:MAX_NAME])

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "name": self.name,
            "kind": self.kind,
            "subject": self.subject,
            "reason": self.reason,
            "advice": self.advice,
            "numbers": _plain(self.numbers),
        }


def step(found: Document | None, alarm: Alarm) -> Change | None:
    """What the alarm changes where ``found`` stands; None: it is so already."""
    standing = found is not None and found.body is not None
    if standing == alarm.raised:
        return None
    return Change(alarm.key, alarm.to_json() if alarm.raised else None, 0 if found is None else found.revision)


class Alarms:
    """``told`` returns at once; what the store does not take now is written as soon as it does. Of an alarm that was
    told twice meanwhile the last word counts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._unwritten: dict[str, Alarm] = {}
        self._due = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Alarms [{len(self._unwritten)} not written yet]>"

    def start(self) -> None:
        self._writing = asyncio.ensure_future(self._write_on())

    async def close(self) -> None:
        await ended(self._writing)
        for alarm in self._unwritten.values():
            log.error("the alarm %s could not be written: %s", alarm.name, alarm.reason)

    def told(self, alarm: Alarm) -> None:
        self._unwritten.pop(alarm.name, None)
        if len(self._unwritten) >= MAX_UNWRITTEN:
            lost = next(iter(self._unwritten))
            log.error("the alarm %s is not written: %d others wait for the store", lost, MAX_UNWRITTEN)
            del self._unwritten[lost]
        self._unwritten[alarm.name] = alarm
        self._due.set()

    async def standing(self) -> list[dict[str, Any]]:
        """Those that were raised and not cleared, oldest first, with the time of each in ``since``."""
        snapshot = await self._store.snapshot()
        found = [row for key, row in snapshot.documents.items() if key.kind == ALARM and row.body is not None]
        found.sort(key=lambda row: row.revision)
        return [{**(row.body or {}), "since": row.written_at} for row in found]

    async def write(self, alarm: Alarm) -> bool:
        """Whether it changed anything. Raises StoreUnavailable."""
        for _ in range(MAX_RACES):
            change = step(await self._store.read(alarm.key), alarm)
            if change is None:
                return False
            detail = {key: value for key, value in alarm.to_json().items() if key not in ("schema", "reason")}
            action = RAISED if alarm.raised else CLEARED
            try:
                await self._store.commit([change], AuditEntry(alarm.by, action, alarm.subject, alarm.reason, detail))
            except StaleRevision:
                continue
            log.warning("%s %s: %s", action, alarm.name, alarm.reason)
            return True
        raise StoreUnavailable(f"the alarm {alarm.name!r} changes too fast: it was too late {MAX_RACES} times")

    async def _write_on(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            for name, alarm in list(self._unwritten.items()):
                try:
                    await self.write(alarm)
                except StoreUnavailable as error:
                    log.info("the alarm %s waits for the store: %s", name, error)
                    await self._clock.sleep(RETRY_S)
                    self._due.set()
                    break
                if self._unwritten.get(name) is alarm:  # not told anew while it was written
                    del self._unwritten[name]


def _plain(value: Any) -> Any:
    """As JSON holds it: what is no number stands as its name."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if math.isfinite(value) else str(value)
