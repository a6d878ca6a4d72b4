"""The copies that wait for one shadow of one route: bounded in number, and resting while the shadow dies of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from gateway.messages import Arrays, Decision, VersionRef
from gateway.routing.table import Route

__all__ = ["ALONE", "TOGETHER", "Copy", "Line"]

MOST_WAITING = 256

ALONE, TOGETHER = 1, 16
"""Copies under way at once: for a version that clients are also answered by, and for one that has no other work. A
batch that runs cannot be stopped, so a client that comes to the former waits for one copy at most."""

FIRST_REST_S, LONGEST_REST_S = 1.0, 60.0


class Copy(NamedTuple):
    """One request's inputs, for the shadow, and what was answered. ``size_bytes`` is what it holds of memory."""

    route: Route
    decision: Decision
    shadow: VersionRef
    inputs: Arrays
    rows: int
    outputs: Arrays
    deadline: float
    size_bytes: int
    trace: str | None = None
    decision_id: str | None = None


class Line:
    """``under_way`` counts the copies that its version has now; ``most`` is how many it may have."""

    __slots__ = ("_rest_s", "_rests_until", "most", "under_way", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[Copy] = deque()
        self.under_way = 0
        self.most = ALONE
        self._rest_s = 0.0
        self._rests_until = 0.0

    def __repr__(self) -> str:
        return f"<Line [{len(self.waiting)} waiting | {self.under_way} under way]>"

    @property
    def full(self) -> bool:
        return len(self.waiting) >= MOST_WAITING

    def rests(self, now: float) -> bool:
        return now < self._rests_until

    def died(self, now: float) -> None:
        """The version's child died of a copy: the next one waits, longer each time, since clients' requests to the
        same version wait for the child to come back."""
        if self.rests(now):
            return  # others of the same batch
        self._rest_s = min(LONGEST_REST_S, self._rest_s * 2) or FIRST_REST_S
        self._rests_until = now + self._rest_s

    def answered(self) -> None:
        self._rest_s = 0.0

    def expired(self, now: float) -> Iterator[Copy]:
        """Takes out what is too old: the oldest stand first, but those of a changed route may have less time."""
        while self.waiting and self.waiting[0].deadline <= now:
            yield self.waiting.popleft()
