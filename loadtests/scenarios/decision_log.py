"""Five million decisions: written as the recorder writes them, compacted, found again by id, and proved offline."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from gateway.clock import SystemClock
from gateway.telemetry.decisions.asking import DecisionReader
from gateway.telemetry.decisions.sql import query
from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan

__all__ = ["decision_log"]

RECORDS, FEW = 5_000_000, 100_000
LOOKUPS = 400
_WRITER = "loadtests.decision_writer"


def decision_log(plan: Plan) -> Outcome:
    """One long run, not rounds: what is measured is a log of that size."""
    count = RECORDS if plan.rounds > 1 else FEW
    folder = plan.folder / "home" / "decisions"
    folder.parent.mkdir()
    wrote = _run("write", folder, str(count))
    packed = _run("compact", folder)
    names = _sample(folder)
    cold, by_decision, by_request, cpu_ms = asyncio.run(_looked_up(folder, names))
    proved = _run("verify", folder)
    work = f"{count:,} decisions"
    missing = int(count - wrote["written"]) + int(proved["faults"]) + int(count - proved["records"])
    figures = (
        Figure(work, "p99 of a look-up by decision id", (_percentile(by_decision, 99),), "ms", 50, 20, errors=missing),
        Figure(work, "p99 of a look-up by request id", (_percentile(by_request, 99),), "ms", 50, 20, errors=missing),
        Figure(work, "processor time of a look-up", (cpu_ms,), "ms"),
        Figure(work, "first look-up, its process started for it", (cold,), "ms"),
        Figure(work, "processor time of the recorder for a record", (wrote["cpu_us"],), "µs", errors=missing),
        Figure(work, "written in a second", (wrote["per_second"],), at_least=True, errors=missing),
        Figure(work, "bytes a record once compacted, indexes included", (packed["bytes"] / count,)),
        Figure(work, "offline proof", (proved["seconds"],), "s"),
        Figure(work, "memory of the writing process at most", (wrote["peak_mb"],), "MB", 150),
    )
    return Outcome(
        figures, (_details(count, wrote, packed, proved, (by_decision, by_request)),), ran=f"one run of {work}"
    )


def _run(what: str, folder: Path, *arguments: str) -> Mapping[str, float]:
    command = [sys.executable, "-m", _WRITER, what, str(folder), *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Mapping[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _sample(folder: Path) -> Sequence[tuple[str, str]]:
    """Decisions and their requests, from all over the log."""
    text = "SELECT decision, request FROM decisions USING SAMPLE reservoir(400 ROWS) REPEATABLE (7)"
    names = [(str(decision), str(request)) for decision, request in query(folder, text).rows]
    random.Random(7).shuffle(names)
    return names[:LOOKUPS]


async def _looked_up(folder: Path, names: Sequence[tuple[str, str]]) -> tuple[float, list[float], list[float], float]:
    """The first one of all, then milliseconds of each by decision and by request, as the gateway asks; last what one
    takes of a processor."""
    reader = DecisionReader(folder, clock=SystemClock())
    cold = await _timed(reader, names[0][0], names[0][0])
    process = psutil.Process(reader.pid)
    before = sum(process.cpu_times()[:2])
    by_decision = [await _timed(reader, decision, decision) for decision, _ in names]
    by_request = [await _timed(reader, request, decision) for decision, request in names]
    cpu_ms = (sum(process.cpu_times()[:2]) - before) / (2 * len(names)) * 1e3
    await reader.close()
    return cold, by_decision, by_request, cpu_ms


async def _timed(reader: DecisionReader, name: str, decision: str) -> float:
    began = time.perf_counter()
    found = await reader.find(name)
    took = (time.perf_counter() - began) * 1e3
    if found["decision"] != decision:
        raise RuntimeError(f"asked for {name}, and got {found['decision']}")
    return took


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100)[percent - 1]


def _details(
    count: int,
    wrote: Mapping[str, float],
    packed: Mapping[str, float],
    proved: Mapping[str, float],
    times_ms: tuple[Sequence[float], Sequence[float]],
) -> Table:
    by_decision, by_request = (f"{statistics.median(one):.1f} ms, {_percentile(one, 99):.1f} ms" for one in times_ms)
    rows = (
        ("records, segments", f"{wrote['written']:,.0f} in {packed['segments']:.0f}"),
        ("bytes a record in frames", f"{wrote['raw_bytes']:.0f}"),
        ("bytes a record in Parquet, indexes included", f"{packed['bytes'] / count:.0f}"),
        ("recorder, processor time a record", f"{wrote['cpu_us']:.1f} µs"),
        ("compaction and its proof, processor time a record", f"{packed['cpu_s'] / count * 1e6:.1f} µs"),
        ("memory of the writer, of a compaction, at most", f"{wrote['peak_mb']:.0f} MB, {packed['peak_mb']:.0f} MB"),
        ("look-up by decision, p50, p99", by_decision),
        ("look-up by request, p50, p99", by_request),
        ("proof", f"{proved['seconds']:.0f} s ({proved['cpu_s']:.0f} s of processor), {proved['peak_mb']:.0f} MB"),
    )
    return Table("The decision log", ("", "measured"), rows)
