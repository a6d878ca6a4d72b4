"""Many runs of one plan against candidates of several kinds, each on requests of its own, in one process or several.

Run n meets the same requests whichever candidate it is tried with and whichever rule decides, so that
differences between rows are differences between candidates; and the same for the same seed,
however many processes share the work.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from gateway.control.simulation.arrivals import KEY_SPACE, Arrivals, Traffic, made_up
from gateway.control.simulation.replay import Conduct, replay
from gateway.control.simulation.rivals import LOOKS, RIVALS, compete
from gateway.control.simulation.runs import Run, Stage
from gateway.control.simulation.world import World, drawn

__all__ = ["OURS", "Sweep", "Trials", "swept"]

OURS = "evidence"
"""What decides in a rollout, beside the names of ``RIVALS``."""

Trials = Mapping[str, Sequence[Run]]
"""Who decided to how its runs went."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """``worlds``: what is tried; ``rivals``: names of ``RIVALS`` that are tried on the same requests, looking every
    ``look_s`` seconds (None: so that their looks fill the stream)."""

    conduct: Conduct
    source: Traffic | Arrivals
    worlds: tuple[World, ...]
    runs: int = 200
    seed: int = 1
    rivals: tuple[str, ...] = ()
    look_s: float | None = None


def swept(sweep: Sweep, *, jobs: int = 1, done: Callable[[int], None] = lambda _: None) -> list[Trials]:
    """The trials of each world, in order. ``done`` is told of every run that has ended. Blocks until all have."""
    tasks = [(world, run) for run in range(sweep.runs) for world in range(len(sweep.worlds))]
    found: dict[tuple[int, int], Mapping[str, Run]] = {}
    for task, runs in zip(tasks, _all(partial(_one, sweep), tasks, jobs), strict=True):
        found[task] = runs
        done(1)
    names = (OURS, *sweep.rivals)
    return [
        {name: [found[world, run][name] for run in range(sweep.runs)] for name in names}
        for world in range(len(sweep.worlds))
    ]


Task = tuple[int, int]


def _all(work: Callable[[Task], Mapping[str, Run]], tasks: Sequence[Task], jobs: int) -> Iterator[Mapping[str, Run]]:
    if jobs <= 1:
        yield from map(work, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(work, tasks, chunksize=4)


def _one(sweep: Sweep, task: Task) -> Mapping[str, Run]:
    """One run in one world, by each who decides."""
    world, run = sweep.worlds[task[0]], task[1]
    draw = np.random.default_rng([sweep.seed, run])
    arrivals = made_up(sweep.source, draw) if isinstance(sweep.source, Traffic) else sweep.source
    places = draw.integers(KEY_SPACE, size=arrivals.key_count)[arrivals.keys]
    plan = sweep.conduct.plan
    copied = draw.random(len(arrivals.times_s)) < (0.0 if plan.shadow is None else plan.shadow.share)
    stage = Stage(arrivals, places, drawn(arrivals, world, draw))
    runs = {OURS: replay(stage, sweep.conduct, copied)}
    look_s = sweep.look_s or arrivals.length_s / LOOKS
    percents = [step.weight for step in plan.climb]
    return runs | {name: compete(RIVALS[name], stage, percents, look_s) for name in sweep.rivals}
