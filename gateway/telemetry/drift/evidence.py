"""Evidence of drift as e-values: how many times over a bet on "these rows are not the reference's" has paid.

**No drift.** The share of rows in each cell is unknown, but the reference's counts tell of it: given them, live rows
are Dirichlet-multinomial with the reference's counts (and a little) as parameters. So a small reference raises no
alarm by its own noise, however many rows come: what its noise could make is inside the null (``nulls``).

**Drift** is a mixture of guesses, each a distribution of its own that does not look at the live rows: the ordered cells
tilted one way or the other by 0.1 to 2 standard deviations, made wider or narrower, or any change at all, about as
large as a Dirichlet around the reference makes it. A guess over the null is a martingale in the rows, whichever way
they are cut into looks, and a mixture of guesses is one as well (Ville: it ever reaches 1/alpha with chance alpha at
most).

**The whole** is seen through the mean embedding: random cosines and sines of many columns together, whose means differ
when the joint distribution does. A number in [-1, 1] with mean mu pays no more than a coin of the same mean (a bet is
convex in it), so each wave is bet on as if it were a coin with (n + sum) / 2 heads. Waves hang together in ways nobody
knows; the average of their e-values is one e-value however they do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.telemetry.drift.cells import Cells, Counts, Floats
from gateway.telemetry.drift.nulls import Null, dirichlet, risen
from runtimes.counting import COSINE_UNITS, Plan

__all__ = ["Reference", "log_mean_exp"]

_SHIFTS = (0.1, 0.2, 0.4, 0.7, 1.2, 2.0)
_WIDTHS = (0.1, 0.25, 0.5)
_LOOSENESS = (4.0, 32.0, 256.0)
_SHARE_OF_SHIFTS, _SHARE_OF_WIDTHS = 0.5, 0.2
"""Of the stake; the rest is on any change."""
_SMALL_REFERENCE = 5_000
"""Below it a guess knows that the shares that it tilts are uncertain. It costs eighteen times as much, and with 1,000
rows finds 0.2 deviations where a sure guess never would; with 10,000 nobody can tell the two apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What a version is judged by: the counts of its reference data, and the bets that follow from them.

    Evidence has one column for each feature, then one for each block of the plan: ``names`` tells them. ``segments``
    are the counts of consecutive parts of it.
    """

    plan: Plan
    cells: Cells
    counts: Counts
    rows: int
    cell_counts: Counts
    credited: Floats
    _null: Null
    _log_guesses: Floats
    _log_stakes: Floats
    segments: tuple[Counts, ...] = ()

    @classmethod
    def of(cls, plan: Plan, counts: Counts, segments: tuple[Counts, ...] = ()) -> Reference:
        cells = Cells.of(plan)
        cell_counts = cells.known(counts)
        credited = cell_counts + cells.prior
        shares = credited / cells.spread(cells.sums(credited))
        guesses, stakes = _guesses(cells, shares)
        null = Null.of(cells, cell_counts, credited)
        return cls(plan, cells, counts, int(counts[0]), cell_counts, credited, null, guesses, stakes, segments)

    @property
    def _places(self) -> Mapping[str, int]:
        return {feature.name: place for place, feature in enumerate(self.plan.features)}

    @property
    def names(self) -> tuple[str, ...]:
        return (*(feature.name for feature in self.plan.features), *(block.name for block in self.plan.blocks))

    @property
    def sides(self) -> tuple[str, ...]:
        return (*(feature.side for feature in self.plan.features), *(block.side for block in self.plan.blocks))

    @property
    def shares(self) -> Floats:
        """Of each cell, as the reference lets one expect."""
        found: Floats = self.credited / self.cells.spread(self.cells.sums(self.credited))
        return found

    def log_e(self, windows: Counts) -> Floats:
        """For windows (s, size) of counts: their log e-values (s, features and blocks)."""
        features = self.log_e_of_cells(self.cells.count(windows))
        blocks = [self._block(windows, index) for index in range(len(self.plan.blocks))]
        return np.column_stack([features, *blocks])

    def log_e_of_cells(self, counts: Counts) -> Floats:
        """Of the features alone, for windows (s, cells)."""
        cells, live = self.cells, counts.astype(np.float64)
        if not cells.size:
            return np.zeros((len(live), 0))
        null = self._null.log_probability(live)
        parts = [
            stake + self._guessed(guess, live) for guess, stake in zip(self._log_guesses, self._log_stakes, strict=True)
        ]
        loose = np.log((1.0 - _SHARE_OF_SHIFTS - _SHARE_OF_WIDTHS) / len(_LOOSENESS))
        free = np.isneginf(self._log_stakes).all(axis=0)  # no order to tilt: all of the stake is on any change
        loose_stake = np.where(free, -math.log(len(_LOOSENESS)), loose)
        shares = self.shares
        parts += [loose_stake + dirichlet(cells, looseness * shares, live) for looseness in _LOOSENESS]
        found: Floats = np.logaddexp.reduce(np.stack(parts), axis=0) - null
        return found

    def _guessed(self, log_guess: Floats, live: Floats) -> Floats:
        if self.rows >= _SMALL_REFERENCE:
            found: Floats = self.cells.sums(live * log_guess)
            return found
        sure = self.cells.spread(self.cells.sums(self.credited))
        return dirichlet(self.cells, sure * np.exp(log_guess), live)

    def _block(self, windows: Counts, index: int) -> Floats:
        block = self.plan.blocks[index]
        waves = np.r_[block.cos, block.sin]
        known = _heads(self.counts[None, waves], self.counts[:1, None])[0]
        live = _heads(windows[:, waves], windows[:, :1])
        null = _coins(known + _HALF, live)
        shares = (known + _HALF) / (known + _HALF).sum(axis=-1, keepdims=True)
        bets = np.logaddexp.reduce([_coins(looseness * shares, live) for looseness in _LOOSENESS], axis=0)
        return log_mean_exp(bets - math.log(len(_LOOSENESS)) - null, axis=-1)

    def log_return(self, windows: Counts, name: str, drifted: Counts) -> Floats:
        """How many times better the reference tells of these windows (s, size) than ``drifted`` does, the counts that
        raised the alarm of one feature or block: log e-values against "it is still as it was then"."""
        if name in self._places:
            place = self.cells.slice(self._places[name])
            live = self.cells.count(windows)[:, place].astype(np.float64)
            then = self.cells.count(drifted)[place] + self.cells.prior[place]
            return _coins(self.credited[place], live) - _coins(then, live)
        block = next(block for block in self.plan.blocks if block.name == name)
        waves = np.r_[block.cos, block.sin]
        live = _heads(windows[:, waves], windows[:, :1])
        known, then = (_heads(vector[None, waves], vector[:1, None])[0] + _HALF for vector in (self.counts, drifted))
        return log_mean_exp(_coins(known, live) - _coins(then, live), axis=-1)

    def wave_shares(self, counts: Counts, index: int) -> Floats:
        """Of a block's waves, each as a coin: the mean share of heads in these counts."""
        block = self.plan.blocks[index]
        waves = np.r_[block.cos, block.sin]
        return _heads(counts[None, waves], counts[:1, None])[0, :, 0] / max(1, int(counts[0]))


