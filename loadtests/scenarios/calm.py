"""Latency while something presses: big bodies, a full queue, a version that loads."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from loadtests.cores import pinned, shared
from loadtests.live_gateway import LiveGateway, wait_until
from loadtests.measurement import Ask, ClosedLoop, Figure, Outcome
from loadtests.models import IMAGE, STEP, TINY, make_big
from loadtests.open_loop import BROKEN, Answers, OpenLoop, open_loop
from loadtests.scenarios.rounds import Plan, steady_rounds, value_table
from loadtests.servers import Server, gateway, place, start_gateway
from loadtests.wrk import closed_loop

__all__ = ["big_bodies", "loading", "overload", "step"]

STEP_MS = 20
DEADLINE_MS = 200
_TIMES = (2, 5, 10)
OVERLOAD_ROWS = 4
_FILL_S = 0.5
_STAND_IN_S = 2.5
_STAND_INS = {
    "computes and touches no memory": "n = 1\nwhile True: n = n * 3 % 65537",
    "takes, fills and gives back memory": "a = bytes(250 << 20)\nwhile True: b = bytearray(a)",
}
"""What a load does to its neighbours, a half each, as programs of the idle class, in which a load runs."""

_LATE_TWICE = ("client late p99 ms", "late beside ms")


def faults(answers: Answers) -> int:
    return len(answers) - answers.count(200)


def big_bodies(plan: Plan) -> Outcome:
    """200 small requests a second (Poisson); beside them one client that sends 16 MB bodies without a pause."""
    cores, big, seconds = shared(), IMAGE.json(10), 2 * plan.seconds
    with gateway(plan.folder, "bodies", cores, [TINY, IMAGE]) as server:
        server.closed(big, clients=1, seconds=1)

        def one(number: int) -> tuple[Answers, Answers, ClosedLoop]:
            alone = trickle(server, seconds, number)
            with stream(server, big, seconds) as bodies:
                beside = trickle(server, seconds, number)
            return alone, beside, bodies[0]

        steady = steady_rounds(plan, one, lambda found: max(found[0].late_p99_ms, found[1].late_p99_ms))
    ratios, rows, failed = [], [], 0
    for number, (alone, beside, sent) in enumerate(steady.rounds, 1):
        ratios.append(beside.percentile_ms(99) / alone.percentile_ms(99))
        failed += faults(alone) + faults(beside) + sent.refused + sent.broken + (sent.good == 0)
        percentiles = (each.percentile_ms(percent) for percent in (50, 99) for each in (alone, beside))
        rows.append((number, *percentiles, sent.good / sent.seconds, alone.late_p99_ms, beside.late_p99_ms))
    work = f"small requests beside a stream of {len(big.body) / 1e6:.1f} MB JSON bodies, two cores free"
    figure = Figure(work, "p99 over p99 alone", tuple(ratios), must=3, aim=1.5, errors=failed)
    head = ("round", "p50 alone ms", "p50 beside ms", "p99 alone ms", "p99 beside ms", "big bodies/s", *_LATE_TWICE)
    return Outcome((figure,), (value_table(f"{work} ({steady.said()})", head, rows),))


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
    with gateway(plan.folder, "step", cores, [STEP]) as server:

        def one(number: int) -> tuple[float, Answers]:
            capacity = server.closed(STEP.json(), clients=128, seconds=seconds).per_second
            rate, prefix = 0.8 * capacity, cores.client_prefix
            return capacity, open_loop(server.port, STEP.json(), rate=rate, seconds=seconds, prefix=prefix, seed=number)

        steady = steady_rounds(plan, one, lambda found: found[1].late_p99_ms)
    ratios, rows, failed = [], [], 0
    for number, (capacity, answers) in enumerate(steady.rounds, 1):
        ratios.append(answers.percentile_ms(99) / STEP_MS)
        failed += faults(answers)
        percentiles = (answers.percentile_ms(50), answers.percentile_ms(99))
        rows.append((number, capacity, 0.8 * capacity, *percentiles, answers.late_p99_ms))
    work = "20 ms model, Poisson arrivals at 80% of capacity, two cores free"
    figure = Figure(work, "p99 over the 20 ms", tuple(ratios), must=4, aim=3, errors=failed)
    head = ("round", "capacity/s", "arrivals/s", "p50 ms", "p99 ms", "client late p99 ms")
    return Outcome((figure,), (value_table(f"{work} ({steady.said()})", head, rows),))


def overload(plan: Plan) -> Outcome:
    """The 20 ms step with four rows a batch: about 200 a second, so that ten times that asks for no bigger client than
    the machine has. The best is taken over all loads of a round, the closed loop that finds the capacity included."""
    seconds = max(plan.seconds, 2)
    with gateway(plan.folder, "overload", pinned(), [STEP], max_rows=OVERLOAD_ROWS) as server:

        def one(number: int) -> Overload:
            capacity = server.closed(STEP.json(), clients=4 * OVERLOAD_ROWS, seconds=seconds).per_second
            loads = {times: flood(server, times * capacity, plan, number) for times in (1, *_TIMES)}
            return Overload(capacity, loads, seconds)

        steady = steady_rounds(plan, one, lambda found: max(load.late_p99_ms for load in found.loads.values()))
    work = f"{STEP_MS} ms model, deadline {DEADLINE_MS} ms"
    figures = []
    for times in _TIMES:
        at = f"{work}, arrivals at {times} times capacity"
        shares = tuple(found.share_percent(times) for found in steady.rounds)
        refused = tuple(found.loads[times].percentile_ms(99, status=429) for found in steady.rounds)
        figures.append(Figure(at, "goodput over the best", shares, "%", 90, 95, at_least=True))
        figures.append(Figure(at, "time to a 429, p99", refused, "ms", 5, 2))
    rows = [row for number, found in enumerate(steady.rounds, 1) for row in found.rows(number)]
    statuses = ("200", "429", "504", "503", "broken")
    head = ("round", "times", "in time/s", *statuses, "200 p99 ms", "429 p50 ms", "429 p99 ms", "client late p99 ms")
    return Outcome(tuple(figures), (value_table(f"{work} ({steady.said()})", head, rows),))


@dataclass(frozen=True, slots=True)
class Overload:
    """One round: answers by how many times the capacity arrived."""

    capacity: float
    loads: Mapping[int, Answers]
    seconds: float

    def goodput(self, times: int) -> float:
        return self.loads[times].within(DEADLINE_MS) / self.seconds

    def share_percent(self, times: int) -> float:
        """Of the best that any load of the round reached."""
        return 100 * self.goodput(times) / max(self.capacity, *(self.goodput(each) for each in self.loads))

    def rows(self, number: int) -> Iterator[tuple[object, ...]]:
        for times, load in self.loads.items():
            counts = tuple(load.count(status) for status in (200, 429, 504, 503, BROKEN))
            refused = (load.percentile_ms(50, status=429), load.percentile_ms(99, status=429))
            yield number, times, self.goodput(times), *counts, load.percentile_ms(99), *refused, load.late_p99_ms


def flood(server: Server, rate: float, plan: Plan, seed: int) -> Answers:
    """What was sent after the queue had filled: the first half second flatters."""
    plain, seconds = STEP.json(), _FILL_S + max(plan.seconds, 2)
    ask = replace(plain, headers={**plain.headers, "x-timeout-ms": str(DEADLINE_MS)})
    answers = open_loop(server.port, ask, rate=rate, seconds=seconds, prefix=server.cores.client_prefix, seed=seed)
    time.sleep(_FILL_S)
    return answers.during(_FILL_S, seconds)


def loading(plan: Plan) -> Outcome:
    """Load means: from the write of the route that names the version to its being active, warm-up included. Beside it,
    to tell why: the same traffic beside programs that do but a part of what a load does."""
    cores = shared()
    steady_s = max(plan.seconds, 3)
    big = make_big(plan.folder / "big.onnx")
    with start_gateway(plan.folder, "loading", cores) as live:
        place(live, TINY, plan.folder)
        source = {"source": f"file:{big}", "verify": False}
        version = int(live.admin("POST", "/models/big/versions", source, timeout=300.0)["version"])
        server = Server("process", live.pid, live.port, cores)
        rate = 0.3 * server.closed(TINY.json(), clients=64, seconds=steady_s).per_second

        def one(number: int) -> Loading:
            load = OpenLoop(
                live.port, TINY.json(), rate=rate, seconds=steady_s + 10, prefix=cores.client_prefix, seed=number
            )
            with load:
                time.sleep(max(0.0, load.began + steady_s - time.monotonic()))
                begin = time.monotonic() - load.began
                load_big(live, version)
                end = time.monotonic() - load.began
                answers = load.answers()
            unload_big(live)
            before, meanwhile = answers.during(0.5, begin), answers.during(begin, end)
            others = {what: beside(program, number) for what, program in _STAND_INS.items()}
            return Loading(before, meanwhile, faults(answers), end - begin, others)

        def beside(program: str, seed: int) -> float:
            """Its p99 over that before it."""
            seconds = steady_s + _STAND_IN_S
            load = OpenLoop(
                live.port, TINY.json(), rate=rate, seconds=seconds, prefix=cores.client_prefix, seed=seed + 1000
            )
            with load:
                time.sleep(max(0.0, load.began + steady_s - time.monotonic()))
                with idle_program(program):
                    answers = load.answers()
            found = answers.during(steady_s + 0.5, seconds), answers.during(0.5, steady_s)
            return found[0].percentile_ms(99) / found[1].percentile_ms(99)

        steady = steady_rounds(plan, one, lambda found: max(found.before.late_p99_ms, found.meanwhile.late_p99_ms))
    ratios = tuple(found.meanwhile.percentile_ms(99) / found.before.percentile_ms(99) for found in steady.rounds)
    rows = [(number, rate, *found.row()) for number, found in enumerate(steady.rounds, 1)]
    work = "loading a 500 MB version beside open-loop traffic at 30% of capacity, two cores free"
    failed = sum(found.faults for found in steady.rounds)
    figure = Figure(work, "p99 during over steady", ratios, must=1.3, aim=1.1, errors=failed)
    parts = tuple(
        Figure(f"the same traffic beside an idle-class program that {what}", "p99 during over steady", shares)
        for what in _STAND_INS
        for shares in [tuple(found.beside[what] for found in steady.rounds)]
    )
    head = ("round", "arrivals/s", "load s", "p99 steady ms", "p99 during ms", *_LATE_TWICE)
    return Outcome((figure, *parts), (value_table(f"{work} ({steady.said()})", head, rows),))


@contextlib.contextmanager
def idle_program(program: str) -> Iterator[None]:
    """Python that runs for as long as nobody else wants the processor."""
    start = f"import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n{program}"
    process = subprocess.Popen([sys.executable, "-c", start])
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


@dataclass(frozen=True, slots=True)
class Loading:
    """One round: answers before the load and while it lasted."""

    before: Answers
    meanwhile: Answers
    faults: int
    seconds: float
    beside: Mapping[str, float]

    def row(self) -> tuple[float, ...]:
        percentiles = (self.before.percentile_ms(99), self.meanwhile.percentile_ms(99))
        return self.seconds, *percentiles, self.before.late_p99_ms, self.meanwhile.late_p99_ms


def load_big(live: LiveGateway, version: int) -> None:
    """Returns when the version is active."""
    spec = {"model": "big", "split": [{"version": version, "weight": 100}]}
    live.admin("PUT", "/routes/big?wait=applied", spec, timeout=120.0)


def unload_big(live: LiveGateway) -> None:
    live.admin("DELETE", "/routes/big")
    wait_until(lambda: "big/1" not in live.resident(), what="the unloaded version's end")
