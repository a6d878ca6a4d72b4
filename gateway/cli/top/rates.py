"""Rates and quantiles between two looks at the same gateway's counters and histograms.

As Prometheus does: a counter that fell began anew, and counts from nothing; one that was not there before has counted
since. A process that was replaced shares nothing with the one before it, so looks at both are never compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.cli.top.exposition_text import Labels, Samples, value_of

__all__ = ["Increase", "Look", "Window", "increases", "quantile"]

STARTED = "process_start_time_seconds"


@dataclass(frozen=True, slots=True)
class Look:
    """The metrics as they were at ``at_s`` (monotonic), and what ``/readyz`` said then."""

    at_s: float
    samples: Samples
    standing: Mapping[str, Any] = field(default_factory=dict)

    @property
    def started(self) -> float | None:
        return value_of(self.samples, STARTED)


@dataclass(frozen=True, slots=True)
class Window:
    """The looks that rates are told from, oldest first."""

    looks: tuple[Look, ...] = ()

    def taken(self, look: Look, *, span_s: float) -> Window:
        """With one more look: those are kept that ``span_s`` needs, and none from before a restart."""
        kept = [old for old in self.looks if old.started == look.started and old.at_s < look.at_s]
        first = max((place for place, old in enumerate(kept) if look.at_s - old.at_s >= span_s), default=0)
        return Window((*kept[first:], look))

    @property
    def increase(self) -> Increase:
        """From the oldest look to the newest; nothing can be told from one alone."""
        return Increase(self.looks[0], self.looks[-1])


@dataclass(frozen=True, slots=True)
class Increase:
    before: Look
    after: Look

    @property
    def span_s(self) -> float:
        return self.after.at_s - self.before.at_s

    def rates(self, name: str, by: Callable[[Mapping[str, str]], Any]) -> dict[Any, float]:
        """How often a second, summed over the samples that ``by`` gives the same key; None is none of anybody's.
        Empty when there is no time between the looks."""
        if self.span_s <= 0:
            return {}
        return {key: value / self.span_s for key, value in self.sums(name, by).items()}

    def sums(self, name: str, by: Callable[[Mapping[str, str]], Any]) -> dict[Any, float]:
        found: dict[Any, float] = {}
        for labels, more in increases(self.before.samples.get(name, {}), self.after.samples.get(name, {})):
            key = by(dict(labels))
            if key is not None:
                found[key] = found.get(key, 0.0) + more
        return found

    def buckets(self, name: str, by: Callable[[Mapping[str, str]], Any]) -> dict[Any, dict[float, float]]:
        """What came to each bucket of a histogram (and those below it), by its upper bound."""
        before = _histograms(self.before.samples.get(f"{name}_bucket", {}))
        found: dict[Any, dict[float, float]] = {}
        for labels, now in _histograms(self.after.samples.get(f"{name}_bucket", {})).items():
            key = by(dict(labels))
            if key is not None:
                total = found.setdefault(key, {})
                for bound, more in _grown(before.get(labels, {}), now):
                    total[bound] = total.get(bound, 0.0) + more
        return found


def increases(before: Mapping[Labels, float], after: Mapping[Labels, float]) -> Iterator[tuple[Labels, float]]:
    for labels, value in after.items():
        was = before.get(labels, 0.0)
        yield labels, value - was if value >= was else value


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """Between a bucket's bounds as if its values were spread evenly; the last finite bound for what is above all.
    None when nothing came."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    wanted, lower, below = share * total, 0.0, 0.0
    for bound in bounds:
        reached = buckets[bound]
        if reached >= wanted and reached > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (reached - below)
        lower, below = bound, reached
    return lower


def _grown(before: Mapping[float, float], now: Mapping[float, float]) -> Sequence[tuple[float, float]]:
    """One bucket that fell tells that all began anew."""
    if any(value < before.get(bound, 0.0) for bound, value in now.items()):
        return list(now.items())
    return [(bound, value - before.get(bound, 0.0)) for bound, value in now.items()]


def _histograms(samples: Mapping[Labels, float]) -> dict[Labels, dict[float, float]]:
    found: dict[Labels, dict[float, float]] = {}
    for labels, value in samples.items():
        bound = next((text for name, text in labels if name == "le"), "+Inf")
        others = tuple(pair for pair in labels if pair[0] != "le")
        found.setdefault(others, {})[float(bound)] = value
    return found
