"""Processor time a request: the gateway beside servers that do only what any server must."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from loadtests.cores import Cores, pinned, shared
from loadtests.measurement import Ask, Figure, Outcome, Sample, Table
from loadtests.models import CNN, IMAGE, MLP, STEP, TINY, Model, make_model
from loadtests.peers import peer
from loadtests.scenarios.rounds import Entrant, Plan, clients_table, errors, over, table, take_turns, value_table
from loadtests.servers import Server, floor, gateway

__all__ = ["cnn", "image_binary", "image_json", "mlp", "one_client", "sweep", "tiny", "workers"]

BARE, BARE_ORT, INLINE, PROCESS = "bare", "bare-ort", "inline", "process"
UNRECORDED = {INLINE: "inline, nothing recorded", PROCESS: "process, nothing recorded"}
"""The same gateway without its request log and decision log: the difference is what the records of a request take, in
the gateway and in the process that writes them."""


@contextlib.contextmanager
def field(model: Model, cores: Cores, plan: Plan, *, unrecorded: bool = False) -> Iterator[list[Server]]:
    """The floors and the gateway in both placements, all up; those whose turn it is not are idle. ``unrecorded``: also
    without records."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(floor(BARE, cores))]
        if model.suffix == ".onnx":
            servers.append(stack.enter_context(floor(BARE_ORT, cores, model=make_model(model, plan.folder))))
        for placement in (INLINE, PROCESS):
            settings = {"runtimes": {"preload": ["torch"]}} if model is CNN else None
            started = gateway(plan.folder, placement, cores, [model], placement=placement, settings=settings)
            servers.append(stack.enter_context(started))
        for placement, name in UNRECORDED.items() if unrecorded else ():
            settings = {"telemetry": {"request_log": "off", "decisions": {"enabled": False}}}
            started = gateway(plan.folder, name, cores, [model], placement=placement, settings=settings)
            servers.append(stack.enter_context(started))
        yield servers


def asked(servers: Sequence[Server], ask: Ask) -> list[Entrant]:
    return [Entrant(server, ask) for server in servers]


def tiny(plan: Plan) -> Outcome:
    cores = pinned()
    floors: list[dict[int, float]] = []
    with field(TINY, cores, plan, unrecorded=True) as servers, contextlib.ExitStack() as stack:
        entrants = asked(servers, TINY.json())
        entrants += [stack.enter_context(peer(name, cores)) for name in plan.peers]
        samples = take_turns(entrants, plan, clients=64, slices=3, after_round=offline_floor(TINY, plan, floors))
    work = "`tiny`, JSON, 64 clients, one core"
    return Outcome(
        (
            _ratio(work, samples, INLINE, must=2.0, aim=1.6),
            _ratio(work, samples, PROCESS, must=2.3, aim=1.7),
            *(_ratio(work, samples, name) for name in UNRECORDED.values()),
        ),
        (table(work, samples), _offline_table(TINY, floors)),
    )


def _ratio(
    work: str, samples: dict[str, list[Sample]], server: str, *, must: float | None = None, aim: float | None = None
) -> Figure:
    return Figure(
        work,
        f"`{server}`: CPU per request over bare's",
        over(samples, server, BARE),
        must=must,
        aim=aim,
        errors=errors(samples, server, BARE),
    )


def one_client(plan: Plan) -> Outcome:
    with field(TINY, pinned(), plan, unrecorded=True) as servers:
        samples = take_turns(asked(servers, TINY.json()), plan, clients=1, slices=3)
    work = "`tiny`, JSON, 1 client, one core"

    def beyond(server: str) -> tuple[float, ...]:
        return tuple(mine.p50_ms - its.p50_ms for mine, its in zip(samples[server], samples[BARE], strict=True))

    def figure(server: str, must: float | None = None, aim: float | None = None) -> Figure:
        name = f"`{server}`: p50 minus bare's p50"
        return Figure(work, name, beyond(server), "ms", must, aim, errors=errors(samples, server, BARE))

    figures = (figure(INLINE, 0.10, 0.06), figure(PROCESS, 0.25, 0.15), *map(figure, UNRECORDED.values()))
    return Outcome(figures, (table(work, samples),))


def mlp(plan: Plan) -> Outcome:
    floors: list[dict[int, float]] = []
    with field(MLP, shared(), plan, unrecorded=True) as servers:
        entrants = asked(servers, MLP.json())
        samples = take_turns(entrants, plan, clients=64, slices=3, after_round=offline_floor(MLP, plan, floors))
    work = "`mlp`, JSON of 784 numbers, 64 clients, two cores free"
    figures = (
        _over_work(work, samples, PROCESS, floors, must=1.8, aim=1.4),
        _over_work(work, samples, INLINE, floors),
        *(_over_work(work, samples, name, floors) for name in UNRECORDED.values()),
    )
    return Outcome(figures, (table(work, samples), _offline_table(MLP, floors)))


