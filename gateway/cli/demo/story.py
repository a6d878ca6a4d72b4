"""The demo's story, step by step: a canary that goes wrong, a guard that takes it off, an operator who goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.backend import Backend
from gateway.cli.demo.screen import Screen
from gateway.cli.demo.watch import Watch
from gateway.cli.failures import CommandFailed

__all__ = ["FAST", "NORMAL", "Pace", "Story"]

GUARD_S = 15.0
SETTLE_S = 60.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds for each part of the story, and requests a second."""

    steady_s: float
    canary_s: float
    after_s: float
    operator_s: float
    rate: float


NORMAL = Pace(steady_s=5.0, canary_s=6.0, after_s=5.0, operator_s=4.0, rate=160.0)
FAST = Pace(steady_s=1.0, canary_s=1.0, after_s=1.0, operator_s=0.6, rate=160.0)


@dataclass(slots=True)
class Story:
    """``table`` is the file that version 4 reads for each batch; it is deleted when the story wants it to fail."""

    route: str
    backend: Backend
    screen: Screen
    watch: Watch
    table: Path
    pace: Pace

    async def tell(self) -> None:
        """From steady traffic to the end. CommandFailed when the gateway does not do what the story says."""
        await asyncio.sleep(self.pace.steady_s)
        self.screen.snapshot()
        await self._canary()
        await self._failure()
        await self._operator()
        self.screen.snapshot()

    async def _canary(self) -> None:
        self.screen.event("operator: version 4 becomes a canary and gets 5%", "bold")
        await self.backend.weights(self.route, {1: 40, 2: 30, 3: 25, 4: 5}, expected=None)
        await self._until(lambda: 4 in self.watch.tally.by_version, "version 4 to answer")
        await asyncio.sleep(self.pace.canary_s)
        self.screen.snapshot()

    async def _failure(self) -> None:
        self.screen.event("the table that version 4 reads is gone: from now on it raises on every request", "bold red")
        self.watch.tally.first_fallback_wall = None
        self.table.unlink()
        try:
            async with asyncio.timeout(GUARD_S):
                await self.watch.guard_acted.wait()
        except TimeoutError:
            raise CommandFailed(f"the guard did not act within {GUARD_S:.0f} s; {self.watch.footer()}") from None
        self.screen.event(self._guard_text(self.watch.guard_record or {}), "bold green")
        await asyncio.sleep(self.pace.after_s)
        self.screen.event(self._clients_text(), "bold green")
        self.screen.snapshot()

    def _guard_text(self, record: Mapping[str, Any]) -> str:
        began = self.watch.tally.first_fallback_wall
        took = "" if began is None else f" {max(0.0, float(record['at']) - began):.2f} s after the first failure"
        return f"the guard took version 4 off the route by itself{took}"

    def _clients_text(self) -> str:
        tally = self.watch.tally
        return f"clients saw {tally.errors} errors: the fallback answered {tally.fallbacks} requests in time"

    async def _operator(self) -> None:
        view = await self.backend.route(self.route)
        held = [int(number) for number in view["status"]["quarantined"] if int(number) != 4]
        words = " and ".join(map(str, sorted(held))) or "the others"
        self.screen.event(f"operator: {words} did nothing wrong; they share the traffic again", "bold")
        for number in sorted(held):
            await self.backend.lift(self.route, number)
        await self._split({1: 40, 2: 30, 3: 30})
        await asyncio.sleep(self.pace.operator_s)
        self.screen.event("operator: back to the known good, at once", "bold")
        await self.backend.rollback(self.route, to=None, reason="the demo ends")
        await asyncio.sleep(self.pace.operator_s)

    async def _split(self, weights: Mapping[int, int]) -> None:
        """New weights, once every version in them is loaded."""
        await self.backend.weights(self.route, weights, expected=None)
        seen = dict(self.watch.tally.by_version)
        await self._until(
            lambda: _all_moved(weights, seen, self.watch.tally.by_version), f"answers from {list(weights)}"
        )

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(SETTLE_S):
                while not condition():
                    await self.watch.next_look()
        except TimeoutError:
            raise CommandFailed(f"waited {SETTLE_S:.0f} s for {what}; {self.watch.footer()}") from None


def _all_moved(numbers: Iterable[int], before: Mapping[int, int], after: Mapping[int, int]) -> bool:
    return all(after.get(number, 0) > before.get(number, 0) for number in numbers)
