"""The batch limit that the gateway chooses from its cost curve, beside every fixed one."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Mapping
from typing import Any

from loadtests.cores import pinned
from loadtests.measurement import Ask, Figure, Outcome, Sample
from loadtests.models import CNN, MLP, Model
from loadtests.scenarios.rounds import Entrant, Plan, errors, over, table, take_turns
from loadtests.servers import Server, place, start_gateway

__all__ = ["batch_size"]

FIXED = (1, 2, 4, 8, 16, 32, 64)
CHOSEN = "chosen"
_CLIENTS = 128
"""Twice the largest batch: one runs while the next fills."""


def batch_size(plan: Plan) -> Outcome:
    """Versions of one model that differ in ``max_rows`` only, each on a route of its own in one gateway."""
    figures, tables = [], []
    for model, settings in ((MLP, {}), (CNN, {"preload": ["torch"]})):
        samples = _measure(model, plan, settings)
        work = f"`{model.name}`, {_CLIENTS} clients, one core: the batch limit that the cost curve chose"
        figures.append(_over_best(work, "CPU per request over the best fixed one's", samples, "cpu_ms"))
        figures.append(_over_best(work, "throughput over the best fixed one's", samples, "per_second"))
        tables.append(table(work, samples, floor=CHOSEN))
    return Outcome(tuple(figures), tuple(tables))


def _measure(model: Model, plan: Plan, runtimes: Mapping[str, Any]) -> dict[str, list[Sample]]:
    cores, binary = pinned(), model is CNN
    folder = plan.folder / f"batches-{model.name}"
    folder.mkdir()
    chosen: dict[str, Any] = {"telemetry": {"request_log": str(folder / "requests.jsonl")}, "runtimes": dict(runtimes)}
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(start_gateway(folder, "batches", cores, settings=chosen))

        def entrant(called: str, name: str, **options: Any) -> Entrant:
            place(live, model, folder, called=called, **options)
            ask = model.binary() if binary else model.json()
            path = ask.path.replace(f"/{model.name}", f"/{called}")
            return Entrant(Server(name, live.pid, live.port, cores), Ask(path, ask.body, ask.headers))

        entrants = [entrant(f"{model.name}-fixed-{rows}", f"{rows} rows", max_rows=rows) for rows in FIXED]
        entrants.append(entrant(f"{model.name}-chosen", CHOSEN))
        return take_turns(entrants, plan, clients=_CLIENTS)


def _over_best(work: str, name: str, samples: Mapping[str, list[Sample]], field: str) -> Figure:
    """The best fixed limit is the one that is best over all rounds, by its median: the best of each round would be
    the luckiest of seven."""
    more = field == "per_second"

    def middle(server: str) -> float:
        return statistics.median(float(getattr(each, field)) for each in samples[server])

    fixed = [server for server in samples if server != CHOSEN]
    best = max(fixed, key=middle) if more else min(fixed, key=middle)
    failed = errors(samples, CHOSEN, best)
    aim = 0.95 if more else 1.05
    name = f"{name} ({best})"
    return Figure(work, name, over(samples, CHOSEN, best, field), aim=aim, at_least=more, errors=failed)
