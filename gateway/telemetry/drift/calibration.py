"""What the budget of false alarms comes to on a version's own reference: simulated, so that the promise can be checked.

Live rows are drawn from what the reference leaves possible (a Dirichlet around its counts), in looks of changing size,
and judged as in earnest, but at a level that a few hundred looks do reach: 4 nats, a false alarm in 55 bets. Alarms are
counted, an alarm begins anew. How many there are of those promised at that level is the *ratio*; the rate at the real
threshold is the promise times it, since above a level e-values of stationary rows fall off as their reciprocal or
faster. A ratio above 1 (the numbers in each cell are too few for what the proof takes for granted) raises the
threshold; one below 1 lowers nothing: the proof's promise stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from gateway.telemetry.drift.cells import Counts
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.starts import stays

__all__ = ["Calibration", "calibrate"]

LEVEL = 4.0
LOOKS = 100
FEATURES = 32
"""Of a wide model so many are simulated, evenly spaced."""
_FEWEST, _MOST = 50, 5_000
_MOST_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Calibration:
    """``alarms`` there were in the simulation, ``promised`` at most were to be."""

    bets: int
    alarms: int
    promised: float

    @property
    def ratio(self) -> float:
        """Of achieved to promised. Half an alarm is taken for none: so few bets do not show that there are none."""
        return max(0.5, float(self.alarms)) / self.promised if self.promised else 1.0

    @property
    def correction(self) -> float:
        """Nats by which the threshold rises: when more alarms came than chance would make of the promise."""
        surprising = self.alarms > self.promised + 3.0 * math.sqrt(self.promised)
        return math.log(self.ratio) if surprising else 0.0


def calibrate(reference: Reference, *, seed: int = 1, looks: int = LOOKS) -> Calibration:
    """The same for a reference and a seed, wherever it is done: 1 s of work at most."""
    reference = _some(reference)
    every = len(reference.cells.begins)
    if not every:
        return Calibration(0, 0, 0.0)
    rng = np.random.default_rng(seed)
    shares = _possible(reference, rng)
    total = np.zeros(reference.cells.size, np.int64)
    serials, before = [0], [total]
    since, alarms = np.zeros(every, np.int64), 0
    for look in range(1, looks + 1):
        total = total + _drawn(shares, int(np.exp(rng.uniform(math.log(_FEWEST), math.log(_MOST)))), rng)
        windows = total[None, :] - np.array(before)
        log_e = np.where(np.array(serials)[:, None] >= since, reference.log_e_of_cells(windows), -np.inf)
        over = np.logaddexp.reduce(log_e, axis=0) >= LEVEL
        alarms += int(over.sum())
        since[over] = look
        first = reference.cells.slice(0)
        kept = [
            place
            for place, number in enumerate(serials)
            if stays(number, look) and (total - before[place])[first].sum() <= _MOST_ROWS
        ]
        serials, before = [*(serials[place] for place in kept), look], [*(before[place] for place in kept), total]
    bets = looks * every
    return Calibration(bets, alarms, bets * math.exp(-LEVEL))


def _some(reference: Reference) -> Reference:
    """Their places in the counts stay what they are."""
    features = reference.plan.features
    chosen = sorted({round(place) for place in np.linspace(0, len(features) - 1, min(len(features), FEATURES))})
    plan = replace(reference.plan, features=tuple(features[place] for place in chosen), blocks=())
    return Reference.of(plan, reference.counts)


def _possible(reference: Reference, rng: np.random.Generator) -> list[np.ndarray]:
    credited = reference.credited
    places = [reference.cells.slice(index) for index in range(len(reference.cells.begins))]
    return [rng.dirichlet(credited[place]) for place in places]


def _drawn(shares: list[np.ndarray], rows: int, rng: np.random.Generator) -> Counts:
    return np.concatenate([rng.multinomial(rows, share) for share in shares])
