"""Sees to it that people hear of a decision log that cannot be written: an alarm of this home, raised and cleared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from gateway.clock import Clock
from gateway.control.alarms import Alarm
from gateway.control.ending import ended

__all__ = ["RecordingWatch"]

LOOK_S = 5.0
CALM_LOOKS = 3
"""So often in a row it must be well before the alarm is over: a disk that is nearly full goes to and fro."""


class RecordingWatch:
    """``standing`` is what the log last said of itself (empty: nothing yet). ``where`` names the log, the same after a
    restart, so that an alarm of an earlier process is cleared by the next."""

    def __init__(
        self, standing: Callable[[], Mapping[str, Any]], told: Callable[[Alarm], None], *, where: str, clock: Clock
    ) -> None:
        self._standing = standing
        self._told = told
        self._where = where
        self._clock = clock
        self._calm = 0
        self._raised: bool | None = None
        self._watching: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RecordingWatch {self._where} [{'full' if self._raised else 'well'}]>"

    def start(self) -> None:
        self._watching = asyncio.ensure_future(self._watch())

    async def close(self) -> None:
        await ended(self._watching)

    async def _watch(self) -> None:
        while True:
            self.look()
            await self._clock.sleep(LOOK_S)

    def look(self) -> None:
        standing = self._standing()
        if not standing:
            return
        if standing.get("full"):
            self._calm = 0
            if not self._raised:
                self._raised = True
                self._told(self._alarm(standing, raised=True))
            return
        self._calm += 1
        if self._raised is not False and self._calm >= CALM_LOOKS:
            self._raised = False
            self._told(self._alarm(standing, raised=False))

    def _alarm(self, standing: Mapping[str, Any], *, raised: bool) -> Alarm:
        trouble = str(standing.get("trouble") or "the decision log cannot be written")
        return Alarm(
            name=f"decision-log/{self._where}",
            kind="decision-log",
            subject=f"log/{self._where}",
            raised=raised,
            reason=trouble if raised else "the decision log is written again; a gap record says what is missing",
            advice=(
                "Make room where the decision log is, or keep less of it (telemetry.decisions.keep_bytes); routes with "
                "on_full: refuse answer 503 until then, the others' decisions are missing"
            ),
            numbers={
                "Records missing": int(standing.get("dropped", 0)),
                "Bytes held": int(standing.get("held_bytes", 0)),
            },
            by="recorder",
        )
