"""Evidence that two versions of one route are not given the same inputs, whatever the world does.

Both are counted with one plan over the same time, so a world that moves, moves both. "One distribution" is bet against
with "each its own": the ratio of Dirichlet-multinomial likelihoods of each arm alone to that of both together (Gunel
and Dickey, *Bayes factors for independence in contingency tables*, 1974), for priors without any preference, so that
it does not matter where the world has moved to. A window is the counts of the one arm, then those of the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.telemetry.drift.cells import Counts, Floats
from gateway.telemetry.drift.distributions import log_gamma
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.sizes import Effect, angles

__all__ = ["Arms"]

_PRIORS = (0.5, 2.0)


@dataclass(frozen=True, slots=True, eq=False)
class Arms:
    """Judges the input features of ``reference``'s plan."""

    reference: Reference

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.reference.plan.features if feature.side == "input")

    @property
    def _inputs(self) -> list[int]:
        return [place for place, feature in enumerate(self.reference.plan.features) if feature.side == "input"]

    def _both(self, windows: Counts) -> tuple[Floats, Floats]:
        size, cells = self.reference.plan.size, self.reference.cells
        return (
            cells.count(windows[:, :size]).astype(np.float64),
            cells.count(windows[:, size:]).astype(np.float64),
        )

    def log_e(self, windows: Counts) -> Floats:
        one, other = self._both(windows)
        parts = [self._log(one, prior) + self._log(other, prior) - self._log(one + other, prior) for prior in _PRIORS]
        found: Floats = np.logaddexp.reduce(parts, axis=0) - math.log(len(_PRIORS))
        return found[:, self._inputs]

    def effects(self, windows: Counts, chosen: NDArray[np.intp]) -> list[Effect]:
        """As of a feature against its reference, in the window that ``chosen`` names for each input."""
        cells = self.reference.cells
        places = np.zeros(len(cells.begins), np.intp)
        places[self._inputs] = chosen
        one, other = (part[cells.spread(places), np.arange(cells.size)] for part in self._both(windows))
        bounds = angles(cells, one, other, cells.sums(one), cells.sums(other))
        return [Effect(*(float(part[place]) for part in bounds)) for place in self._inputs]

    def log_return(self, windows: Counts, name: str, drifted: Counts) -> Floats:
        """Against "they are still two": the same bet the other way round."""
        return -self.log_e(windows)[:, self.names.index(name)]

    def rows(self, windows: Counts) -> Counts:
        """Of the arm that had fewer."""
        found: Counts = np.minimum(windows[:, 0], windows[:, self.reference.plan.size])
        return found

    def _log(self, live: Floats, prior: float) -> Floats:
        cells = self.reference.cells
        some = live > 0.0
        terms = np.zeros(live.shape)
        terms[some] = log_gamma(live[some] + prior) - math.lgamma(prior)
        total = prior * cells.widths.astype(np.float64)
        found: Floats = cells.sums(terms) - log_gamma(cells.sums(live) + total) + log_gamma(total)
        return found
