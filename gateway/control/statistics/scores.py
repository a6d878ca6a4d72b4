"""Numeric quality scores: bets that the candidate's are lower than the baseline's of the same seconds.

A score is between 0 (worst) and 1 (best). For one that lies there, a guess ``g`` made before it came and a bet ``b``
below 1, ``exp(b (x - m) - c(b) (x - g)^2)`` with ``c(b) = -log(1 - b) - b`` has at most the mean 1 where ``m`` is the
mean of ``x`` (Fan, Grama and Liu, 2015; Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
betting", 2024); and so has the one with both signs turned. In a block of ``n`` scores of the candidate and ``k`` of the
baseline, let each arm's bets come to the same sum: then the mean that both would have without harm falls out of the
product, whatever it is. So scores may be worse by night, or for one rule's callers, while the weights change: what is
compared is of one stratum and one block. Blocks end by how many there are, never by what they say.

How large to bet depends on what nobody knows: a mixture over a grid is an e-process as well. Scores are integers of
``SCALE``, so that sums and squares add up over replicas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import exp, log, log1p
from typing import Any, NamedTuple

from gateway.control.statistics.findings import Finding
from gateway.control.tallies import BASELINE, CANDIDATE

__all__ = ["SCALE", "Scores", "scaled"]

SCALE = 10_000
BETS = tuple(2.0**-power for power in range(1, 9))
"""Together they cost two nats. With a tenth of the keys, and scores that deviate by 0.22, a drop of 0.3 is found in 43
of the candidate's scores at the median, one of 0.05 in 320."""


def scaled(value: float, low: float, high: float) -> int:
    """``low`` may be above ``high``: then less is better."""
    return round(SCALE * min(max((value - low) / (high - low), 0.0), 1.0))


class _Sums(NamedTuple):
    """Of one arm: whole numbers of ``SCALE``."""

    units: int = 0
    total: int = 0
    squares: int = 0

    def plus(self, other: _Sums) -> _Sums:
        return _Sums(*(one + two for one, two in zip(self, other, strict=True)))

    def less(self, other: _Sums) -> _Sums:
        return _Sums(*(one - two for one, two in zip(self, other, strict=True)))

    @property
    def mean(self) -> float:
        return self.total / self.units / SCALE

    @property
    def guess(self) -> float:
        """Of the next score."""
        return (0.5 + self.total / SCALE) / (self.units + 1.0)

    def squares_around(self, guess: float) -> float:
        x, xx = self.total / SCALE, self.squares / SCALE**2
        return max(xx - 2.0 * guess * x + self.units * guess * guess, 0.0)


NOTHING = _Sums()
_Pair = tuple[_Sums, _Sums]
"""Of the candidate and of the baseline."""


