"""What a sweep found, a row for each candidate and each who decided: for machines and for whoever prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.control.simulation.arrivals import Traffic
from gateway.control.simulation.runs import Figures, Run, figures
from gateway.control.simulation.sweep import Sweep, Trials
from gateway.control.simulation.world import World

__all__ = ["Report", "Row", "named", "percent_text", "report_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """``decided_by``: the evidence, as in a gateway, or the name of a rival."""

    world: World
    decided_by: str
    figures: Figures
    runs: Sequence[Run]

    def to_json(self) -> dict[str, Any]:
        return {
            "candidate": named(self.world),
            "world": asdict(self.world),
            "equal": self.world.equal,
            "decided_by": self.decided_by,
            **self.figures.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Report:
    sweep: Sweep
    rows: Sequence[Row]

    def to_json(self) -> dict[str, Any]:
        sweep = self.sweep
        traffic = asdict(sweep.source) if isinstance(sweep.source, Traffic) else _recorded(sweep)
        return {
            "runs": sweep.runs,
            "seed": sweep.seed,
            "tick_s": sweep.conduct.tick_s,
            "traffic": traffic,
            "plan": sweep.conduct.plan.to_json(),
            "rows": [row.to_json() for row in self.rows],
        }


def report_of(sweep: Sweep, trials: Sequence[Trials]) -> Report:
    return Report(sweep, list(_rows(sweep, trials)))


def _rows(sweep: Sweep, trials: Sequence[Trials]) -> Iterator[Row]:
    for world, tried in zip(sweep.worlds, trials, strict=True):
        for name, runs in tried.items():
            yield Row(world, name, figures(runs), runs)


def _recorded(sweep: Sweep) -> dict[str, Any]:
    source = sweep.source
    if isinstance(source, Traffic):
        return {}
    return {"recorded": True, "requests": len(source.times_s), "keys": source.key_count, "length_s": source.length_s}


def named(world: World) -> str:
    """The candidate in words: by what tells it from the baseline."""
    if world.equal:
        return f"equal, {percent_text(world.baseline_error)} errors"
    parts = []
    if world.candidate_error != world.baseline_error:
        parts.append(f"{percent_text(world.candidate_error)} errors")
    if world.candidate_slow != world.baseline_slow:
        parts.append(f"{percent_text(world.candidate_slow)} slow")
    if world.disagreement:
        parts.append(f"{percent_text(world.disagreement)} disagreement")
    return ", ".join(parts)


def percent_text(share: float) -> str:
    return f"{100 * share:.3g}%"
