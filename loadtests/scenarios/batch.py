"""A batch beside live traffic: what it costs those who wait, in a process of its own and through the version's queue.

Three stretches a round, the same arrivals in each: nobody else; a batch as ``POST /admin/batch`` runs it; and, for
comparison, the same rows sent as requests of low priority, one after the other, which is what the queue gives to spare
work at best.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from loadtests.cores import shared
from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.measurement import Figure, Outcome
from loadtests.models import CNN
from loadtests.open_loop import Answers, open_loop
from loadtests.scenarios.rounds import Plan, steady_rounds, value_table
from loadtests.servers import place, start_gateway
from loadtests.wrk import closed_loop

__all__ = ["batch"]

RATE, ROWS = 40, 32
_FILE_ROWS = 60_000


def batch(plan: Plan) -> Outcome:
    cores, seconds, live_ask = shared(), max(2 * plan.seconds, 3), CNN.json()
    source = plan.folder / "rows.npy"
    np.save(source, np.resize(CNN.rows(512), (_FILE_ROWS, *CNN.shape)))
    settings = {"batch": {"directories": [str(plan.folder)]}}
    with start_gateway(plan.folder, "batch", cores, settings=settings) as live:
        live.client.timeout = 300.0
        place(live, CNN, plan.folder)

        def arrivals(number: int) -> Answers:
            return open_loop(live.port, live_ask, rate=RATE, seconds=seconds, prefix=cores.client_prefix, seed=number)

        def one(number: int) -> tuple[Answers, Answers, Answers, float, float]:
            arrivals(number)  # what a version learns of its own pace, it learns here
            alone = arrivals(number)
            with job(live, source, plan.folder / f"answers-{number}.npy") as rows:
                before = rows()
                beside = arrivals(number)
                scored = (rows() - before) / seconds
            with low_requests(live, seconds, cores.client_prefix) as sent:
                queued = arrivals(number)
            return alone, beside, queued, scored, sent[0] * ROWS

        steady = steady_rounds(plan, one, lambda found: max(each.late_p99_ms for each in found[:3]))
    work = f"{RATE} requests a second of `cnn` beside a batch of its rows, {ROWS} at once"
    over = [(found[1], found[0]) for found in steady.rounds]
    queue = [(found[2], found[0]) for found in steady.rounds]
    failed = sum(len(each) - each.count(200) for found in steady.rounds for each in found[:2])
    figures = (
        Figure(work, "p99 over p99 alone, a process of its own", _ratios(over), must=1.5, aim=1.2, errors=failed),
        Figure(work, "p99 over p99 alone, through the queue", _ratios(queue)),
        Figure(work, "rows a second meanwhile, own process", tuple(found[3] for found in steady.rounds), "/s"),
        Figure(work, "rows a second meanwhile, through the queue", tuple(found[4] for found in steady.rounds), "/s"),
    )
    head = ("round", *(f"{name} {part} ms" for name in ("alone", "beside", "queued") for part in ("p50", "p99")))
    rows = [
        (number, *(found[place].percentile_ms(part) for place in range(3) for part in (50, 99)))
        for number, found in enumerate(steady.rounds, 1)
    ]
    return Outcome(figures, (value_table(f"{work} ({steady.said()})", head, rows),))


def _ratios(pairs: list[tuple[Answers, Answers]]) -> tuple[float, ...]:
    return tuple(one.percentile_ms(99) / other.percentile_ms(99) for one, other in pairs)


@contextlib.contextmanager
def job(live: LiveGateway, source: Path, target: Path) -> Iterator[Callable[[], int]]:
    """A batch that is answering rows; gives a function that tells how many it has answered."""
    asked = {"version": "cnn/1", "input": str(source), "output": str(target), "batch_rows": ROWS}
    made = live.admin("POST", "/batch", asked)["id"]

    def done() -> int:
        return int(live.admin("GET", f"/jobs/{made}")["progress"]["done"])

    wait_until(done, within_s=120, what="the first rows of the batch")
    yield done
    if live.admin("GET", f"/jobs/{made}")["state"] == "running":
        live.admin("DELETE", f"/jobs/{made}")
    wait_until(lambda: live.admin("GET", f"/jobs/{made}")["state"] not in ("queued", "running"), what="its end")


@contextlib.contextmanager
def low_requests(live: LiveGateway, seconds: float, prefix: Sequence[str]) -> Iterator[list[float]]:
    """One client that sends the batch's rows as requests of low priority; filled with its answers a second."""
    ask = CNN.binary(ROWS)
    low = replace(ask, headers={**ask.headers, "x-priority": "low"})
    rates = [0.0]

    def run() -> None:
        load = closed_loop(live.port, low, clients=1, seconds=seconds, prefix=prefix)
        rates[0] = load.good / load.seconds

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield rates
    finally:
        thread.join()