@dataclass(frozen=True, slots=True)
class Scores:
    """``used`` in bets; ``taken``: by stratum, what no block is to use again; ``pending``: what no block has used yet.
    ``pairs``: how many pairs, one score of each arm, tell as much; ``gap``: the blocks' differences of means, each as
    many times as it has pairs. ``spread``: by bet, what they may err by."""

    used: _Pair = (NOTHING, NOTHING)
    taken: Mapping[str, _Pair] = field(default_factory=dict)
    pending: _Pair = (NOTHING, NOTHING)
    pairs: float = 0.0
    gap: float = 0.0
    spread: tuple[float, ...] = (0.0,) * len(BETS)

    def new_epoch(self) -> Scores:
        """Counters begin anew. What no block has used is left out: no verdict has seen it, so nobody chose to."""
        return replace(self, taken={}, pending=(NOTHING, NOTHING))

    def advanced(self, totals: Mapping[str, Mapping[str, int]], least: int) -> Scores:
        """``least``: scores of a block, of both arms together; of each it has one at least."""
        track: Scores = replace(self, pending=(NOTHING, NOTHING))
        for stratum in sorted(totals):
            track = _bet_on(track, stratum, _pair(totals[stratum]), least)
        return track

    def finding(self, max_harm: float, level: float, low: float, high: float) -> Finding:
        """In the score's own unit; ``low`` is its worst, ``high`` its best."""
        span, (one, other) = high - low, self.used
        seen = _both(self.used, self.pending)
        units = seen[0].units, 0, seen[1].units, 0
        if not self.pairs:
            return Finding(*units, 0.0, 0.0, None, -abs(span), abs(span))
        harm_too_much = max_harm / abs(span) * self.pairs
        log_harm = _log_mean([-bet * self.gap - spread for bet, spread in zip(BETS, self.spread, strict=True)])
        log_health = _log_mean(
            [bet * (self.gap + harm_too_much) - spread for bet, spread in zip(BETS, self.spread, strict=True)]
        )
        radius = min((s + log(len(BETS) / level)) / (b * self.pairs) for b, s in zip(BETS, self.spread, strict=True))
        gap = self.gap / self.pairs
        ends = [span * min(max(end, -1.0), 1.0) for end in (gap - radius, gap + radius)]
        return Finding(
            *units,
            log_harm,
            log_health,
            span * gap,
            min(ends),
            max(ends),
            harm_pace=log_harm / one.units,
            health_pace=log_health / one.units,
            means=(low + span * one.mean, low + span * other.mean),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "used": _listed(self.used),
            "taken": {stratum: _listed(pair) for stratum, pair in self.taken.items()},
            "pending": _listed(self.pending),
            "pairs": self.pairs,
            "gap": self.gap,
            "spread": list(self.spread),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Scores:
        return cls(
            _pair_of(body["used"]),
            {stratum: _pair_of(pair) for stratum, pair in body["taken"].items()},
            _pair_of(body["pending"]),
            body["pairs"],
            body["gap"],
            tuple(body["spread"]),
        )


def _bet_on(track: Scores, stratum: str, total: _Pair, least: int) -> Scores:
    taken = track.taken.get(stratum, (NOTHING, NOTHING))
    block = total[0].less(taken[0]), total[1].less(taken[1])
    taken_now = {**track.taken, stratum: total}
    if min(*block[0], *block[1]) < 0:  # counts were lost
        return replace(track, taken=taken_now)
    one, other = block
    if not (one.units and other.units) or one.units + other.units < least:
        return replace(track, pending=_both(track.pending, block))
    pairs = 1.0 / (1.0 / one.units + 1.0 / other.units)
    off = [arm.squares_around(used.guess) for arm, used in zip(block, track.used, strict=True)]
    costs = [
        sum(_cost(bet * pairs / arm.units) * squares for arm, squares in zip(block, off, strict=True)) for bet in BETS
    ]
    return replace(
        track,
        used=_both(track.used, block),
        taken=taken_now,
        pairs=track.pairs + pairs,
        gap=track.gap + pairs * (one.mean - other.mean),
        spread=tuple(known + cost for known, cost in zip(track.spread, costs, strict=True)),
    )


def _cost(bet: float) -> float:
    return -log1p(-bet) - bet


def _log_mean(logarithms: Sequence[float]) -> float:
    """Of what each bet has made, the logarithm of the mean."""
    most = max(logarithms)
    return most + log(sum(exp(one - most) for one in logarithms) / len(logarithms))


def _pair(outcomes: Mapping[str, int]) -> _Pair:
    one, other = (
        _Sums(*(outcomes.get(f"{arm}/{part}", 0) for part in ("units", "sum", "squares")))
        for arm in (CANDIDATE, BASELINE)
    )
    return one, other


def _both(one: _Pair, other: _Pair) -> _Pair:
    return one[0].plus(other[0]), one[1].plus(other[1])


def _listed(pair: _Pair) -> list[list[int]]:
    return [list(sums) for sums in pair]


def _pair_of(body: Sequence[Sequence[int]]) -> _Pair:
    one, other = body
    return _Sums(*one), _Sums(*other)
