"""What is asked of the log, and what is found there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.telemetry.decisions.fields import PLACE

__all__ = ["Hit", "Question"]

_DECISION, _STARTED, _ROUTE = (PLACE[name] for name in ("decision", "started", "route"))
_VERSION, _ANSWERED, _CODE = (PLACE[name] for name in ("version", "answered", "code"))


class Hit(NamedTuple):
    """A record, or a control record about the decision: one of ``line`` and ``control`` is there."""

    sequence: int
    decision: str
    line: list[Any] | None
    control: str | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Newest first; ``below``: only decisions with smaller ids, which is where the page before ended. Times are
    microseconds since the epoch. ``version`` was chosen, or answered."""

    route: str | None = None
    version: int | None = None
    code: int | None = None
    since: int | None = None
    until: int | None = None
    below: str | None = None
    limit: int = 100

    def takes(self, line: Sequence[Any]) -> bool:
        return (
            (self.route is None or line[_ROUTE] == self.route)
            and (self.version is None or self.version in (line[_VERSION], line[_ANSWERED]))
            and (self.code is None or line[_CODE] == self.code)
            and (self.since is None or line[_STARTED] >= self.since)
            and (self.until is None or line[_STARTED] < self.until)
            and (self.below is None or line[_DECISION] < self.below)
        )
