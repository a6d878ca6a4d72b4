"""The requests that a simulated rollout meets: when each came, whose it was, and what the known good made of it.

A stream is either made up (:func:`made_up`) or recorded (:mod:`gateway.control.simulation.recorded`).
Keys are numbers from 0 on; the place of a key in the split is drawn anew for each run, since a run
stands for one of the routes on which the same plan could have met the same users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["KEY_SPACE", "UNKNOWN", "Arrivals", "Booleans", "Floats", "Integers", "Traffic", "made_up"]

KEY_SPACE = 2**32
UNKNOWN = -1
"""Recorded outcome of a request that another version than the baseline answered."""

Booleans: TypeAlias = npt.NDArray[np.bool_]
Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

BURST_S = 10.0
BURST_RATE = 0.3


@dataclass(frozen=True, slots=True)
class Arrivals:
    """``times_s`` ascend from 0; ``keys`` are in ``range(key_count)``. ``failed`` and ``slow`` are what was recorded of
    the baseline (1, 0 or UNKNOWN), None where outcomes are drawn. ``bursts``: when every version fails more often."""

    times_s: Floats
    keys: Integers
    key_count: int
    failed: Integers | None = None
    slow: Integers | None = None
    bursts: tuple[float, ...] = ()

    def __repr__(self) -> str:
        kind = "made up" if self.failed is None else "recorded"
        return f"<Arrivals [{kind} | {len(self.times_s)} requests | {self.key_count} keys | {self.length_s:.0f} s]>"

    @property
    def length_s(self) -> float:
        return float(self.times_s[-1]) if len(self.times_s) else 0.0

    def in_burst(self) -> Booleans:
        """Which requests fall into a burst."""
        inside: Booleans = np.zeros(len(self.times_s), dtype=np.bool_)
        for start in self.bursts:
            inside |= (self.times_s >= start) & (self.times_s < start + BURST_S)
        return inside


@dataclass(frozen=True, slots=True)
class Traffic:
    """What to make up: ``requests`` at ``rate`` a second by ``keys`` users (0: each request its own), of whom with
    ``zipf`` a few send most (the k-th most busy as often as k to the power of -zipf), with ``bursts`` of
    failures that hit all versions alike."""

    requests: int = 50_000
    rate: float = 50.0
    keys: int = 10_000
    zipf: float | None = None
    bursts: int = 0


def made_up(traffic: Traffic, draw: np.random.Generator) -> Arrivals:
    """A Poisson stream."""
    times = np.cumsum(draw.exponential(1.0 / traffic.rate, traffic.requests))
    times -= times[0] if len(times) else 0.0
    length = float(times[-1]) if len(times) else 0.0
    keys = _keys(traffic, draw)
    bursts = tuple(sorted(float(start) for start in draw.uniform(0.0, length, traffic.bursts)))
    return Arrivals(times, keys, traffic.keys or traffic.requests, bursts=bursts)


def _keys(traffic: Traffic, draw: np.random.Generator) -> Integers:
    if not traffic.keys:
        return np.arange(traffic.requests, dtype=np.int64)
    if traffic.zipf is None:
        return draw.integers(traffic.keys, size=traffic.requests)
    popularity = np.arange(1, traffic.keys + 1, dtype=np.float64) ** -traffic.zipf
    return np.searchsorted(np.cumsum(popularity / popularity.sum())[:-1], draw.random(traffic.requests), side="right")
