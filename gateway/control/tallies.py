"""The names of the counters that evidence is made of: integers that only grow within an epoch and add up over replicas.

A name is ``stream/stratum/novelty/arm/outcome``: ``error/split/fresh/candidate/bad``.

- ``stratum``: for ``error``, ``label`` and ``score`` the split that chose (``split`` or ``rule:<name>``), since another
  split has another mixture of callers, and of a label or score that comes in a later epoch, ``@`` and the epoch of its
  answer; for ``slow`` the class of equal batch rows; for ``disagreement`` ``all``.
- ``novelty``: ``fresh``, the key's first outcome in the whole rollout; ``again``, its first in this epoch.
- ``outcome``: ``good`` or ``bad``; for ``slow`` a bin of compute time; for ``score`` ``units``, ``sum``, ``squares``.

Every count of ``error`` is one key that the split gave to the arm, so these also tell whether the split is sound;
``kept`` is one whose answer was kept or another's, which no version can fail at, and is evidence of nothing else.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from math import ceil, log2
from typing import NamedTuple

__all__ = [
    "AGAIN",
    "ARMS",
    "BASELINE",
    "CANDIDATE",
    "FRESH",
    "KEPT",
    "NOVELTIES",
    "Counter",
    "named_by_epoch",
    "of_epoch",
    "read",
    "rows_class",
    "slow_bin_of",
    "tally",
    "totals_of",
]

CANDIDATE, BASELINE = "candidate", "baseline"
ARMS = (CANDIDATE, BASELINE)
FRESH, AGAIN = "fresh", "again"
NOVELTIES = (FRESH, AGAIN)
KEPT = "kept"

BINS_PER_OCTAVE, SHORTEST_S, LAST_BIN = 8, 1e-5, 255
"""Bins of compute time: each 9% wide, from 10 microseconds to more than ten hours."""


class Counter(NamedTuple):
    """One counter's name in parts. ``str`` is what goes over the wire."""

    stream: str
    stratum: str
    novelty: str
    arm: str
    outcome: str

    def __str__(self) -> str:
        return "/".join(self)


def read(counters: Mapping[str, int]) -> Iterator[tuple[Counter, int]]:
    """What cannot be read is left out: a replica of another release may count what this one does not know."""
    for name, count in counters.items():
        parts = name.split("/")
        if len(parts) == len(Counter._fields) and count > 0:
            yield Counter(*parts), count


def totals_of(counters: Mapping[str, int], novelties: Container[str]) -> dict[str, dict[str, dict[str, int]]]:
    """By stream, by stratum, by ``arm/outcome``: the sums over the novelties."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    for counter, count in read(counters):
        if counter.novelty not in novelties:
            continue
        stratum = found.setdefault(counter.stream, {}).setdefault(counter.stratum, {})
        outcome = f"{counter.arm}/{counter.outcome}"
        stratum[outcome] = stratum.get(outcome, 0) + count
    return found


def slow_bin_of(seconds: float) -> int:
    if seconds <= SHORTEST_S:
        return 0
    return min(ceil(BINS_PER_OCTAVE * log2(seconds / SHORTEST_S) - 1e-9), LAST_BIN)


def rows_class(batch_rows: int) -> str:
    """Batches of 1, 2, 3-4, 5-8, ... rows: within a class they take about as long, on either arm."""
    return f"rows-{1 << max(batch_rows - 1, 0).bit_length()}"


def tally(
    stream: str,
    arm: str,
    *,
    good: int = 0,
    bad: int = 0,
    stratum: str = "split",
    novelty: str = FRESH,
) -> dict[str, int]:
    """The counters of yes/no outcomes; for tests and simulations."""
    counted = {"good": good, "bad": bad}
    return {str(Counter(stream, stratum, novelty, arm, outcome)): count for outcome, count in counted.items()}


def named_by_epoch(by_epoch: Mapping[int, Mapping[str, int]]) -> dict[str, int]:
    """As they are published: a rollout's counters are one set, whatever the epoch."""
    return {f"{epoch}/{name}": count for epoch, counted in by_epoch.items() for name, count in counted.items()}


def of_epoch(counters: Mapping[str, int], epoch: int) -> dict[str, int]:
    prefix = f"{epoch}/"
    return {name.removeprefix(prefix): count for name, count in counters.items() if name.startswith(prefix)}
