"""Rounds in which every server has its turn, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.measurement import Ask, Sample, Table, median_sample
from loadtests.servers import Server

__all__ = ["Entrant", "Plan", "errors", "over", "table", "take_turns"]

Samples = Mapping[str, Sequence[Sample]]


@dataclass(frozen=True, slots=True)
class Plan:
    """``seconds`` of one measurement; ``folder`` for models and homes; ``peers`` to run beside, by name; ``record``:
    where a soak writes what it finds as it goes."""

    rounds: int
    seconds: float
    folder: Path
    peers: tuple[str, ...] = ()
    soak_minutes: float = 60.0
    record: Path | None = None


@dataclass(frozen=True, slots=True)
class Entrant:
    """A server and how it is asked: peers have envelopes of their own."""

    server: Server
    ask: Ask


def take_turns(entrants: Sequence[Entrant], plan: Plan, *, clients: int) -> dict[str, list[Sample]]:
    """After a second of warm-up for each; the first of a round is another one each time."""
    for entrant in entrants:
        entrant.server.closed(entrant.ask, clients=clients, seconds=1)
    samples: dict[str, list[Sample]] = {entrant.server.name: [] for entrant in entrants}
    for number in range(plan.rounds):
        turn = number % len(entrants)
        for entrant in (*entrants[turn:], *entrants[:turn]):
            sample = entrant.server.closed(entrant.ask, clients=clients, seconds=plan.seconds)
            samples[entrant.server.name].append(sample)
    return samples


def over(samples: Samples, server: str, floor: str, field: str = "cpu_ms") -> tuple[float, ...]:
    """Each round's ratio; of medians over rounds only the ratio of the same round is free of the machine's moods."""
    pairs = zip(samples[server], samples[floor], strict=True)
    return tuple(getattr(mine, field) / getattr(its, field) for mine, its in pairs)


def errors(samples: Samples, *servers: str) -> int:
    return int(sum(sample.errors for server in servers for sample in samples[server]))


def table(title: str, samples: Samples, *, floor: str = "bare") -> Table:
    rows = []
    for server, each in samples.items():
        middle = median_sample(each)
        ratio = statistics.median(over(samples, server, floor)) if floor in samples else float("nan")
        rows.append(
            (
                server,
                f"{middle.cpu_ms:.3f}",
                f"{ratio:.2f}",
                f"{middle.per_second:,.0f}",
                f"{middle.p50_ms:.2f}",
                f"{middle.p99_ms:.2f}",
                f"{middle.resident_mb:.0f}",
                f"{middle.errors:.0f}",
            )
        )
    head = ("server", "CPU ms a request", f"over {floor}", "requests/s", "p50 ms", "p99 ms", "RSS MB", "errors")
    return Table(title, head, tuple(rows))


def value_table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Floats with three significant places or so."""
    return Table(title, tuple(head), tuple(tuple(_shown(cell) for cell in row) for row in rows))


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        if math.isnan(cell):
            return "none"
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)
