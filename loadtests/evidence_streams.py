"""Made-up streams of requests for the benchmarks of evidence: who asks, which arm answers, whether it fails.

In all but ``detection`` the versions are equal: whether a request fails depends on its key, its time and chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.control.collector import TICK_S
from gateway.control.start_order import HOLD_SHRINKS, HOLD_TIMES, LEAST_HOLD_S, MOST_HOLD_S

__all__ = ["SCENARIOS", "WEIGHT", "WEIGHTS", "Stream", "counting_order", "detection"]

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WEIGHT = 0.05
WEIGHTS = (0.05, 0.25, 0.5, 0.1)
KEYS = 3_000
"""Of a Zipf distribution; some send thousands of requests."""
BURSTS, BURST_REQUESTS, BURST_RATE = 10, 100, 0.3
REQUESTS_A_SECOND = 100.0
RETRIES = 2


@dataclass(frozen=True, slots=True)
class Stream:
    """One run, a value for each request. ``fresh``: the key's first in the run; ``first``: its first in its epoch."""

    candidate: Bools
    bad: Bools
    fresh: Bools
    first: Bools
    epoch: Integers


Make = Callable[[np.random.Generator, int, float], Stream]


def _keyless(rng: np.random.Generator, bad: Bools) -> Stream:
    size = len(bad)
    every = np.ones(size, dtype=np.bool_)
    return Stream(rng.random(size) < WEIGHT, bad, every, every, np.zeros(size, dtype=np.int64))


def plain(rng: np.random.Generator, size: int, rate: float) -> Stream:
    return _keyless(rng, rng.random(size) < rate)


def bursts(rng: np.random.Generator, size: int, rate: float) -> Stream:
    """Ten times a hundred requests, on either arm, fail with 30%."""
    rates = np.full(size, rate)
    for start in rng.integers(0, size - BURST_REQUESTS, BURSTS):
        rates[start : start + BURST_REQUESTS] = BURST_RATE
    return _keyless(rng, rng.random(size) < rates)


def slower_candidate(rng: np.random.Generator, size: int, rate: float) -> Stream:
    """Bursts again, and the candidate takes a hundred times as long, so what it says of a burst is known when that is
    long over. Outcomes stand in the order in which they are counted."""
    stream = bursts(rng, size, rate)
    took_s = np.where(stream.candidate, 1.0, 0.01) * (0.5 + rng.random(size))
    order = counting_order(np.arange(size) / REQUESTS_A_SECOND, took_s)
    return Stream(stream.candidate[order], stream.bad[order], stream.fresh, stream.first, stream.epoch)


def counting_order(began_s: Floats, took_s: Floats) -> Integers:
    """Which outcomes are counted first: the product's ``StartOrder`` on arrays, held equal to it by a test."""
    known = np.argsort(began_s + took_s, kind="stable")
    faded = -np.log(HOLD_SHRINKS) * np.floor((began_s + took_s)[known] / TICK_S)
    longest = np.log(HOLD_TIMES * np.minimum(took_s[known], MOST_HOLD_S / HOLD_TIMES)) + faded
    hold_s = np.maximum(np.exp(np.maximum.accumulate(longest) - faded), LEAST_HOLD_S)
    order: Integers = known[np.argsort(began_s[known] + hold_s, kind="stable")]
    return order


def few_keys(rng: np.random.Generator, size: int, rate: float) -> Stream:
    """A few keys send most, and a key's requests fail always or never."""
    return _keyed(rng, size, rate, (WEIGHT,))


def changing_weights(rng: np.random.Generator, size: int, rate: float) -> Stream:
    """As before, through four epochs: the keys return, most to the arm that they had."""
    return _keyed(rng, size, rate, WEIGHTS)


def _keyed(rng: np.random.Generator, size: int, rate: float, weights: tuple[float, ...]) -> Stream:
    popularity = 1.0 / np.arange(1, KEYS + 1) ** 1.1
    keys = rng.choice(KEYS, size, p=popularity / popularity.sum())
    places, fails = rng.random(KEYS), rng.random(KEYS) < rate
    epoch = np.arange(size) * len(weights) // size
    candidate = places[keys] < np.array(weights)[epoch]
    return Stream(candidate, fails[keys], _firsts(keys), _firsts(epoch * KEYS + keys), epoch)


def with_fallback(rng: np.random.Generator, size: int, rate: float) -> Stream:
    """The known good answers for whichever version failed, so that clients see fewer errors; half of those clients ask
    again at once, up to twice, and such requests fail with 50%. What counts is the first outcome of the version chosen
    for the key."""
    users = np.repeat(np.arange(size), 1 + RETRIES)[:size]
    asked = rng.random(size) < rate
    again = np.concatenate(([False], users[1:] == users[:-1]))
    bad = np.where(again, rng.random(size) < 0.5, asked)
    first_failed = np.repeat(bad[~again], 1 + RETRIES)[:size]
    sent = ~again | (first_failed & (rng.random(size) < 0.5))
    users, bad = users[sent], bad[sent]
    candidate = (rng.random(size) < WEIGHT)[users]
    fresh = _firsts(users)
    return Stream(candidate, bad, fresh, fresh, np.zeros(len(users), dtype=np.int64))


SCENARIOS: Mapping[str, Make] = {
    "every request its own key": plain,
    "errors tied to few keys (Zipf)": few_keys,
    "bursts that hit both arms": bursts,
    "the same, and the candidate is slow": slower_candidate,
    "weights that change, the same keys": changing_weights,
    "fallback on, clients ask again": with_fallback,
}


def detection(rng: np.random.Generator, size: int, baseline: float, candidate: float) -> Stream:
    """The candidate is worse."""
    arms = rng.random(size) < WEIGHT
    stream = _keyless(rng, rng.random(size) < np.where(arms, candidate, baseline))
    return Stream(arms, stream.bad, stream.fresh, stream.first, stream.epoch)


def _firsts(keys: Integers) -> Bools:
    """Whether no earlier request has the key; keys are small numbers."""
    first = np.full(int(keys.max()) + 1, len(keys))
    np.minimum.at(first, keys, np.arange(len(keys)))
    found = np.zeros(len(keys), dtype=np.bool_)
    found[first[first < len(keys)]] = True
    return found
