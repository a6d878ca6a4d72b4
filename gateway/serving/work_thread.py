"""One daemon thread that does work in order, and wakes the loop once for all that it has done since."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

__all__ = ["WorkThread"]

T = TypeVar("T")
W = TypeVar("W")


class WorkThread(Generic[W]):
    """``execute`` is called in the thread for each piece of work and must not raise; ``ready`` on the loop, after.

    A thread that hangs cannot be ended: it is given up, and being a daemon keeps nobody.
    """

    def __init__(self, name: str, execute: Callable[[W], None], ready: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._execute = execute
        self._ready = ready
        self._queue: queue.SimpleQueue[W | Callable[[], None] | None] = queue.SimpleQueue()
        # True from when the loop is woken until it looks; written by both sides, and a wake-up too many does no harm.
        self._rung = False
        threading.Thread(target=self._serve, name=name, daemon=True).start()

    def put(self, work: W) -> None:
        """Does it after all that was put before."""
        self._queue.put(work)

    async def call(self, function: Callable[[], T]) -> T:
        """The call's result or exception. Cancelled, the call runs on and its result is dropped."""
        result: asyncio.Future[T] = self._loop.create_future()

        def call() -> None:
            try:
                value = function()
            except Exception as error:  # noqa: BLE001 - the batch boundary: carried over to whoever waits
                self._tell(partial(_fail, result, error))
            else:
                self._tell(partial(_settle, result, value))

        self._queue.put(call)
        return await result

    def withdraw(self) -> list[W | Callable[[], None]]:
        """Takes back what the thread has not taken up: it will never be done."""
        taken: list[W | Callable[[], None]] = []
        while True:
            try:
                work = self._queue.get_nowait()
            except queue.Empty:
                return taken
            if work is not None:
                taken.append(work)

    def stop(self) -> None:
        """After the work already put."""
        self._queue.put(None)

    def _serve(self) -> None:
        while (work := self._queue.get()) is not None:
            if callable(work):
                work()
                continue
            self._execute(work)
            del work  # its arrays are the caller's
            if not self._rung:
                self._rung = True
                self._tell(self._look)

    def _look(self) -> None:
        self._rung = False
        self._ready()

    def _tell(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            return  # the loop is closed: nobody waits


def _settle(result: asyncio.Future[T], value: T) -> None:
    if not result.done():
        result.set_result(value)


def _fail(result: asyncio.Future[T], error: Exception) -> None:
    if not result.done():
        result.set_exception(error)
