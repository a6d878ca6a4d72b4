"""What comes on top: telemetry, decisions, memory at rest, a cache, changing versions."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from gateway.settings import Settings
from loadtests import decide, swap
from loadtests.cores import pinned, shared
from loadtests.measurement import Ask, Figure, Outcome
from loadtests.models import MLP, TINY
from loadtests.scenarios.rounds import Entrant, Plan, errors, over, table, take_turns, value_table
from loadtests.servers import Server, gateway, place, start_gateway
from loadtests.span_collector import SpanCollector
from loadtests.usage import resident_mb, usage

__all__ = ["cache", "decisions", "memory", "swapping", "telemetry"]

_TRACED_SHARE = 0.01
_REST_S = 3.0
_CACHE_BYTES = 16 * 1024 * 1024


def telemetry(plan: Plan) -> Outcome:
    """Metrics are always on. *on*: the request log in a file, one request in a hundred traced and its spans sent to a
    collector over OTLP; *traced*: every one (no claim: nobody samples all of 10,000 a second); *off*: neither log nor
    traces. No decision log: ``everything`` measures that. Both cores are free, since lines and spans are written by
    another process."""
    cores, off = shared(), {"decisions": {"enabled": False}}
    with contextlib.ExitStack() as stack:
        spans = {"trace_exporter": "otlp", "otlp_endpoint": stack.enter_context(SpanCollector()).url}
        configurations: dict[str, dict[str, Any]] = {
            "on": {"request_log": str(plan.folder / "on.jsonl"), "trace_ratio": _TRACED_SHARE, **spans},
            "off": {"request_log": "off"},
            "traced": {"request_log": str(plan.folder / "all.jsonl"), "trace_ratio": 1.0, **spans},
        }
        entrants = []
        for name, chosen in configurations.items():
            started = gateway(plan.folder, name, cores, [TINY], settings={"telemetry": chosen | off})
            entrants.append(Entrant(stack.enter_context(started), TINY.json()))
        samples = take_turns(entrants, plan, clients=64, slices=3)
    work = "`tiny`, 64 clients, two cores free: request log and traces on over off"
    failed = errors(samples, "on", "off")
    rates = over(samples, "on", "off", "per_second")
    return Outcome(
        (
            Figure(work, "throughput", rates, must=0.93, aim=0.97, at_least=True, errors=failed),
            Figure(work, "CPU per request", over(samples, "on", "off"), errors=failed),
        ),
        (table(work, samples, floor="off"),),
    )


def decisions(plan: Plan) -> Outcome:
    cases = decide.cases()
    times: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(plan.rounds):
        for case in cases:
            times[case.name].append(decide.microseconds(case))
    work = "1,000 registered versions, 200 routes: `decide`"
    figures = []
    for case in cases:
        must, aim = (45, 15) if "rule" in case.name else (6, 2)
        figures.append(Figure(work, case.name, tuple(times[case.name]), "µs", must, aim))
    return Outcome(tuple(figures))


def memory(plan: Plan) -> Outcome:
    """A gateway with default settings and one warm version, some seconds after its last request."""
    alone, rows = [], []
    default = {"runtimes": {"preload": list(Settings().runtimes.preload)}}
    for number in range(plan.rounds):
        with gateway(plan.folder, f"idle {number}", pinned(), [TINY], settings=default) as server:
            server.closed(TINY.json(), clients=1, seconds=1)
            time.sleep(_REST_S)
            every = usage(server.pid)
            alone.append(resident_mb(server.pid))
            rows.append((number + 1, alone[-1], every.resident_mb, every.processes))
    work = "gateway process, idle, default settings, one version"
    figure = Figure(work, "resident memory", tuple(alone), "MB", 90, 60)
    head = ("round", "gateway MB", "with its children MB (shared pages counted more than once)", "processes")
    return Outcome((figure,), (value_table(work, head, rows),))


def cache(plan: Plan) -> Outcome:
    """Two routes to the same model, one with a response cache. *hits*: always the same request. *misses*: every one
    another, so that what the cache costs those who gain nothing from it shows."""
    cores, kept = pinned(), f"{MLP.name}-kept"
    chosen = {"telemetry": {"request_log": str(plan.folder / "cache.jsonl")}}
    with start_gateway(plan.folder, "cache", cores, settings=chosen) as live:
        place(live, MLP, plan.folder)
        place(live, MLP, plan.folder, called=kept, route={"cache": {"max_bytes": _CACHE_BYTES}})

        def entrant(name: str, ask: Ask) -> Entrant:
            return Entrant(Server(name, live.pid, live.port, cores), ask)

        entrants = [
            entrant("no cache", MLP.json()),
            entrant("hits", MLP.json(route=kept)),
            entrant("no cache, each another", MLP.counted_json()),
            entrant("misses", MLP.counted_json(route=kept)),
        ]
        samples = take_turns(entrants, plan, clients=64, slices=3)
    work = "`mlp`, JSON, 64 clients, one core, `process`: a route's response cache"
    hits, misses = over(samples, "hits", "no cache"), over(samples, "misses", "no cache, each another")
    return Outcome(
        (
            Figure(work, "CPU per request: a hit over no cache", hits, errors=errors(samples, "hits", "no cache")),
            Figure(work, "CPU per request: a miss over no cache", misses, errors=errors(samples, "misses")),
        ),
        (table(work, samples, floor="no cache"),),
    )


def swapping(plan: Plan) -> Outcome:
    """See loadtests/swap.py; it has rounds of its own."""
    report = swap.measure(swap.Plan(plan.rounds, clients=32, quiet_s=max(2.0, plan.seconds * 2)))
    work = (
        f"{report.weight_changes} weight changes, {report.new_versions} new versions, {report.rollbacks} rollbacks "
        "under 32 clients"
    )
    rows = [
        (name, phase.answers, phase.failed, phase.per_second, phase.p50_ms, phase.p99_ms)
        for name, phase in (("quiet", report.quiet), ("changing", report.changing))
    ]
    head = ("phase", "answers", "failed", "requests/s", "p50 ms", "p99 ms")
    figure = Figure(work, "p99 during over steady", report.p99_ratios, aim=1.1, errors=report.failed)
    return Outcome((figure,), (value_table(work, head, rows),))
