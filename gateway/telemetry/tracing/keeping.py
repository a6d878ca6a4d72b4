"""Which finished requests are worth a trace, besides those that were sampled before anything was known of them.

A share drawn at the door misses what traces are for: the few that fail, and the few that are slow. So every record is
looked at once it is finished: failures of ours (5xx, a fallback) and slow ones are kept, whatever the door said. An
outage makes thousands of them that all tell the same story, so each kind has a bucket of tokens, and what finds it
empty is counted and let go. The kinds do not share one: a slow hour must not hide the errors in it. What was sampled
at the door has a bucket as well, a larger one: any client can ask for that, and a trace takes a thousand times the
processor's time that it takes to ask.

*Slow* is what the route says (``slow_ms``). Where it says nothing, it is what takes longer than 99 of 100 requests of
the route did lately: the threshold rises a little with each request above it and sinks a ninety-ninth of that with
each below, on a logarithmic scale, so that it stands still where one of a hundred is above. (Robbins and Monro, *A
Stochastic Approximation Method*, 1951.) It needs no past but one number a route, and follows the load.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.events.bursts import Burst
from gateway.events.records import RequestRecord

__all__ = ["ERROR", "FALLBACK", "PARENT", "RATIO", "SLOW", "Allowance", "Keeping", "Threshold"]

PARENT, RATIO = "parent", "ratio"
ERROR, FALLBACK, SLOW = "error", "fallback", "slow"

_QUANTILE = 0.99
_STEP = 0.05
"""By how much the threshold rises with a request above it: one that is 10% too low is set right by two slow requests,
one that is 10% too high by 220 others. It wavers by some 7% about the quantile of exponential durations."""
_UP, _DOWN = (1 + _STEP) ** _QUANTILE, (1 + _STEP) ** (_QUANTILE - 1)
_FIRST = 200
"""Requests of a route until its threshold means anything."""
_BURST_S = 5.0
_MOST_ROUTES = 10_000


class Allowance:
    """A bucket of tokens: so many a second, and what five seconds bring at once."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * _BURST_S) if per_s else 0.0
        self._left = self._most
        self._asked: float | None = None

    def take(self, now: float) -> bool:
        """``now`` in seconds of a clock that does not go back; one that does is taken to stand still."""
        if self._asked is not None and now > self._asked:
            self._left = min(self._most, self._left + (now - self._asked) * self._per_s)
        self._asked = now if self._asked is None else max(now, self._asked)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Threshold:
    """The running 99th percentile of one route's durations."""

    __slots__ = ("_seen", "_value")

    def __init__(self) -> None:
        self._seen = 0
        self._value = 0.0

    @property
    def value_s(self) -> float | None:
        """None while too little was seen."""
        return self._value if self._seen >= _FIRST else None

    def above(self, durations_s: Sequence[float]) -> list[int]:
        """Counts these; the places of those that were slow, by what was known before them."""
        value, seen, count = self._value, self._seen, len(durations_s)
        self._seen = seen + count
        if seen < _FIRST:
            self._learn(durations_s, seen)
            return []
        if max(durations_s) <= value:
            self._value = value * _DOWN**count
            return []
        places = [place for place, duration_s in enumerate(durations_s) if duration_s > value]
        self._value = value * _UP ** len(places) * _DOWN ** (count - len(places))
        return places

    def _learn(self, durations_s: Sequence[float], seen: int) -> None:
        """In larger steps: a first request that was quick should not make the next ones slow."""
        value = self._value if seen else max(durations_s[0], 1e-6)
        for duration_s in durations_s:
            value = min(duration_s, value * 2) if duration_s > value else value * _DOWN
        self._value = value


class Keeping:
    """Judges every finished request once. ``paced``: routes with a ``slow_ms`` of their own, which say themselves what
    is slow. ``per_s``: how many of each kind (failed, slow) are kept a second beyond those sampled at the door, 0 keeps
    none; ``sampled_per_s``: how many of these."""

    def __init__(self, per_s: float, *, sampled_per_s: float = 200.0) -> None:
        self.paced: Collection[str] = frozenset()
        self.suppressed = 0
        self._sampled = Allowance(sampled_per_s)
        self._failed = Allowance(per_s)
        self._slow = Allowance(per_s)
        self._thresholds: dict[str, Threshold] = {}
        self._on = per_s > 0

    def __repr__(self) -> str:
        return f"<Keeping [{len(self._thresholds)} routes | {self.suppressed} suppressed]>"

    def choose(self, records: Sequence[RequestRecord], now: float) -> list[tuple[RequestRecord, str]]:
        """Those to keep, each with the reason: ``parent`` or ``ratio`` where it was sampled from the beginning, else
        ``error``, ``fallback`` or ``slow``."""
        burst = Burst.of(records)
        kept = [(record, reason) for record in burst.others if (reason := self._reason(record, now)) is not None]
        if self._on:
            for group in burst.good:
                # A record may have to be made first, and with it its whole burst: only of what is kept.
                slow = self._slow_ones(group.route, group.slow, group.durations)
                kept += [(group.records[place], SLOW) for place in slow if self._allowed(self._slow, now)]
        return kept

    def _reason(self, record: RequestRecord, now: float) -> str | None:
        """Of one that was sampled, failed in something, or was not answered."""
        if record.sampled and self._sampled.take(now):
            return RATIO if record.parent_span_id is None else PARENT
        self.suppressed += record.sampled
        if not self._on:
            return None
        if record.code >= 500 or record.chosen_failure is not None:
            reason = ERROR if record.code >= 500 else FALLBACK
            return reason if self._allowed(self._failed, now) else None
        # A refusal at the door is quick, and says nothing of how long answers take.
        timed = [record.duration_s] if record.code == 200 else []
        slow = self._slow_ones(record.route, [0] if record.slow else [], timed)
        return SLOW if slow and self._allowed(self._slow, now) else None

    def _allowed(self, allowance: Allowance, now: float) -> bool:
        if allowance.take(now):
            return True
        self.suppressed += 1
        return False

    def _slow_ones(self, route: str, called_slow: Sequence[int], durations_s: Sequence[float]) -> Sequence[int]:
        """The places of the slow; ``durations_s`` of all, or nothing where they should not count."""
        # Also where the route has no word of its own: it may have had one when the request came.
        if called_slow or route in self.paced or not durations_s:
            return called_slow
        threshold = self._thresholds.get(route)
        if threshold is None:
            if len(self._thresholds) >= _MOST_ROUTES:
                self._thresholds.clear()
            threshold = self._thresholds[route] = Threshold()
        return threshold.above(durations_s)
