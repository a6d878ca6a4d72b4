"""What all telemetry costs together: everything on beside everything off, in one run, taking turns.

*on*: the request log in a file, the decision log with digests of what was asked and answered, drift counted as it is by
default (every batch, a sample where processors are short), one request in a hundred traced and its spans sent to a
collector over OTLP.
*off*: metrics alone, which nobody can turn off. Both cores are free to all: what is written is written by a process of
its own, and the question is what answers lose by that. ``mlp``, whose rows have the most to count, is measured with
every row counted as well.

Where two cores are all there is, that process takes from the load generator, too. So ``tiny`` is measured once more
with the gateway's process alone on one core, recorder and clients on the other: what is lost there is the gateway's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.cores import pinned, shared
from loadtests.measurement import Figure, Outcome, Sample, Table, joined
from loadtests.models import MLP, STEP, TINY, Model, make_reference
from loadtests.scenarios.rounds import Plan
from loadtests.servers import Server, place, start_gateway
from loadtests.span_collector import SpanCollector
from loadtests.usage import each_cpu_s

__all__ = ["everything"]

_ON, _OFF = "on", "off"
_CLIENTS = 64
_SLICES = 4
_WARM_S = 5
"""Drift looks at a new version for the first time meanwhile, which is the one long look."""
_OFF_SETTINGS: dict[str, Any] = {
    "request_log": "off", "decisions": {"enabled": False}, "drift": {"enabled": False}, "trace_exporter": "none",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Work:
    model: Model
    placement: str
    apart: bool = False
    every_row: bool = False

    @property
    def name(self) -> str:
        return f"`{self.model.name}`, `{self.placement}`"

    @property
    def title(self) -> str:
        where = "recorder and clients on another core" if self.apart else "two cores free"
        counted = ", every row counted" if self.every_row else ""
        return f"{self.name}, {_CLIENTS} clients, {where}: everything on{counted}"


_WORKS = (
    _Work(TINY, "inline"),
    _Work(TINY, "inline", apart=True),
    _Work(TINY, "process"),
    _Work(MLP, "process"),
    _Work(MLP, "process", every_row=True),
    _Work(STEP, "process"),
)


@dataclass(frozen=True, slots=True)
class _Turn:
    """``gateway_us``: processor time of the gateway's own process a request."""

    sample: Sample
    gateway_us: float


def everything(plan: Plan) -> Outcome:
    figures: list[Figure] = []
    tables: list[Table] = []
    for work in _WORKS:
        rounds = _measure(work, plan)
        figures += _figures(work, rounds)
        tables.append(_table(work, rounds))
    return Outcome(tuple(figures), tuple(tables))


def _measure(work: _Work, plan: Plan) -> list[dict[str, _Turn]]:
    turns = max(1, min(_SLICES, int(plan.seconds)))
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(SpanCollector())
        servers = [stack.enter_context(_gateway(plan.folder, work, name, collector.url)) for name in (_ON, _OFF)]
        for server in servers:
            server.closed(work.model.json(), clients=_CLIENTS, seconds=_WARM_S)
        rounds = []
        for number in range(plan.rounds):
            found: dict[str, list[_Turn]] = {_ON: [], _OFF: []}
            for turn in range(turns):
                for server in servers if (number + turn) % 2 else servers[::-1]:
                    found[server.name].append(_turn(server, work, plan.seconds / turns))
            rounds.append({name: _joined(each) for name, each in found.items()})
    return rounds


@contextlib.contextmanager
def _gateway(folder: Path, work: _Work, name: str, collector: str) -> Iterator[Server]:
    own = f"{work.model.name}-{work.placement}-{name}{'-apart' if work.apart else ''}{'-all' if work.every_row else ''}"
    cores = pinned() if work.apart else shared()
    telemetry = _OFF_SETTINGS
    if name == _ON:
        log = str(folder / f"{own}.jsonl")
        telemetry = {"request_log": log, "trace_ratio": 0.01, "trace_exporter": "otlp", "otlp_endpoint": collector}
        telemetry |= {"drift": {"busy_share": 1.0}} if work.every_row else {}
    runtimes = {"allow_inline": [work.model.name]} if work.placement == "inline" else {}
    settings = {"telemetry": telemetry, "runtimes": runtimes}
    options: dict[str, Any] = {"placement": work.placement}
    if work.model is not STEP:  # whose answers are what was asked, which it takes in any shape
        options["reference"] = f"file:{make_reference(work.model, folder)}"
    with start_gateway(folder, own, cores, settings=settings) as live:
        place(live, work.model, folder, **options)
        recorder = live.recorder()
        if work.apart and recorder is not None:
            for thread in recorder.threads():
                os.sched_setaffinity(thread.id, {int(core) for core in cores.clients.split(",")})
        yield Server(name, live.pid, live.port, cores)


def _turn(server: Server, work: _Work, seconds: float) -> _Turn:
    before = each_cpu_s(server.pid)[server.pid]
    sample = server.closed(work.model.json(), clients=_CLIENTS, seconds=seconds)
    spent = each_cpu_s(server.pid)[server.pid] - before
    return _Turn(sample, spent * 1e6 / max(1.0, sample.per_second * seconds))


def _joined(turns: list[_Turn]) -> _Turn:
    sample = joined([turn.sample for turn in turns])
    answers = [turn.sample.per_second for turn in turns]
    weighed = sum(turn.gateway_us * count for turn, count in zip(turns, answers, strict=True))
    return _Turn(sample, weighed / max(1.0, sum(answers)))


def _figures(work: _Work, rounds: list[dict[str, _Turn]]) -> list[Figure]:
    title = f"{work.title} over off"
    errors = int(sum(turn.sample.errors for found in rounds for turn in found.values()))

    def over(field: str) -> tuple[float, ...]:
        return tuple(getattr(found[_ON].sample, field) / getattr(found[_OFF].sample, field) for found in rounds)

    own = tuple(found[_ON].gateway_us / found[_OFF].gateway_us for found in rounds)
    return [
        Figure(title, "throughput", over("per_second"), must=0.95, aim=0.97, at_least=True, errors=errors),
        Figure(title, "p99", over("p99_ms"), must=1.10, aim=1.05, errors=errors),
        Figure(title, "CPU per request, the gateway's process alone", own, errors=errors),
        Figure(title, "CPU per request, all processes", over("cpu_ms"), errors=errors),
    ]


def _table(work: _Work, rounds: list[dict[str, _Turn]]) -> Table:
    head = ("round", "telemetry", "requests/s", "p50 ms", "p99 ms", "CPU µs, gateway alone", "CPU µs, all", "errors")
    rows = tuple(
        (
            str(number), name, f"{turn.sample.per_second:,.0f}", f"{turn.sample.p50_ms:.2f}",
            f"{turn.sample.p99_ms:.2f}", f"{turn.gateway_us:.1f}", f"{turn.sample.cpu_ms * 1000:.1f}",
            f"{turn.sample.errors:.0f}",
        )
        for number, found in enumerate(rounds, 1)
        for name, turn in found.items()
    )  # fmt: skip
    return Table(f"{work.title} and off", head, rows)
