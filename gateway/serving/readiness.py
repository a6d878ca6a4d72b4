"""Whether a version would answer if asked now: a self-inference went through the real queue lately.

Every good batch counts; a version that had none for an interval is probed. So ``ready`` cannot
stay true for a version whose queue is stuck, whose child hangs, or whose model began to raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from gateway.clock import Clock, Timer
from gateway.errors import InvalidInput, TurnoutError

__all__ = ["Readiness"]


class Readiness:
    """Watches one version. ``probe`` sends one request through its queue and raises what that met."""

    def __init__(self, probe: Callable[[], Awaitable[None]], *, clock: Clock, interval_s: float) -> None:
        self._probe = probe
        self._clock = clock
        self._interval_s = interval_s
        self._last_good = clock.monotonic()
        self._problem = ""
        self._timer: Timer | None = None
        self._probing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        age = self._clock.monotonic() - self._last_good
        return f"<Readiness [{self._problem or 'ready'} | last answer {age:.1f} s ago]>"

    @property
    def problem(self) -> str:
        """Why the version is not ready; empty when it is."""
        return self._problem

    def succeeded(self) -> None:
        """A batch went through."""
        self._last_good = self._clock.monotonic()
        self._problem = ""

    def start(self) -> None:
        """Begins to watch; the version has just proved itself."""
        self.succeeded()
        self._schedule()

    async def stop(self) -> None:
        """Ends the watch and a probe under way."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.cancel()
            await asyncio.wait({probing})

    def _schedule(self) -> None:
        self._timer = self._clock.call_at(self._clock.monotonic() + self._interval_s, self._tick)

    def _tick(self) -> None:
        idle_s = self._clock.monotonic() - self._last_good
        if idle_s >= self._interval_s and (self._probing is None or self._probing.done()):
            self._probing = asyncio.ensure_future(self._ask())
        self._schedule()

    async def _ask(self) -> None:
        try:
            await self._probe()
        except InvalidInput:
            self.succeeded()  # made-up input, refused by the model itself: an answer all the same
        except TurnoutError as failure:
            self._problem = f"self-inference failed: {type(failure).__name__}: {failure}"
        else:
            self.succeeded()