_HALF = 0.5


def log_mean_exp(values: Floats, axis: int) -> Floats:
    found: Floats = np.logaddexp.reduce(values, axis=axis) - math.log(values.shape[axis])
    return found


def _guesses(cells: Cells, shares: Floats) -> tuple[Floats, Floats]:
    """Log shares of each tilted guess (g, cells), and the log stake on it (g, features); none where nothing is
    ordered."""
    scores = cells.scores(shares)
    squares = np.where(cells.ordered, scores * scores - 1.0, 0.0)
    tilts = [(size * sign * scores, _SHARE_OF_SHIFTS / (2 * len(_SHIFTS))) for size in _SHIFTS for sign in (1.0, -1.0)]
    tilts += [
        (size * sign * squares / 2.0, _SHARE_OF_WIDTHS / (2 * len(_WIDTHS))) for size in _WIDTHS for sign in (1.0, -1.0)
    ]
    can = cells.sums((scores != 0.0).astype(np.int64)) > 0
    guesses, stakes = [], []
    for tilt, stake in tilts:
        tilted = shares * np.exp(tilt)
        guesses.append(np.log(tilted / cells.spread(cells.sums(tilted))))
        stakes.append(np.where(can, math.log(stake), -np.inf))
    return np.array(guesses), np.array(stakes)


def _heads(sums: Counts, rows: Counts) -> Floats:
    """Waves (s, w) of ``rows`` (s, 1) as coins: heads and tails (s, w, 2), of fractions as well."""
    heads = np.clip((rows + sums / COSINE_UNITS) / 2.0, 0.0, rows)
    return np.stack([heads, rows - heads], axis=-1)


def _coins(parameters: Floats, live: Floats) -> Floats:
    total, rows = parameters.sum(axis=-1), live.sum(axis=-1)
    terms: Floats = risen(np.broadcast_to(parameters, live.shape), live).sum(axis=-1)
    return terms - risen(np.broadcast_to(total, rows.shape), rows)
