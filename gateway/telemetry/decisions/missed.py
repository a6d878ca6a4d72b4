"""What the log could not write: counted while nothing can be written, told of by the first thing that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

__all__ = ["Missed"]

_MAX_GAPS = 1000


@dataclass(slots=True)
class Missed:
    """What was not written, since when, and why; and how much room there must be before it is tried again: a gap record
    would find a place where no burst does, again and again. ``gaps`` are those that were told of meanwhile, kept to be
    written: nobody would say otherwise what they say is missing."""

    since_ms: int
    reason: str
    headroom_bytes: int
    records: int = 0
    controls: int = 0
    gaps: list[bytes] = field(default_factory=list)

    def lose(self, lines: Sequence[bytes]) -> None:
        for line in lines:
            told = orjson.loads(line)
            if told["event"] != "gap":
                self.controls += 1
            elif len(self.gaps) < _MAX_GAPS:
                self.gaps.append(line)
            else:
                self.controls += 1
                self.records += told.get("records") or 0

    def gaps_told(self, now_ms: int) -> list[bytes]:
        """Control records: what is missing, and what was told of gaps meanwhile."""
        gap = {
            "event": "gap",
            "at": now_ms,
            "cause": "full",
            "records": self.records,
            "controls": self.controls,
            "from": self.since_ms,
            "reason": self.reason,
        }
        return [orjson.dumps(gap, option=orjson.OPT_SORT_KEYS), *self.gaps]
