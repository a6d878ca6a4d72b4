"""Bodies on their way: what they may hold together, and who gives way where that is short.

Counted is what has come: to say how much will come costs a client nothing, and memory that nothing was written to costs
nobody anything. What is whole counts no more: it waits in a queue, which counts rows.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from gateway.clock import Clock
from gateway.errors import QueueFull
from gateway.web.problem_table import ReceiveTimeout

__all__ = ["Intake", "Receipt", "Receipts", "Share", "hasten", "late"]

_PROGRESS_BYTES = 64 * 1024
_PROGRESS_S = 2.0
"""A body of which less than so much came in so long gives way when places are short: sixty-four clients that trickle
would else keep all others' large bodies out."""

_FREE_BYTES = 64 * 1024
"""A body up to here always has room: as much lies in a socket anyway."""

_CROWDED = 7 / 8
"""Of all bytes: from here on what is left is for bodies that have begun."""


class Receipt:
    """A body on its way: how much of it had come when progress was last seen. ``give_way`` ends the wait for it, and
    tells whether there was one."""

    __slots__ = ("_give_way", "gave_way", "seen_at", "seen_bytes")

    def __init__(self, give_way: Callable[[], bool]) -> None:
        self._give_way = give_way
        self.seen_at = 0.0
        self.seen_bytes = 0
        self.gave_way = False

    def give_way(self) -> None:
        """Its client is refused in the next turn of the loop."""
        self.gave_way = self._give_way()


class Receipts:
    """Bodies that take a place, those first that have shown no progress for longest."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_progress: OrderedDict[Receipt, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_progress)

    def add(self, receipt: Receipt, size_bytes: int = 0) -> None:
        """So much of it has come."""
        receipt.seen_bytes, receipt.seen_at = size_bytes, self._clock.monotonic()
        self._by_progress[receipt] = None

    def saw(self, receipt: Receipt, size_bytes: int) -> None:
        """So much has come."""
        if size_bytes >= receipt.seen_bytes + _PROGRESS_BYTES and receipt in self._by_progress:
            receipt.seen_bytes, receipt.seen_at = size_bytes, self._clock.monotonic()
            self._by_progress.move_to_end(receipt)

    def discard(self, receipt: Receipt) -> None:
        self._by_progress.pop(receipt, None)

    def make_room(self) -> None:
        """Who hardly sends keeps no place."""
        latest = self._clock.monotonic() - _PROGRESS_S
        while self._by_progress and (slowest := next(iter(self._by_progress))).seen_at < latest:
            del self._by_progress[slowest]
            slowest.give_way()


class Intake:
    """What comes into this process's own memory, ``most_bytes`` of it at a time."""

    def __init__(self, clock: Clock, most_bytes: int) -> None:
        self._receipts = Receipts(clock)
        self._most_bytes = most_bytes
        self.held_bytes = 0

    def __repr__(self) -> str:
        return f"<Intake [{len(self._receipts)} on their way | {self.held_bytes} of {self._most_bytes} bytes]>"

    def share(self, give_way: Callable[[], bool]) -> Share:
        """That of a body that begins to come. To be ended, whatever becomes of it."""
        return Share(self, give_way)

    def hold(self, share: Share) -> None:
        """All that came of a body, if there is room for it; else QueueFull, and nothing of it counts any more."""
        begins, more = not share.held_bytes, share.came_bytes - share.held_bytes
        self._receipts.saw(share, share.came_bytes)
        crowded = self.held_bytes + more > _CROWDED * self._most_bytes
        if crowded:
            self._receipts.make_room()
        if self.held_bytes + more > self._most_bytes or (crowded and begins):
            held_bytes = self.held_bytes
            self.let_go(share)  # at once: others that bring something in this turn of the loop need not be refused, too
            raise QueueFull(
                f"bodies that are on their way take {held_bytes} of the {self._most_bytes} bytes that they may take"
                " together; send this one again later",
                retry_after_s=1.0,
            )
        self.held_bytes += more
        share.held_bytes = share.came_bytes
        if begins:
            self._receipts.add(share, share.came_bytes)

    def let_go(self, share: Share) -> None:
        self._receipts.discard(share)
        self.held_bytes -= share.held_bytes
        share.held_bytes = 0


class Share(Receipt):
    """What one body holds of an intake."""

    __slots__ = ("_intake", "came_bytes", "held_bytes")

    def __init__(self, intake: Intake, give_way: Callable[[], bool]) -> None:
        super().__init__(give_way)
        self._intake = intake
        self.came_bytes = 0
        self.held_bytes = 0

    def came(self, count: int) -> None:
        """QueueFull where all bodies together hold as much as they may."""
        self.came_bytes += count
        if self.came_bytes > _FREE_BYTES:
            self._intake.hold(self)

    def end(self) -> None:
        """It is whole, or given up."""
        if self.held_bytes:
            self._intake.let_go(self)


def hasten(wait: asyncio.Timeout) -> bool:
    """Ends a wait in the next turn of the loop. One whose time is over just now ends anyway."""
    if wait.expired():
        return False
    wait.reschedule(0.0)
    return True


def late(receive_s: float, *, gave_way: bool = False) -> ReceiveTimeout:
    if gave_way:
        return ReceiveTimeout(
            f"less than {_PROGRESS_BYTES} bytes of the body came in {_PROGRESS_S:g} s, and others waited for its"
            " place; send it faster"
        )
    return ReceiveTimeout(f"the body did not arrive within {receive_s:g} s; send it faster")
