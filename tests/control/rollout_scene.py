"""Rollouts on a scene: a quick plan, scripted versions, traffic and time moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from gateway.clock import ManualClock
from gateway.errors import ModelError
from gateway.messages import Arrays
from gateway.serving.scripted_engine import double
from tests.control.scene import MODEL, Scene, threads_done

__all__ = ["QUICK", "begin", "broken", "passed", "report", "sometimes", "traffic", "until_phase", "wrong"]

QUICK: dict[str, Any] = {
    "candidate": 2,
    "steps": [{"weight": 20, "min_requests": 20, "min_s": 1}, {"weight": 50, "min_requests": 20, "min_s": 1}],
    "shadow": None,
    "max_harm": {"error": 0.2},
    "bake": {"holdback": 20, "min_s": 1, "min_requests": 20},
}


def sometimes(every: int) -> Callable[[Arrays], Arrays]:
    """Raises on each ``every``-th request, beginning with the first."""
    count = iter(range(10**9))

    def model(inputs: Arrays) -> Arrays:
        if next(count) % every == 0:
            raise ModelError("it is broken")
        return double(inputs)

    return model


def broken(_: Arrays) -> Arrays:
    raise ModelError("it is broken")


def wrong(inputs: Arrays) -> Arrays:
    return {name: value + 1 for name, value in double(inputs).items()}


async def begin(stage: Scene, **changes: Any) -> dict[str, Any]:
    await stage.put({1: 100}, fallback=1, known_good=1)
    return await stage.plane.rollouts.start(MODEL, QUICK | changes, actor="olga")


async def traffic(stage: Scene, clock: ManualClock, *, rounds: int, each: int = 20) -> None:
    """Requests, then a quarter of a second, again and again; what runs beside gets its turns."""
    for _ in range(rounds):
        for _ in range(each):
            await stage.predict()
        await passed(clock)


async def passed(clock: ManualClock, seconds: float = 0.25) -> None:
    """What runs beside gets its turns, and is waited for where it works in a thread: time by this clock does not pass
    while a disk is slow."""
    clock.advance(seconds)
    for turn in range(40):
        await asyncio.sleep(0 if turn % 10 else 0.001)
        if turn % 4 == 3:
            await threads_done()


async def until_phase(
    stage: Scene, clock: ManualClock, phase: str, *, rounds: int = 400, each: int = 20
) -> dict[str, Any]:
    for _ in range(rounds):
        view = await stage.plane.rollouts.get(MODEL)
        if view["rollout"]["phase"] == phase:
            return view
        await traffic(stage, clock, rounds=1, each=each)
    raise AssertionError(f"it is {view['rollout']['phase']}, not {phase}: {view.get('live')}")


async def report(stage: Scene, clock: ManualClock) -> dict[str, Any]:
    for _ in range(100):
        if found := await stage.plane.rollouts.reports(MODEL):
            return await stage.plane.rollouts.report(MODEL, found[0]["id"])
        await passed(clock, 0.5)
    raise AssertionError("no report was written")
