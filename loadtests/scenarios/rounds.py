"""Rounds in which every server has its turn, so that a slow minute of the machine hits all alike."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from loadtests.measurement import Ask, Sample, Table, joined, median_sample
from loadtests.servers import Server

__all__ = [
    "LATE_MS",
    "Entrant",
    "Plan",
    "Steady",
    "clients_table",
    "errors",
    "over",
    "steady_rounds",
    "table",
    "take_turns",
]

Samples = Mapping[str, Sequence[Sample]]
Round = TypeVar("Round")

LATE_MS = 5.0
"""How late the open loop may be (p99) before a round says more about it than about the server. One millisecond is
usual: epoll counts in them."""


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
class Steady(Generic[Round]):
    """``worst_ms``: the load generator's lateness (p99) in the worst round that counts."""

    rounds: list[Round]
    thrown_away: int
    worst_ms: float

    def said(self) -> str:
        """For a table's title."""
        text = f"client late p99 at most {self.worst_ms:.1f} ms"
        if self.thrown_away:
            text += f"; {self.thrown_away} rounds thrown away, in which it was later than {LATE_MS:g} ms"
        return text


@dataclass(frozen=True, slots=True)
class Entrant:
    """A server and how it is asked: peers have envelopes of their own."""

    server: Server
    ask: Ask


def take_turns(
    entrants: Sequence[Entrant],
    plan: Plan,
    *,
    clients: int,
    slices: int = 1,
    after_round: Callable[[], None] | None = None,
) -> dict[str, list[Sample]]:
    """After a second of warm-up for each; the first of a round is another one each time.

    ``slices``: so many turns of each in a round, each so much shorter (but a second at least). They are for cheap
    requests only: what is under way at the end of a turn was worked on and is not counted.
    """
    for entrant in entrants:
        entrant.server.closed(entrant.ask, clients=clients, seconds=1)
    samples: dict[str, list[Sample]] = {entrant.server.name: [] for entrant in entrants}
    turns = max(1, min(slices, int(plan.seconds)))
    for number in range(plan.rounds):
        found: dict[str, list[Sample]] = {name: [] for name in samples}
        for turn in range(turns):
            first = (number + turn) % len(entrants)
            for entrant in (*entrants[first:], *entrants[:first]):
                sample = entrant.server.closed(entrant.ask, clients=clients, seconds=plan.seconds / turns)
                found[entrant.server.name].append(sample)
        for name, each in found.items():
            samples[name].append(joined(each))
        if after_round is not None:
            after_round()
    return samples


def steady_rounds(plan: Plan, measure: Callable[[int], Round], late_ms: Callable[[Round], float]) -> Steady[Round]:
    """As many rounds as planned in which the load generator kept up.

    A round in which it was late in any of its parts is thrown away whole (what it is compared with goes too), and
    measured again: twice the planned rounds at most, after which the least late ones count.
    """
    all_rounds: list[Round] = []
    late: list[float] = []
    while sum(each <= LATE_MS for each in late) < plan.rounds and len(late) < 2 * plan.rounds:
        all_rounds.append(measure(len(late)))
        late.append(late_ms(all_rounds[-1]))
    kept = sorted(sorted(range(len(late)), key=lambda number: max(LATE_MS, late[number]))[: plan.rounds])
    return Steady([all_rounds[number] for number in kept], len(late) - len(kept), max(late[number] for number in kept))


def over(samples: Samples, server: str, floor: str, field: str = "cpu_ms") -> tuple[float, ...]:
    """Each round's ratio; of medians over rounds only the ratio of the same round is free of the machine's moods."""
    pairs = zip(samples[server], samples[floor], strict=True)
    return tuple(getattr(mine, field) / getattr(its, field) for mine, its in pairs)


def errors(samples: Samples, *servers: str) -> int:
    return int(sum(sample.errors for server in servers for sample in samples[server]))


_HEAD = ("CPU %", "requests/s", "p50 ms", "p99 ms", "RSS MB", "errors")


def table(title: str, samples: Samples, *, floor: str = "bare") -> Table:
    rows = tuple(_row(samples, server, floor) for server in samples)
    return Table(title, ("server", "CPU ms a request", f"over {floor}", *_HEAD), rows)


def clients_table(title: str, found: Mapping[int, Samples], *, floor: str = "bare") -> Table:
    """``found`` by the number of clients."""
    rows = tuple(
        (str(clients), *_row(samples, server, floor)) for clients, samples in found.items() for server in samples
    )
    return Table(title, ("clients", "server", "CPU ms a request", f"over {floor}", *_HEAD), rows)


def _row(samples: Samples, server: str, floor: str) -> tuple[str, ...]:
    middle = median_sample(samples[server])
    ratio = statistics.median(over(samples, server, floor)) if floor in samples else math.nan
    return (
        server,
        f"{middle.cpu_ms:.3f}",
        f"{ratio:.2f}",
        f"{middle.cpu_ms * middle.per_second / 10:.0f}",
        f"{middle.per_second:,.0f}",
        f"{middle.p50_ms:.2f}",
        f"{middle.p99_ms:.2f}",
        f"{middle.resident_mb:.0f}",
        f"{middle.errors:.0f}",
    )


def value_table(title: str, head: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Floats with three significant places or so."""
    return Table(title, tuple(head), tuple(tuple(_shown(cell) for cell in row) for row in rows))


def _shown(cell: object) -> str:
    if isinstance(cell, float):
        if math.isnan(cell):
            return "none"
        return f"{cell:,.0f}" if abs(cell) >= 100 else f"{cell:.3g}"
    return str(cell)
