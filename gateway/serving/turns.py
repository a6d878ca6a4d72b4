"""Whose turn it is among the clients of one priority: who has had the fewest rows goes first. Pure.

Start-time fair queueing (Goyal, Vin and Cheng 1996). Each client has a count of the rows that it has had. Who comes
anew starts at the count of who was served last, so having been away earns nothing; but who was ahead of that when its
last item went stays ahead: else a client with one large item at a time would owe nothing whenever it comes back.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable

__all__ = ["Turns"]

_SLACK = 64
"""Places beyond twice those that count, before they are swept."""

_Turn = tuple[int, int, str]
"""Rows had, a number that keeps equals in order, and the client."""


class Turns:
    """The clients that wait, and those that have left owing. A step costs as much as a heap's."""

    __slots__ = ("_had", "_left", "_now", "_numbers", "_order", "_sweep_at", "_turns")

    def __init__(self, clients: Iterable[str]) -> None:
        self._now = 0
        self._numbers = itertools.count(1)
        self._turns: dict[str, _Turn] = {}
        # Holds turns that have been given up or replaced, too, until they come to the top or are swept.
        self._order: list[_Turn] = []
        self._left: dict[str, int] = {}
        self._sweep_at = _SLACK
        for client in clients:
            self.join(client)

    def __repr__(self) -> str:
        return f"<Turns [{len(self._turns)} wait | {len(self._left)} have left | {self._now} rows each]>"

    @property
    def remembered(self) -> int:
        """Places that it keeps."""
        return len(self._order) + len(self._left)

    def owes(self, client: str) -> int:
        """Rows that others may have before it is even with who was served last."""
        turn = self._turns.get(client)
        had = self._left.get(client, 0) if turn is None else turn[0]
        return max(0, had - self._now)

    def join(self, client: str) -> None:
        """It has something that waits, and had nothing."""
        self._put(client, max(self._now, self._left.pop(client, 0)), next(self._numbers))
        if len(self._order) > 2 * len(self._turns) + _SLACK:
            self._order = sorted(self._turns.values())

    def leave(self, client: str) -> None:
        """Nothing of it waits any more."""
        self._left[client] = self._turns.pop(client)[0]
        if len(self._left) > self._sweep_at:
            self._left = {client: had for client, had in self._left.items() if had > self._now}
            self._sweep_at = 2 * len(self._left) + _SLACK

    def due(self) -> str | None:
        """The next client; None when each has been named. Then ``served``, or ``passed_over`` before the next batch."""
        while self._order:
            turn = heapq.heappop(self._order)
            if self._turns.get(turn[2]) == turn:  # of a number that no other has
                return turn[2]
        return None

    def served(self, client: str, rows: int) -> None:
        """Rows of it have gone, perhaps its last."""
        turn = self._turns.get(client)
        before = self._left.get(client, self._now) if turn is None else turn[0]
        self._now = max(self._now, before)
        if turn is None:
            self._left[client] = before + rows
        else:
            self._put(client, before + rows, next(self._numbers))

    def passed_over(self, clients: Iterable[str]) -> None:
        """They were due, and nothing of theirs went with the batch: they are due again."""
        for client in clients:
            turn = self._turns.get(client)
            if turn is not None:
                heapq.heappush(self._order, turn)

    def goes_first(self, client: str) -> None:
        """What it had was given back: it is due before all others."""
        least = min((had for had, _, _ in self._turns.values()), default=self._now)
        self._put(client, least, -next(self._numbers))

    def _put(self, client: str, had: int, number: int) -> None:
        turn = self._turns[client] = (had, number, client)
        heapq.heappush(self._order, turn)
