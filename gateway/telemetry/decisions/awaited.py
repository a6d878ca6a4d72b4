"""The decision log while it cannot be begun: its disk is full, its key cannot be read, its last writer is still ending.

The recorder goes on with its other parts; the log is tried again every second, counts what it misses, and begins with a
gap record that says how much.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.clock import Clock
from gateway.errors import SettingsError
from gateway.events.records import RequestRecord
from gateway.telemetry.decisions.part import CHECKPOINT, STATISTICS, DecisionPart

__all__ = ["AwaitedPart"]

log = logging.getLogger("turnout.telemetry.decisions")

_AGAIN_S = 1.0
_MAX_KEPT = 10_000


class AwaitedPart:
    """``begin`` builds the real part; raises SettingsError while it cannot."""

    def __init__(self, begin: Callable[[], DecisionPart], *, clock: Clock) -> None:
        self._begin = begin
        self._clock = clock
        self._part: DecisionPart | None = None
        self._missed = self._dropped = 0
        self._reason = ""
        self._try_at = clock.monotonic()
        # What must be known of before: the last table and secrets, and each version, by name.
        self._kept: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._try()

    def __repr__(self) -> str:
        return repr(self._part) if self._part is not None else f"<AwaitedPart [{self._missed} missed]>"

    @property
    def full(self) -> bool:
        return self._part is None or self._part.full

    def take(self, records: Sequence[RequestRecord]) -> None:
        if self._part is not None:
            self._part.take(records)
        else:
            self._missed += len(records)
            self._dropped += len(records)

    def told(self, event: str, body: Mapping[str, Any]) -> None:
        if self._part is not None:
            self._part.told(event, body)
        elif event in ("table", "secrets") or (event == "version" and len(self._kept) < _MAX_KEPT):
            self._kept[f"{event} {body.get('model')}/{body.get('number')}"] = event, body

    def tick(self) -> None:
        if self._part is None and self._clock.monotonic() >= self._try_at:
            self._try()
        if self._part is not None:
            self._part.tick()

    def ask(self, kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._part is None:
            if kind not in (STATISTICS, CHECKPOINT):
                raise KeyError(kind)
            return {"full": True, "dropped": self._dropped, "trouble": self._reason}
        answer = self._part.ask(kind, body)
        return {**answer, "dropped": answer["dropped"] + self._dropped} if kind == STATISTICS else answer

    def close(self) -> None:
        """What was missed is told of in a last try."""
        if self._part is None:
            self._try()
        if self._part is not None:
            self._part.close()

    def _try(self) -> None:
        try:
            part = self._begin()
        except SettingsError as error:
            if str(error) != self._reason:
                log.error("%s; tried again every second", error)
            self._reason, self._try_at = str(error), self._clock.monotonic() + _AGAIN_S
            return
        self._part = part
        if self._missed:
            part.told("gap", {"cause": "not-begun", "count": self._missed, "reason": self._reason})
        for event, body in self._kept.values():
            part.told(event, body)
        self._kept.clear()
        self._missed = 0
