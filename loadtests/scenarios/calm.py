"""Latency while something presses: big bodies, a full queue, a version that loads."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from loadtests.cores import pinned, shared
from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.measurement import Ask, ClosedLoop, Figure, Outcome
from loadtests.models import IMAGE, STEP, TINY, make_big
from loadtests.open_loop import BROKEN, Answers, OpenLoop, open_loop
from loadtests.scenarios.rounds import Plan, value_table
from loadtests.servers import Server, gateway, place, start_gateway
from loadtests.wrk import closed_loop

__all__ = ["big_bodies", "loading", "overload", "step"]

STEP_MS = 20
DEADLINE_MS = 200
_TIMES = (2, 5, 10)
_FILL_S = 0.5


def faults(answers: Answers) -> int:
    return len(answers) - answers.count(200)


def big_bodies(plan: Plan) -> Outcome:
    """200 small requests a second (Poisson); beside them one client that sends 16 MB bodies without a pause."""
    cores, big, seconds = shared(), IMAGE.json(10), 2 * plan.seconds
    ratios, rows, failed = [], [], 0
    with gateway(plan.folder, "bodies", cores, [TINY, IMAGE]) as server:
        server.closed(big, clients=1, seconds=1)
        for number in range(plan.rounds):
            alone = trickle(server, seconds, number)
            with stream(server, big, seconds) as bodies:
                beside = trickle(server, seconds, number)
            sent = bodies[0]
            ratios.append(beside.percentile_ms(99) / alone.percentile_ms(99))
            failed += faults(alone) + faults(beside) + sent.refused + sent.broken + (sent.good == 0)
            rows.append((number + 1, alone.percentile_ms(99), beside.percentile_ms(99), sent.good / sent.seconds))
    work = f"small requests beside a stream of {len(big.body) / 1e6:.1f} MB JSON bodies, two cores free"
    figure = Figure(work, "p99 over p99 alone", tuple(ratios), must=3, aim=1.5, errors=failed)
    head = ("round", "p99 alone ms", "p99 beside ms", "big bodies/s")
    return Outcome((figure,), (value_table(work, head, rows),))


def trickle(server: Server, seconds: float, seed: int) -> Answers:
    return open_loop(server.port, TINY.json(), rate=200, seconds=seconds, prefix=server.cores.client_prefix, seed=seed)


@contextlib.contextmanager
def stream(server: Server, ask: Ask, seconds: float) -> Iterator[list[ClosedLoop]]:
    """One client's requests, one after the other, while the block runs; what came of them is there at its end."""
    found: list[ClosedLoop] = []

    def send() -> None:
        prefix = server.cores.client_prefix
        found.append(closed_loop(server.port, ask, clients=1, seconds=seconds + 1, prefix=prefix))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        time.sleep(0.5)
        yield found
    finally:
        thread.join()


def step(plan: Plan) -> Outcome:
    cores, seconds = shared(), max(plan.seconds, 2)
    ratios, rows, failed = [], [], 0
    with gateway(plan.folder, "step", cores, [STEP]) as server:
        for number in range(plan.rounds):
            capacity = server.closed(STEP.json(), clients=128, seconds=seconds).per_second
            rate = 0.8 * capacity
            answers = open_loop(
                server.port, STEP.json(), rate=rate, seconds=seconds, prefix=cores.client_prefix, seed=number
            )
            ratios.append(answers.percentile_ms(99) / STEP_MS)
            failed += faults(answers)
            percentiles = (answers.percentile_ms(50), answers.percentile_ms(99))
            rows.append((number + 1, capacity, rate, *percentiles, answers.late_p99_ms))
    work = "20 ms model, Poisson arrivals at 80% of capacity, two cores free"
    figure = Figure(work, "p99 over the 20 ms", tuple(ratios), must=4, aim=3, errors=failed)
    head = ("round", "capacity/s", "arrivals/s", "p50 ms", "p99 ms", "client late p99 ms")
    return Outcome((figure,), (value_table(work, head, rows),))


