"""The demo's story, step by step: a canary that fails and the guard that takes it off, an operator who goes on, and a
rollout that climbs by evidence until its answers turn wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from gateway.cli.backend import Backend
from gateway.cli.demo.screen import Screen
from gateway.cli.demo.watch import Watch
from gateway.cli.failures import CommandFailed
from gateway.control.rollout_report_text import report_text
from gateway.errors import NotFound

__all__ = ["FAST", "NORMAL", "Pace", "Story"]

PLAN: Mapping[str, Any] = {
    "steps": [{"weight": 10, "min_s": 1, "min_requests": 10}, {"weight": 30, "min_s": 4, "min_requests": 10}, 60],
    "shadow": {"share": 0.3, "min_pairs": 30, "min_s": 1},
    "max_harm": {"error": 0.2, "slow": 0.5},
    "max_disagreement": 0.25,
}
"""As careful as a few seconds of traffic allow: the default plan excludes 2% more errors, and takes its time."""
BACK_AT = 30.0
"""The percent at which version 5 begins to go wrong."""
GUARD_S = 60.0
SETTLE_S = 180.0


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds for each part of the story, and requests a second."""

    steady_s: float
    canary_s: float
    after_s: float
    operator_s: float
    rate: float


NORMAL = Pace(steady_s=4.0, canary_s=4.0, after_s=3.0, operator_s=2.5, rate=160.0)
FAST = Pace(steady_s=1.0, canary_s=1.0, after_s=1.0, operator_s=0.6, rate=160.0)


@dataclass(slots=True)
class Story:
    """``table`` is the file that version 4 reads for each batch; it is deleted when the story wants it to fail.
    ``other`` is that of version 5, and is written upside down."""

    route: str
    backend: Backend
    screen: Screen
    watch: Watch
    table: Path
    other: Path
    pace: Pace

    async def tell(self) -> None:
        """From steady traffic to the end. CommandFailed when the gateway does not do what the story says."""
        await asyncio.sleep(self.pace.steady_s)
        self.screen.snapshot()
        await self._canary()
        await self._failure()
        await self._operator()
        await self._rollout()
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
        await self.backend.rollback(self.route, to=None, reason="release freeze is over")
        await asyncio.sleep(self.pace.operator_s)

    async def _rollout(self) -> None:
        """Nobody moves a weight by hand, up or down."""
        self.screen.event("operator: turnout rollout digits 5   (version 4, repaired; shadow, 10%, 30%, 60%)", "bold")
        began = await self.backend.start_rollout(self.route, {"candidate": 5, **PLAN}, expected=None)
        await self._until(lambda: self._stands("stepping", BACK_AT), "the rollout to climb")
        await asyncio.sleep(min(1.0, self.pace.after_s))
        self.screen.evidence_snapshot()
        errors, broken = self.watch.tally.errors, time.time()
        words = "its table is written upside down: it answers every request, status 200, with the wrong digit"
        self.screen.event(words, "bold red")
        self.other.write_text(json.dumps(json.loads(self.other.read_text("utf-8"))[::-1]), encoding="utf-8")
        await self._until(lambda: self._stands("rolled-back"), "the evidence to take version 5 back")
        took = float(self.watch.rollout["ended_at"]) - broken
        harm, errors = self.watch.rollout["harm"], self.watch.tally.errors - errors
        told = f"the rollout took version 5 back by itself after {took:.1f} s, by {harm}; {errors} errors to be seen"
        self.screen.event(told, "bold green")
        self.screen.evidence(Text(report_text(await self._report(began["rollout"]["id"])).rstrip()))
        self.screen.evidence_snapshot()
        await asyncio.sleep(self.pace.after_s)

    def _stands(self, phase: str, percent: float = 0.0) -> bool:
        found = self.watch.rollout
        return found.get("candidate") == 5 and found["phase"] == phase and found["percent"] >= percent

    async def _report(self, rollout: str) -> Mapping[str, Any]:
        """It is written within a second of the end."""
        async with asyncio.timeout(SETTLE_S):
            while True:
                try:
                    return await self.backend.rollout_report(self.route, rollout)
                except NotFound:
                    await self.watch.next_look()

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
