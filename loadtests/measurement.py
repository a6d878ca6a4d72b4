"""What is asked, what came back, what it cost: the records that travel through the benchmarks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

__all__ = ["COUNT", "Ask", "ClosedLoop", "Figure", "Outcome", "Sample", "Skipped", "Table", "joined", "median_sample"]

COUNT = b"@COUNT@"
"""Where it stands in a body, wrk puts a number that no other request has."""


class Skipped(Exception):
    """Work that this machine cannot do, with the reason: nothing failed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One POST, always the same (but for ``COUNT`` in its body)."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """``refused``: answers that are errors; ``broken``: connections that failed or timed out."""

    answers: int
    seconds: float
    refused: int
    broken: int
    p50_us: float
    p99_us: float

    @property
    def good(self) -> int:
        return self.answers - self.refused


@dataclass(frozen=True, slots=True)
class Sample:
    """One server in one round. ``cpu_ms`` is a request's; ``errors`` of every kind."""

    per_second: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    resident_mb: float
    errors: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One claim of the table: the median over rounds beside what it must and should be.

    ``at_least``: larger is better. ``must`` None: shown for what it is worth, claims nothing. A figure whose
    requests met ``errors`` meets nothing.
    """

    work: str
    name: str
    rounds: tuple[float, ...]
    unit: str = ""
    must: float | None = None
    aim: float | None = None
    at_least: bool = False
    errors: int = 0

    @property
    def value(self) -> float:
        return statistics.median(self.rounds)

    def meets(self, wanted: float | None) -> bool | None:
        if wanted is None:
            return None
        if self.errors:
            return False
        return self.value >= wanted if self.at_least else self.value <= wanted


@dataclass(frozen=True, slots=True)
class Table:
    """Medians behind the figures of one kind of work, a row for each server."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one kind of work gave. ``ran``: what was run, where that is not rounds of some seconds."""

    figures: tuple[Figure, ...]
    tables: tuple[Table, ...] = ()
    ran: str = ""


def median_sample(samples: Iterable[Sample]) -> Sample:
    """Each field's own median; errors are summed, so that one cannot hide."""
    rows = [asdict(sample) for sample in samples]
    middle = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    return Sample(**middle | {"errors": sum(row["errors"] for row in rows)})


def joined(slices: Sequence[Sample]) -> Sample:
    """One server's slices of one round, all equally long, as if they had been one stretch; the percentiles are the
    slices' medians."""
    answers = sum(each.per_second for each in slices)
    return Sample(
        per_second=answers / len(slices),
        cpu_ms=sum(each.cpu_ms * each.per_second for each in slices) / answers if answers else math.nan,
        p50_ms=statistics.median(each.p50_ms for each in slices),
        p99_ms=statistics.median(each.p99_ms for each in slices),
        resident_mb=max(each.resident_mb for each in slices),
        errors=sum(each.errors for each in slices),
    )
