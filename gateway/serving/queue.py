"""What waits for a version, and in which order it goes: by priority, fairly among clients, oldest first. Pure.

- **Priority.** High goes before normal before low. A batch is filled in that order, but every sixteenth batch
  begins with a class that the last fifteen have passed over, so that low work goes on, slowly, under any flood.
  Spare work (shadows) runs only when nothing else waits.
- **Clients.** Within a class the clients take turns, and each pays for its rows: one that took a large item is
  passed over until the others have had as much (``gateway.serving.turns``). With one client this is first in, first
  out. An item that the batch has no room left for keeps its client's turn, and begins the next batch; meanwhile other
  clients fill this one, lower classes do not.
- **Room.** A full queue is shared by max-min fairness: who holds less than an equal share finds room, at the cost of
  the newest items of those who hold more. What they do not use is anybody's, so nobody is held to a share before
  the queue is full. Besides, spare items make room for all others, and a client's lower classes for its higher.
  The share goes before the priority, since a client chooses its priority itself.
- **Shapes.** A batch has one shape key, that of its first item; items of other shapes keep their places. The walk
  looks at a bounded number of items, so that forming a batch never costs more for a longer queue.

An item larger than a batch is cut: it stays at the front with what is left of it, and its parts fill batches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from gateway.serving.filling import LOOK_AHEAD, Cut, Filling, Taken, Waiting
from gateway.serving.turns import Turns

__all__ = ["Taken", "Waiting", "WaitingQueue"]

W = TypeVar("W", bound=Waiting)

CLASSES = 4
SPARE = 3

PATIENCE = 15
"""Batches in a row that may pass a class over while it waits."""


class _Class(Generic[W]):
    """The items of one priority, by client. ``turns`` from when a batch cannot take all of them until nothing
    waits."""

    __slots__ = ("passed", "rows", "shares", "turns")

    def __init__(self) -> None:
        self.rows = 0
        self.shares: dict[str, OrderedDict[W, None]] = {}
        self.turns: Turns | None = None
        self.passed = 0


class WaitingQueue(Generic[W]):
    """Items by priority, client and age. Adding, removing and taking cost the same however many wait."""

    def __init__(self) -> None:
        self.rows = 0
        self.items = 0
        self._classes: tuple[_Class[W], ...] = tuple(_Class() for _ in range(CLASSES))
        self._held: dict[str, int] = {}
        self._flooders: list[str] = []
        self._most = 0  # no client holds more rows; may be more than any holds

    def __repr__(self) -> str:
        return f"<WaitingQueue [{self.items} items | {self.rows} rows | {len(self._held)} clients]>"

    def __iter__(self) -> Iterator[W]:
        for line in self._classes:
            for share in line.shares.values():
                yield from share

    def __contains__(self, item: W) -> bool:
        share = self._classes[item.priority].shares.get(item.client)
        return share is not None and item in share

    @property
    def urgent_rows(self) -> int:
        """Rows that are not spare."""
        return self.rows - self._classes[SPARE].rows

    @property
    def clients(self) -> int:
        return len(self._held)

    def add(self, item: W) -> None:
        """At the end of its client's line."""
        line = self._classes[item.priority]
        client, rows = item.client, item.rows
        share = line.shares.get(client)
        if share is None:
            share = line.shares[client] = OrderedDict()
            if line.turns is not None:
                line.turns.join(client)
        share[item] = None
        line.rows += rows
        self.rows += rows
        self.items += 1
        held = self._held[client] = self._held.get(client, 0) + rows
        if held > self._most:  # noqa: PLR1730 - a call of max would be the dearest part of this
            self._most = held

    def put_back(self, items: Sequence[W]) -> None:
        """Items taken before, in their order, before all that wait."""
        for item in reversed(items):
            self.add(item)
            line = self._classes[item.priority]
            line.shares[item.client].move_to_end(item, last=False)
            line.turns = line.turns or Turns(line.shares)
            line.turns.goes_first(item.client)

    def remove(self, item: W) -> None:
        """KeyError when it does not wait."""
        line = self._classes[item.priority]
        share = line.shares[item.client]
        del share[item]
        self._out(line, item.client, item.rows, 1)
        if not share:
            self._emptied(line, item.client)

    def clear(self) -> list[W]:
        """All that waited."""
        items = list(self)
        for item in items:
            self.remove(item)
        return items

    def ahead(self, priority: int, client: str, rows: int) -> int:
        """Rows that go before a new item of so many rows of this client, if nothing else comes."""
        if not self.rows:
            return 0
        higher = sum(self._classes[other].rows for other in range(priority))
        line = self._classes[priority]
        if len(line.shares) < 2 and (not line.shares or client in line.shares):
            return higher + line.rows
        # Taking turns, the others have had about as much as this client when its last row goes.
        others = len(line.shares) - (client in line.shares)
        held, owed = self._held.get(client, 0), 0 if line.turns is None else line.turns.owes(client)
        return higher + min(line.rows, held + (held + rows + owed) * others)

    def take(self, limit: int, now: float, *, alone: bool, cut: Cut[W]) -> Taken[W]:
        """The next batch of at most ``limit`` rows, or of one item (``alone``), by the rules above."""
        filling: Filling[W] = Filling(limit, now, alone, cut)
        for line in self._order():
            before = len(filling.batch)
            self._draw_class(line, filling)
            line.passed = 0 if len(filling.batch) > before else line.passed
            if filling.full or filling.misfits:
                break
        spare = self._classes[SPARE]
        if not filling.batch and spare.shares and not self.urgent_rows:
            self._draw_class(spare, filling)
        if filling.batch:
            self._count_passed_over(filling.batch[0])
        return Taken(filling.batch, limit - filling.room, filling.expired)

    def _order(self) -> list[_Class[W]]:
        """The classes with work, in the order in which they may fill this batch; spare is not among them."""
        waiting = [line for line in self._classes[:SPARE] if line.shares]
        if len(waiting) > 1:
            late = max(waiting, key=_passed)
            if late.passed >= PATIENCE:
                waiting.remove(late)
                waiting.insert(0, late)
        return waiting

    def _count_passed_over(self, first: W) -> None:
        if self.rows:
            for number, line in enumerate(self._classes[:SPARE]):
                if line.shares and number != first.priority:
                    line.passed += 1

    def _draw_class(self, line: _Class[W], filling: Filling[W]) -> None:
        if len(line.shares) > 1 and (line.turns is not None or filling.alone or line.rows > filling.room):
            line.turns = turns = line.turns or Turns(line.shares)
            self._draw_in_turns(line, turns, filling)
            return
        # One client, or there is room for all.
        drawn = [
            (client, self._draw_of(line, client, filling, LOOK_AHEAD))
            for client in tuple(line.shares)
            if not filling.full
        ]
        if len(line.shares) > 1:  # items of other shapes: who went first now is not to go first for ever
            line.turns = Turns(line.shares)
            for client, rows in drawn:
                if rows:
                    line.turns.served(client, rows)

    def _draw(self, line: _Class[W], client: str, share: OrderedDict[W, None], filling: Filling[W], most: int) -> int:
        """Fills the batch, up to ``most`` items, out of one client's; the rows that it took of them."""
        room, misfits = filling.room, filling.misfits
        stay: list[W] = []
        rows_out = items_out = 0
        while share and not filling.full and filling.misfits == misfits and len(filling.batch) < most:
            item, _ = share.popitem(last=False)
            rest = filling.offer(item)
            rows_out += item.rows
            if rest is None:
                items_out += 1
            else:
                rows_out -= rest.rows
                stay.append(rest)
        for item in reversed(stay):
            share[item] = None
            share.move_to_end(item, last=False)
        self._out(line, client, rows_out, items_out)
        if not share:
            self._emptied(line, client)
        return room - filling.room

    def _draw_of(self, line: _Class[W], client: str, filling: Filling[W], most: int) -> int:
        turns = line.turns
        drawn = self._draw(line, client, line.shares[client], filling, most)
        if drawn and turns is not None:
            turns.served(client, drawn)
        return drawn

    def _draw_in_turns(self, line: _Class[W], turns: Turns, filling: Filling[W]) -> None:
        """An item of the client that has had least, again and again."""
        passed_over: list[str] = []
        while line.shares and not filling.full and (client := turns.due()) is not None:
            if not self._draw_of(line, client, filling, len(filling.batch) + 1):
                passed_over.append(client)
        turns.passed_over(passed_over)

    def _out(self, line: _Class[W], client: str, rows: int, items: int) -> None:
        line.rows -= rows
        self.rows -= rows
        self.items -= items
        held = self._held[client] - rows
        if held:
            self._held[client] = held
        else:
            del self._held[client]

    def _emptied(self, line: _Class[W], client: str) -> None:
        del line.shares[client]
        if not line.shares:
            line.turns = None
        elif line.turns is not None:
            line.turns.leave(client)

    def room_for(self, rows: int, bound: int, priority: int, client: str) -> list[W] | None:
        """The waiting items that must go so that ``rows`` more fit ``bound``: none, some (the newest), or None when
        this client has no claim to their room. Nothing is removed yet."""
        need = self.rows + rows - bound
        if need <= 0:
            return []
        victims: dict[W, None] = {}
        if priority < SPARE:
            need = _newest(self._classes[SPARE].shares.values(), need, victims)
        if need > 0:
            held = self._held.get(client, 0)
            share = bound // (len(self._held) + (client not in self._held))
            if held + rows <= share:
                need = self._from_flooders(share, need, victims)
        if need > 0:
            lower = reversed(self._classes[priority + 1 :])
            need = _newest((line.shares[client] for line in lower if client in line.shares), need, victims)
        return list(victims) if need <= 0 else None

    def _from_flooders(self, share: int, need: int, victims: dict[W, None]) -> int:
        """Takes from who holds more than ``share``, down to it at most; what is still needed then."""
        if self._most <= share:
            return need
        # The search goes through all clients, so what it finds is kept: a flooder mostly stays one.
        self._flooders = [client for client in self._flooders if self._held.get(client, 0) > share]
        if not self._flooders:
            self._flooders = sorted((c for c, held in self._held.items() if held > share), key=self._held.__getitem__)
            self._most = max(self._held.values())
        for client in reversed(self._flooders):
            excess = min(need, self._held[client] - share)
            lines = (line.shares[client] for line in reversed(self._classes) if client in line.shares)
            need -= excess - _newest(lines, excess, victims)
            if need <= 0:
                break
        return need


def _passed(line: _Class[W]) -> int:
    return line.passed


def _newest(shares: Iterable[OrderedDict[W, None]], need: int, victims: dict[W, None]) -> int:
    """Adds the newest items of each until they have ``need`` rows; what is still needed then."""
    for share in shares:
        for item in reversed(share):
            if need <= 0:
                return need
            if item not in victims:
                victims[item] = None
                need -= item.rows
    return need