def _over_work(
    work: str,
    samples: dict[str, list[Sample]],
    server: str,
    floors: Sequence[dict[int, float]],
    *,
    must: float | None = None,
    aim: float | None = None,
) -> Figure:
    """Over what nobody can do without: the model's own work at its best batch size, and bare's, given the same body."""
    rounds = zip(samples[server], samples[BARE], floors, strict=True)
    ratios = tuple(mine.cpu_ms / (its.cpu_ms + min(costs.values())) for mine, its, costs in rounds)
    name = f"`{server}`: CPU per request over (offline a row + bare)"
    return Figure(work, name, ratios, must=must, aim=aim, errors=errors(samples, server, BARE))


def offline_floor(model: Model, plan: Plan, floors: list[dict[int, float]]) -> Callable[[], None]:
    """To be called after each round, when no server has anything to do: adds batch size to CPU ms a row."""
    path = make_model(model, plan.folder)

    def measure() -> None:
        floors.append(offline(path, pinned()))

    return measure


def offline(path: Path, cores: Cores) -> dict[int, float]:
    """In a process of its own on the servers' core, with one thread as the gateway's versions have."""
    command = [*cores.server_prefix, sys.executable, "-m", "loadtests.floors", "offline", "--model", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return {int(batch): cost for batch, cost in json.loads(done.stdout).items()}


def _offline_table(model: Model, floors: Sequence[dict[int, float]]) -> Table:
    rows = [(batch, statistics.median(costs[batch] for costs in floors)) for batch in floors[0]]
    return value_table(f"`{model.name}` offline, one core, one thread", ("rows a batch", "CPU ms a row"), rows)


def image_binary(plan: Plan) -> Outcome:
    with field(IMAGE, pinned(), plan) as servers:
        samples = take_turns(asked(servers, IMAGE.binary()), plan, clients=16)
    work = "`image`, 600 KB binary, 16 clients, one core"
    figures = (_ratio(work, samples, PROCESS, must=2.0, aim=1.5), _ratio(work, samples, INLINE, must=2.0, aim=1.5))
    return Outcome(figures, (table(work, samples),))


def image_json(plan: Plan) -> Outcome:
    ask = IMAGE.json()
    with field(IMAGE, pinned(), plan) as servers:
        samples = take_turns(asked(servers, ask), plan, clients=16)
    megabytes = len(ask.body) / 1e6
    work = f"`image`, {megabytes:.2f} MB of JSON (150,528 numbers), 16 clients, one core"

    def figure(server: str) -> Figure:
        rates = tuple(megabytes / (sample.cpu_ms / 1000) for sample in samples[server])
        name = f"`{server}`: MB of JSON per CPU second"
        return Figure(work, name, rates, "MB/s", 120, 220, at_least=True, errors=errors(samples, server))

    return Outcome((figure(PROCESS), figure(INLINE)), (table(work, samples),))


def cnn(plan: Plan) -> Outcome:
    floors: list[dict[int, float]] = []
    with field(CNN, pinned(), plan) as servers:
        entrants = asked(servers, CNN.binary())
        samples = take_turns(entrants, plan, clients=16, after_round=offline_floor(CNN, plan, floors))
    work = "`cnn` (torch), 48 KB binary, 16 clients, one core"
    figures = (_over_work(work, samples, PROCESS, floors), _over_work(work, samples, INLINE, floors))
    return Outcome(figures, (table(work, samples), _offline_table(CNN, floors)))


def workers(plan: Plan) -> Outcome:
    cores, names = shared(), {1: "1 worker", 2: "2 workers"}
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(gateway(plan.folder, name, cores, [TINY], workers=count))
            for count, name in names.items()
        ]
        samples = take_turns(asked(servers, TINY.json()), plan, clients=64, slices=3)
    work = "`tiny`, JSON, 64 clients, `process`, two cores free: `--workers 2` over 1"
    failed = errors(samples, *names.values())
    ratios = over(samples, names[2], names[1])
    throughput = over(samples, names[2], names[1], "per_second")
    return Outcome(
        (
            Figure(work, "CPU per request", ratios, must=1.15, aim=1.05, errors=failed),
            Figure(work, "throughput", throughput, at_least=True, errors=failed),
        ),
        (table(work, samples, floor=names[1]),),
    )


def sweep(plan: Plan) -> Outcome:
    """Every model at 1, 16, 64 and 256 clients, on one core and on two; no claims, tables only."""
    work = (
        (TINY, TINY.json(), "JSON"),
        (MLP, MLP.json(), "JSON"),
        (IMAGE, IMAGE.binary(), "binary"),
        (IMAGE, IMAGE.json(), "JSON"),
        (CNN, CNN.binary(), "binary"),
        (STEP, STEP.json(), "JSON"),
    )
    tables = []
    for model, ask, envelope in work:
        for cores in (pinned(), shared()):
            with field(model, cores, plan) as servers:
                found = {
                    clients: take_turns(asked(servers, ask), plan, clients=clients) for clients in (1, 16, 64, 256)
                }
            tables.append(clients_table(f"`{model.name}`, {envelope}, {cores.name}", found))
    return Outcome((), tuple(tables))
