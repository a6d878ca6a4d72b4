"""A request larger than a batch: its rows ride in several batches, its client gets one answer or one error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.errors import ModelError, TurnoutError
from gateway.serving.batch import join, rows_of
from gateway.serving.item import Answer, Item

__all__ = ["Parts"]


class Parts:
    """The parts of one request: those under way, the rest that waits, and what has come back.

    Deadline and cancellation are the whole's. When it is over, for whatever reason, the rest leaves the queue and
    nobody waits for the parts under way. The rows still waiting are one item, so a request of any size takes the
    memory of one, and of its parts under way.
    """

    def __init__(self, whole: Item, withdraw: Callable[[Item], None]) -> None:
        """``withdraw`` takes an item out of the queue, if it is there."""
        self._whole = whole
        self._withdraw = withdraw
        self._starts: dict[Item, int] = {whole: 0}
        # By its future, so that no future knows its item: a ring would keep the arrays until the collector comes by.
        self._items: dict[asyncio.Future[Answer], Item] = {}
        self._answers: dict[int, Answer] = {}
        whole.future.add_done_callback(self._over)

    def __repr__(self) -> str:
        return f"<Parts [{len(self._starts)} open | {len(self._answers)} answered]>"

    def cut(self, item: Item, rows: int) -> tuple[Item, Item]:
        """Splits so many rows off the whole, or off what is left of it: that part, and the rest."""
        start = self._starts.pop(item)
        self._items.pop(item.future, None)
        first = self._part(item, start, 0, rows)
        return first, self._part(item, start, rows, item.rows)

    def _part(self, item: Item, offset: int, start: int, stop: int) -> Item:
        whole = self._whole
        future = whole.future.get_loop().create_future()
        inputs = rows_of(item.inputs, start, stop)
        first = offset + start
        part = Item(inputs, stop - start, item.key, item.deadline, item.enqueued, future, item.priority, item.client)
        part.attempts = int(first > 0)  # its wait is told by the first part
        part.parts = self
        self._starts[part] = first
        self._items[future] = part
        future.add_done_callback(self._came)
        if whole.left:
            future.cancel()
        return part

    def _came(self, future: asyncio.Future[Answer]) -> None:
        part = self._items.pop(future, None)
        start = None if part is None else self._starts.pop(part, None)
        if start is None or future.cancelled():
            return
        failure = future.exception()
        if isinstance(failure, TurnoutError):
            self._whole.fail(failure)
            self._end()  # at once: the rest is not to be run for nobody
            return
        self._answers[start] = future.result()
        if not self._starts and not self._whole.left:
            try:
                self._whole.answer(self._joined())
            except ValueError as mismatch:
                self._whole.fail(ModelError(f"the answer's parts do not fit together: {mismatch}"))

    def _joined(self) -> Answer:
        answers = [answer for _, answer in sorted(self._answers.items())]
        outputs = join([answer.outputs for answer in answers])
        compute_s = sum(answer.compute_s for answer in answers)
        batch_rows = sum(answer.batch_rows for answer in answers)
        return Answer(outputs, answers[0].queue_s, compute_s, answers[0].batch, batch_rows)

    def _over(self, _: asyncio.Future[Answer]) -> None:
        self._end()

    def _end(self) -> None:
        open_parts = list(self._starts)
        self._starts.clear()
        self._answers.clear()
        self._items.clear()
        self._whole.parts = None
        for part in open_parts:
            self._withdraw(part)
            part.future.cancel()