def overload(plan: Plan) -> Outcome:
    """The 20 ms step with four rows a batch: about 200 a second, so that ten times that asks for no bigger client than
    the machine has. The best is taken over all loads of a round, the closed loop that finds the capacity included."""
    goodput: dict[int, list[float]] = {times: [] for times in _TIMES}
    refusal: dict[int, list[float]] = {times: [] for times in _TIMES}
    rows = []
    with gateway(plan.folder, "overload", pinned(), [STEP], max_rows=4) as server:
        for number in range(plan.rounds):
            capacity = server.closed(STEP.json(), clients=16, seconds=max(plan.seconds, 2)).per_second
            reached = {0: capacity}
            for times in (1, *_TIMES):
                load = flood(server, times * capacity, plan, number)
                reached[times] = load.within(DEADLINE_MS) / max(plan.seconds, 2)
                refused = load.percentile_ms(99, status=429)
                counts = tuple(load.count(status) for status in (200, 429, 504, 503, BROKEN))
                latencies = (load.percentile_ms(99), refused, load.late_p99_ms)
                rows.append((number + 1, times, reached[times], *counts, *latencies))
                if times in refusal:
                    refusal[times].append(refused)
            for times in _TIMES:
                goodput[times].append(100 * reached[times] / max(reached.values()))
    work = f"{STEP_MS} ms model, deadline {DEADLINE_MS} ms"
    figures = []
    for times in _TIMES:
        at = f"{work}, arrivals at {times} times capacity"
        figures.append(Figure(at, "goodput over the best", tuple(goodput[times]), "%", 90, 95, at_least=True))
        figures.append(Figure(at, "time to a 429, p99", tuple(refusal[times]), "ms", 5, 2))
    statuses = ("200", "429", "504", "503", "broken")
    head = ("round", "times", "in time/s", *statuses, "200 p99 ms", "429 p99 ms", "client late p99 ms")
    return Outcome(tuple(figures), (value_table(work, head, rows),))


def flood(server: Server, rate: float, plan: Plan, seed: int) -> Answers:
    """What was sent after the queue had filled: the first half second flatters."""
    plain, seconds = STEP.json(), _FILL_S + max(plan.seconds, 2)
    ask = replace(plain, headers={**plain.headers, "x-timeout-ms": str(DEADLINE_MS)})
    answers = open_loop(server.port, ask, rate=rate, seconds=seconds, prefix=server.cores.client_prefix, seed=seed)
    time.sleep(_FILL_S)
    return answers.during(_FILL_S, seconds)


def loading(plan: Plan) -> Outcome:
    """Load means: from the write of the route that names the version to its being active, warm-up included."""
    cores = shared()
    steady_s = max(plan.seconds, 3)
    ratios, rows, failed = [], [], 0
    big = make_big(plan.folder / "big.onnx")
    with start_gateway(plan.folder, "loading", cores) as live:
        place(live, TINY, plan.folder)
        source = {"source": f"file:{big}", "verify": False}
        version = int(live.admin("POST", "/models/big/versions", source, timeout=300.0)["version"])
        server = Server("process", live.pid, live.port, cores)
        rate = 0.3 * server.closed(TINY.json(), clients=64, seconds=steady_s).per_second
        for number in range(plan.rounds):
            seconds = steady_s + 10
            with OpenLoop(
                live.port, TINY.json(), rate=rate, seconds=seconds, prefix=cores.client_prefix, seed=number
            ) as load:
                time.sleep(max(0.0, load.began + steady_s - time.monotonic()))
                begin = time.monotonic() - load.began
                load_big(live, version)
                end = time.monotonic() - load.began
                answers = load.answers()
            during, steady = answers.during(begin, end), answers.during(0.5, begin)
            ratios.append(during.percentile_ms(99) / steady.percentile_ms(99))
            failed += faults(answers)
            rows.append((number + 1, rate, end - begin, steady.percentile_ms(99), during.percentile_ms(99)))
            unload_big(live)
    work = "loading a 500 MB version beside open-loop traffic at 30% of capacity, two cores free"
    figure = Figure(work, "p99 during over steady", tuple(ratios), must=1.3, aim=1.1, errors=failed)
    head = ("round", "arrivals/s", "load s", "p99 steady ms", "p99 during ms")
    return Outcome((figure,), (value_table(work, head, rows),))


def load_big(live: LiveGateway, version: int) -> None:
    """Returns when the version is active."""
    spec = {"model": "big", "split": [{"version": version, "weight": 100}]}
    live.admin("PUT", "/routes/big?wait=applied", spec, timeout=120.0)


def unload_big(live: LiveGateway) -> None:
    live.admin("DELETE", "/routes/big")
    wait_until(lambda: "big/1" not in live.resident(), what="the unloaded version's end")
