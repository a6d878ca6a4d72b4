"""Who is served when not all can be: priorities, and a modest client beside a greedy one, at five times capacity."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.cores import pinned
from loadtests.measurement import Ask, Figure, Outcome
from loadtests.models import STEP
from loadtests.open_loop import Answers, OpenLoop
from loadtests.scenarios.calm import DEADLINE_MS, OVERLOAD_ROWS, STEP_MS
from loadtests.scenarios.rounds import Plan, steady_rounds, value_table
from loadtests.servers import Server, gateway

__all__ = ["fair"]

_SETTLED_S = 1.0
_TIMES = 5.0


@dataclass(frozen=True, slots=True)
class Stream:
    """``share`` of capacity that it asks for. Clients differ in every way that one may be told by: the key in the
    body, a header and the address that they call from."""

    name: str
    share: float
    key: str
    priority: str = "normal"
    source: str = "127.0.0.1"

    def ask(self) -> Ask:
        plain = STEP.json(key=self.key)
        more = {"x-timeout-ms": str(DEADLINE_MS), "x-priority": self.priority, "x-user-id": self.key}
        return Ask(plain.path, plain.body, {**plain.headers, **more})


PRIORITIES = (
    Stream("high", 0.5, "one", priority="high"),
    Stream("normal", _TIMES - 0.5, "one"),
)
CLIENTS = (
    Stream("modest", 0.3, "modest"),
    Stream("greedy", _TIMES - 0.3, "greedy", source="127.0.0.2"),
)


def fair(plan: Plan) -> Outcome:
    seconds = max(plan.seconds, 2)
    with gateway(plan.folder, "fair", pinned(), [STEP], max_rows=OVERLOAD_ROWS) as server:

        def one(number: int) -> tuple[float, dict[str, Answers]]:
            capacity = server.closed(STEP.json(), clients=4 * OVERLOAD_ROWS, seconds=seconds).per_second
            by_priority = together(server, PRIORITIES, capacity, seconds, number)
            by_client = together(server, CLIENTS, capacity, seconds, 1000 + number)
            return capacity, {**by_priority, **by_client}

        steady = steady_rounds(plan, one, lambda found: max(each.late_p99_ms for each in found[1].values()))
    work = f"{STEP_MS} ms model, deadline {DEADLINE_MS} ms, {_TIMES:g} times capacity"

    def figure(name: str, who: str) -> Figure:
        shares = tuple(in_time_percent(found[who]) for _, found in steady.rounds)
        return Figure(work, name, shares, "%", aim=95, at_least=True)

    figures = (
        figure("answered in time of `x-priority: high` at 50% of capacity", "high"),
        figure("answered in time of a client that asks for 30% of capacity, beside one that asks for 470%", "modest"),
    )
    rows = []
    for number, (capacity, found) in enumerate(steady.rounds, 1):
        for name, load in found.items():
            counts = (load.within(DEADLINE_MS), load.count(429), load.count(504))
            rows.append((number, capacity, name, len(load), *counts, in_time_percent(load), load.percentile_ms(99)))
    head = ("round", "capacity/s", "who", "sent", "in time", "429", "504", "in time %", "200 p99 ms")
    return Outcome(figures, (value_table(f"{work} ({steady.said()})", head, rows),))


def in_time_percent(load: Answers) -> float:
    return 100 * load.within(DEADLINE_MS) / len(load) if len(load) else 0.0


def together(
    server: Server, streams: tuple[Stream, ...], capacity: float, seconds: float, seed: int
) -> Mapping[str, Answers]:
    """All at once, each from a process of its own; what was sent after queues had filled."""
    loads = []
    for place, stream in enumerate(streams):
        load = OpenLoop(
            server.port,
            stream.ask(),
            rate=stream.share * capacity,
            seconds=_SETTLED_S + seconds,
            prefix=server.cores.client_prefix,
            seed=10 * seed + place,
            source=stream.source,
        )
        loads.append(load)
    begin = max(load.began for load in loads) + _SETTLED_S / 2
    end = min(load.began for load in loads) + _SETTLED_S + seconds
    found = {}
    for stream, load in zip(streams, loads, strict=True):
        with load:
            found[stream.name] = load.answers().during(begin - load.began, end - load.began)
    time.sleep(_SETTLED_S / 2)
    return found
