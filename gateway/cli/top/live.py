"""The live view: a look every so often, a picture after each, keys in between, and an end that leaves nothing behind.

A gateway that does not answer is asked on; what was seen last stays, marked as old. One whose metrics take long to
write is asked less often: watching takes a quarter of the time at most.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live

from gateway.cli.top.asking import Asking
from gateway.cli.top.keys import read_keys
from gateway.cli.top.picture import Picture
from gateway.cli.top.rates import Window
from gateway.cli.top.reading import picture_of
from gateway.cli.top.screen import screen
from gateway.cli.top.words import ASCII, UNICODE, Paper
from gateway.errors import TurnoutError

__all__ = ["LiveView", "looked", "paper_of"]

SPAN_S = 10.0
"""Rates are told over so much time: a p99 of fewer seconds jumps about."""
_BUSY = 3
_REDRAW_S = 1.0
_PAGE = 10
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


async def looked(asking: Asking, window: Window, routes: Sequence[str]) -> tuple[Window, Picture]:
    """One more look, and the picture with it."""
    look = await asking.look()
    facts = await asking.facts(look)
    window = window.taken(look, span_s=SPAN_S)
    return window, picture_of(window, facts, address=asking.address, at=time.time(), routes=routes)


def paper_of(console: Console, *, height: int | None) -> Paper:
    return Paper(console.width, height, ASCII if console.options.ascii_only else UNICODE)


@dataclass(slots=True)
class LiveView:
    """``picture`` is the newest; ``away`` why there is none newer, in which case ``lost_s`` tells since when."""

    console: Console
    asking: Asking
    every_s: float
    routes: Sequence[str]
    window: Window
    picture: Picture
    away: str = ""
    lost_s: float = 0.0
    first: int = 0
    _ended: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def show(self) -> None:
        """Until q, Ctrl-C or a signal to end."""
        screen_of_its_own = Live(console=self.console, screen=True, auto_refresh=False, redirect_stdout=False)
        with screen_of_its_own as live, read_keys(self._pressed), self._obeyed():
            looking = asyncio.ensure_future(self._look_on())
            looking.add_done_callback(lambda _: self._changed.set())
            try:
                while not self._ended and not looking.done():
                    live.update(self._drawn(), refresh=True)
                    await self._next()
            finally:
                looking.cancel()
        if looking.done() and not looking.cancelled():
            looking.result()  # it never ends by itself, but by a fault

    async def _look_on(self) -> None:
        took = 0.0
        while True:
            await asyncio.sleep(max(self.every_s, _BUSY * took))
            began = time.monotonic()
            try:
                self.window, self.picture = await looked(self.asking, self.window, self.routes)
                self.away, took = "", time.monotonic() - began
            except TurnoutError as trouble:
                self.lost_s = self.lost_s if self.away else began
                self.away = str(trouble)
            self._changed.set()

    async def _next(self) -> None:
        """Something to draw; the time, at least."""
        try:
            async with asyncio.timeout(_REDRAW_S):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def _drawn(self) -> Group:
        paper = paper_of(self.console, height=self.console.height)
        away = self.away and f"for {time.monotonic() - self.lost_s:.0f} s: {self.away}"
        return Group(*screen(self.picture, paper, first=self.first, away=away))

    def _pressed(self, key: str) -> None:
        moves = {"up": -1, "down": 1, "page-up": -_PAGE, "page-down": _PAGE, "home": -self.first}
        self._ended = self._ended or key == "quit"
        self.first = max(0, min(self.first + moves.get(key, 0), len(self.picture.routes) - 1))
        self._changed.set()

    @contextmanager
    def _obeyed(self) -> Iterator[None]:
        """Signals end the view as q does; a terminal of another size is drawn on at once."""
        loop = asyncio.get_running_loop()
        for number in _ENDING:
            loop.add_signal_handler(number, self._pressed, "quit")
        loop.add_signal_handler(signal.SIGWINCH, self._changed.set)
        try:
            yield
        finally:
            for number in (*_ENDING, signal.SIGWINCH):
                loop.remove_signal_handler(number)
