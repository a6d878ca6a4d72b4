"""The time that retention may go by: what deletes by age needs evidence that the time has really passed.

A wall clock may be wrong by a year, and what was deleted because of it does not come back. So this time goes as fast as
the monotonic clock, from where the process before left it, and never back. Where the wall clock says otherwise, it must
go on saying so: a step is taken over once it has stood for ``stands_s`` of running time, restarts included. It costs
that what should go after a long stop goes so much later. A clock that is further ahead at a start does not take back
what it said before: that goes on standing, and is taken over by itself. So the time of a machine that is off every
night stays behind by some days, and no more.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gateway.clock import Clock

__all__ = ["STANDS_S", "KeptTime", "ProvenTime"]

log = logging.getLogger("turnout.telemetry")

STANDS_S = 72 * 3600.0
STEP_MS = 3_600_000
"""Less than that between the two clocks is drift."""
STOP_MS = 24 * STEP_MS
"""A gateway that was off so long has the same step behind it as one whose clock was set ahead: it is logged, and no
trouble yet."""


@dataclass(frozen=True, slots=True)
class KeptTime:
    """What the next process goes on from. ``at_ms``: the proven time. The wall clock has been ``ahead_ms`` of it (below
    0: behind), about, for ``stood_ms``, and ``more_ms`` on top of it since a start that came later."""

    at_ms: int
    ahead_ms: int = 0
    stood_ms: int = 0
    more_ms: int = 0

    def to_json(self) -> dict[str, int]:
        return {"at_ms": self.at_ms, "ahead_ms": self.ahead_ms, "stood_ms": self.stood_ms, "more_ms": self.more_ms}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> KeptTime:
        """Raises KeyError, TypeError or ValueError."""
        return cls(int(body["at_ms"]), *(int(body.get(name, 0)) for name in ("ahead_ms", "stood_ms", "more_ms")))

    @property
    def wall_ahead_ms(self) -> int:
        return self.ahead_ms + self.more_ms


def after(kept: KeptTime, passed_ms: int, wall_ms: int, stands_ms: int, *, started: bool = False) -> KeptTime:
    """How it stands when so much has passed by the monotonic clock. ``started``: another process had it before."""
    at = kept.at_ms + passed_ms
    ahead = wall_ms - at
    step = ahead - kept.wall_ahead_ms
    if started and step > STEP_MS and kept.ahead_ms > STEP_MS:
        kept = replace(kept, more_ms=ahead - kept.ahead_ms)
    elif abs(step) > STEP_MS:
        kept, passed_ms = KeptTime(at, ahead), 0
    stood = kept.stood_ms + passed_ms
    if stood < stands_ms:
        return KeptTime(at, kept.ahead_ms, stood, kept.more_ms)
    if kept.more_ms and stands_ms:
        return KeptTime(at + kept.ahead_ms, ahead - kept.ahead_ms)
    return KeptTime(max(at, wall_ms), min(0, ahead), stands_ms if ahead < -STEP_MS else 0)


class ProvenTime:
    """``kept``: where the process before left it, or the time of the newest that it wrote; None where there is nothing
    yet, and so nothing to delete. ``what`` is kept by it, in words."""

    def __init__(self, clock: Clock, kept: KeptTime | None, *, stands_s: float = STANDS_S, what: str) -> None:
        self._clock = clock
        self._stands_ms = int(stands_s * 1000)
        self._what = what
        self._looked = clock.monotonic()
        self._kept = kept or KeptTime(self._wall_ms())
        self._told: int | None = None
        self._look(started=True)

    def __repr__(self) -> str:
        return f"<ProvenTime {_day(self.now_ms())} [wall clock {self._kept.wall_ahead_ms / 1000:+g} s]>"

    def now_ms(self) -> int:
        return self._kept.at_ms + self._passed_ms()

    def latest_ms(self) -> int:
        """What happens now is stamped with it: should the wall clock be right, it is that, and it is never earlier than
        what has been proved, so that nothing new is taken for old."""
        return max(self.now_ms(), self._wall_ms())

    @property
    def kept(self) -> KeptTime:
        return replace(self._kept, at_ms=self.now_ms())

    @property
    def trouble(self) -> str:
        """In words; empty while the clocks agree, or nearly, and once the wall clock has stood where it is for long
        enough."""
        return self._step if not 0 <= self._kept.wall_ahead_ms <= STOP_MS else ""

    @property
    def _step(self) -> str:
        ahead, left_ms = self._kept.wall_ahead_ms, self._stands_ms - self._kept.stood_ms
        if abs(ahead) <= STEP_MS or left_ms <= 0:
            return ""
        before = "after" if ahead > 0 else "before"
        part = f", and then by {_span(self._kept.ahead_ms)} of that" if self._kept.more_ms else ""
        return (
            f"the clock says {_day(self.now_ms() + ahead)}, {_span(abs(ahead))} {before} the time that is proved; "
            f"nothing of {self._what} goes by its age as the clock has it before it has stood for {_span(left_ms)} "
            f"more{part}: set it right, or telemetry.clock_stands_h to 0 and start again if it is right"
        )

    def look(self) -> None:
        """Now and then: compares the clocks."""
        self._look()

    def _look(self, *, started: bool = False) -> None:
        passed_ms = self._passed_ms()
        self._looked += passed_ms / 1000
        self._kept = after(self._kept, passed_ms, self._wall_ms(), self._stands_ms, started=started)
        step, ahead = self._step, self._kept.wall_ahead_ms
        if not step:
            if self._told is not None:
                log.info("%s: the clock is believed again", self._what)
            self._told = None
        elif self._told is None or abs(self._told - ahead) > STEP_MS:
            self._told = ahead
            log.log(logging.WARNING if self.trouble else logging.INFO, "%s", step)

    def _passed_ms(self) -> int:
        return max(0, int((self._clock.monotonic() - self._looked) * 1000))

    def _wall_ms(self) -> int:
        return int(self._clock.wall() * 1000)


def _day(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="minutes")
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms since 1970"


def _span(milliseconds: int) -> str:
    hours = milliseconds / 3_600_000
    return f"{hours / 24:.3g} days" if hours >= 48 else f"{hours:.3g} h"
