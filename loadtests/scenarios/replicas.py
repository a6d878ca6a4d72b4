"""How soon a change is served by all of three replicas on one Redis, under load: from its acknowledgement on."""

from __future__ import annotations

import asyncio
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from loadtests.closed_loop import Load, exchange
from loadtests.measurement import Figure, Outcome, Skipped
from loadtests.redis_server import find_redis
from loadtests.replica_set import Replica, ReplicaSet
from loadtests.scenarios.rounds import Plan, value_table

__all__ = ["replicas"]

ROUTE = "echo"
CHANGES = 200
CLIENTS = 4
AIM_MS = 100.0
_LIMIT_S = 30.0


def replicas(plan: Plan) -> Outcome:
    """200 weight changes in all, over the rounds; each goes through another replica in turn."""
    if find_redis() is None:
        raise Skipped("no redis-server here: apt-get install redis-server")
    with tempfile.TemporaryDirectory() as folder, ReplicaSet(Path(folder)) as cluster:
        prepare(cluster)
        with ExitStack() as ends:
            loads = [ends.enter_context(_load(replica)) for replica in cluster.replicas]
            each = max(1, CHANGES // plan.rounds)
            took = [asyncio.run(_changes(cluster, each)) for _ in range(plan.rounds)]
        answers = [answer for load in loads for answer in load.answers]
    errors = sum(answer.status != 200 for answer in answers)
    medians, worst = (tuple(_share(some, part) for some in took) for part in (0.5, 0.99))
    work = f"{sum(map(len, took))} weight changes on 3 replicas under {3 * CLIENTS} clients"
    figures = (
        Figure(work, "acknowledged to served by all, p50", medians, "ms", aim=AIM_MS, errors=errors),
        Figure(work, "acknowledged to served by all, p99", worst, "ms", aim=AIM_MS, errors=errors),
    )
    every = [value for some in took for value in some]
    head = ("changes", "answers", "failed", "p50 ms", "p99 ms", "longest ms")
    row = (len(every), len(answers), errors, _share(every, 0.5), _share(every, 0.99), max(every))
    return Outcome(figures, (value_table(work, head, [row]),))


def prepare(cluster: ReplicaSet) -> None:
    """Two versions that name themselves, and a route that sends everything to the first."""
    first = cluster.replicas[0]
    for number in (1, 2):
        first.register_echo(ROUTE, f"version-{number}", {"outputs": {"y": number}, "delay_ms": 1})
    split = [{"version": 1, "weight": 100}, {"version": 2, "weight": 0}]
    first.put_route(ROUTE, {"model": ROUTE, "split": split})


def _load(replica: Replica) -> Load:
    def ask(client: int, sequence: int) -> tuple[dict[str, Any], dict[str, str]]:
        return {"inputs": [[1.0, 2.0, 3.0, 4.0]], "key": f"{client}-{sequence}"}, {}

    return Load(replica.port, f"/predict/{ROUTE}", ask, clients=CLIENTS, pause_s=0.01)


async def _changes(cluster: ReplicaSet, count: int) -> list[float]:
    """Milliseconds from each acknowledgement until the last replica has answered by the new version."""
    lines = [await asyncio.open_connection("127.0.0.1", replica.port) for replica in cluster.replicas]
    took = []
    try:
        for number in range(count):
            wanted = 2 - number % 2
            through = cluster.replicas[number % len(cluster.replicas)]
            await asyncio.to_thread(through.weights, ROUTE, {wanted: 100, 3 - wanted: 0}, wait=False)
            acknowledged = time.monotonic()
            served = await asyncio.gather(*(_served(reader, writer, wanted) for reader, writer in lines))
            took.append((max(served) - acknowledged) * 1000)
    finally:
        for _, writer in lines:
            writer.close()
    return took


async def _served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wanted: int) -> float:
    """When an answer of the version came: asked again and again, so some milliseconds late."""
    limit = time.monotonic() + _LIMIT_S
    while time.monotonic() < limit:
        body = {"inputs": [[1.0, 2.0, 3.0, 4.0]], "key": "probe"}
        status, answer, _ = await exchange(reader, writer, f"/predict/{ROUTE}", body, {})
        if status == 200 and answer["version"] == wanted:
            return time.monotonic()
    raise TimeoutError(f"version {wanted} was not served within {_LIMIT_S:g} s of its acknowledgement")


def _share(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]
