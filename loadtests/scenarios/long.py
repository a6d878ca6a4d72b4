"""A soak: hours at 70% of capacity, and whether memory grows or anything fails."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from loadtests.cores import shared
from loadtests.measurement import Figure, Outcome
from loadtests.models import TINY
from loadtests.open_loop import OpenLoop
from loadtests.scenarios.rounds import Plan, value_table
from loadtests.servers import gateway
from loadtests.usage import usage

__all__ = ["growth_percent", "soak"]

_SETTLED_S = 300.0
_PIECE_S = 60.0
_READ_S = 5.0


def soak(plan: Plan) -> Outcome:
    """In pieces of a minute. Growth counts from the sixth minute on, in a short soak after the first tenth."""
    cores, total = shared(), plan.soak_minutes * 60
    readings: list[tuple[float, float]] = []
    failed, asked, number = 0, 0, 0
    with gateway(plan.folder, "soak", cores, [TINY]) as server:
        rate = 0.7 * server.closed(TINY.json(), clients=64, seconds=5).per_second
        began = time.monotonic()
        while (passed := time.monotonic() - began) < total:
            number += 1
            piece = min(_PIECE_S, max(2.0, total - passed))
            load = OpenLoop(server.port, TINY.json(), rate=rate, seconds=piece, prefix=cores.client_prefix, seed=number)
            with load:
                while time.monotonic() < load.began + piece:
                    readings.append((time.monotonic() - began, usage(server.pid).resident_mb))
                    time.sleep(min(_READ_S, piece / 2))
                answers = load.answers()
            asked += len(answers)
            failed += len(answers) - answers.count(200)
    growth = growth_percent(readings, settled_s=min(_SETTLED_S, total / 10))
    work = f"{plan.soak_minutes:g} minutes' soak at 70% load ({rate:,.0f} requests/s, {asked:,} requests)"
    figures = (
        Figure(work, "memory growth after the first five minutes", (growth,), "%", 2, 2),
        Figure(work, "errors", (float(failed),), must=0, aim=0),
    )
    every = max(1, len(readings) // 20)
    rows = [(at / 60, size) for at, size in readings[::every]]
    return Outcome(figures, (value_table(work, ("minute", "RSS MB, all processes"), rows),))


def growth_percent(readings: Sequence[tuple[float, float]], *, settled_s: float) -> float:
    """Of (seconds, megabytes): the last tenth's median over that of the first tenth after ``settled_s``."""
    sizes = [size for at, size in readings if at >= settled_s]
    if not sizes:
        raise ValueError(f"no reading after {settled_s:g} s: a soak must last longer")
    tenth = max(1, len(sizes) // 10)
    return 100 * (statistics.median(sizes[-tenth:]) / statistics.median(sizes[:tenth]) - 1)
