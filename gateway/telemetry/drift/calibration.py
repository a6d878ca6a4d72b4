"""What the budget of false alarms comes to on a version's own reference, so that the promise can be checked: simulated,
and measured on rows that were held out.

Live rows are drawn from what the reference leaves possible (a Dirichlet around its counts), in looks of changing size,
and judged as in earnest, but at a level that a few hundred looks do reach: 4 nats, a false alarm in 55 bets. Alarms are
counted, an alarm begins anew. How many there are of those promised at that level is the *ratio*; the rate at the real
threshold is the promise times it, since above a level e-values of stationary rows fall off as their reciprocal or
faster. A ratio above 1 (the numbers in each cell are too few for what the proof takes for granted) raises the
threshold; one below 1 lowers nothing: the proof's promise stands.

The simulation believes what the proof does: rows drawn one by one from one law. So the same is done with rows that
nothing was fitted to: each part of the reference (its rows as they came) is held out in turn, judged by the others, in
looks like live ones that use no row twice. There the ratio is above 1 when the parts differ: data in order of time or
of source. It changes no threshold: what it shows is no chance, and such alarms will come in earnest, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise

import numpy as np

from gateway.telemetry.drift.cells import Counts
from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.starts import stays

__all__ = ["Calibration", "calibrate", "measure_held_out"]

LEVEL = 4.0
LOOKS = 100
FEATURES = 32
"""Of a wide model so many are simulated, evenly spaced."""
PARTS = 8
"""Of the reference, each held out once."""
_FEWEST, _MOST = 50, 5_000
_MOST_ROWS = 20_000
_MOST_DEALT = 10**9
"""Rows that numpy deals from."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """``alarms`` there were, ``promised`` at most were to be."""

    bets: int
    alarms: int
    promised: float

    @property
    def ratio(self) -> float:
        """Of achieved to promised. Half an alarm is taken for none: so few bets do not show that there are none."""
        return max(0.5, float(self.alarms)) / self.promised if self.promised else 1.0

    @property
    def surprising(self) -> bool:
        """More alarms came than chance would make of the promise."""
        return self.alarms > self.promised + 3.0 * math.sqrt(self.promised)

    @property
    def correction(self) -> float:
        """Nats by which the threshold rises."""
        return math.log(self.ratio) if self.surprising else 0.0


def calibrate(reference: Reference, *, seed: int = 1, looks: int = LOOKS) -> Calibration:
    """Simulated. The same for a reference and a seed, wherever it is done: 1 s of work at most."""
    reference = _some(reference)
    rng = np.random.default_rng(seed)
    shares = _possible(reference, rng)
    alarms = _alarms(reference, (_drawn(shares, _look_rows(rng), rng) for _ in range(looks)))
    return _of(len(shares) * looks, alarms)


def measure_held_out(reference: Reference, *, seed: int = 1) -> Calibration:
    """On the reference's own rows, which the others judge; no bets where it has too few parts, or ones that are no part
    of it."""
    reference = _some(reference)
    rng, bets, alarms = np.random.default_rng(seed), 0, 0
    for part in _parts(reference.segments):
        if not _within(reference, part):
            return _of(0, 0)
        looks = list(islice(_dealt(reference, part, rng), LOOKS // PARTS))
        bets += len(looks) * len(reference.cells.begins)
        alarms += _alarms(Reference.of(reference.plan, reference.counts - part), looks)
    return _of(bets, alarms)


def _of(bets: int, alarms: int) -> Calibration:
    return Calibration(bets, alarms, bets * math.exp(-LEVEL))


def _alarms(reference: Reference, looks: Iterable[Counts]) -> int:
    """Of looks (cells) that are judged one after the other; with each one begins another bet."""
    cells = reference.cells
    total = np.zeros(cells.size, np.int64)
    serials, before = [0], [total]
    since, alarms = np.zeros(len(cells.begins), np.int64), 0
    for look, counts in enumerate(looks if cells.size else (), start=1):
        total = total + counts
        windows = total[None, :] - np.array(before)
        log_e = np.where(np.array(serials)[:, None] >= since, reference.log_e_of_cells(windows), -np.inf)
        over = np.logaddexp.reduce(log_e, axis=0) >= LEVEL
        alarms += int(over.sum())
        since[over] = look
        first = cells.slice(0)
        kept = [
            place
            for place, number in enumerate(serials)
            if stays(number, look) and (total - before[place])[first].sum() <= _MOST_ROWS
        ]
        serials, before = [*(serials[place] for place in kept), look], [*(before[place] for place in kept), total]
    return alarms


def _parts(segments: Sequence[Counts]) -> list[Counts]:
    """Consecutive segments together; none when there is no other to judge one by."""
    count = min(PARTS, len(segments))
    if count < 2:
        return []
    bounds = np.linspace(0, len(segments), count + 1).round().astype(int)
    return [np.sum(segments[begin:end], axis=0) for begin, end in pairwise(bounds)]


def _within(reference: Reference, part: Counts) -> bool:
    """Whether these can be counts of some of its rows: a profile may come from anywhere."""
    live, rest = (reference.cells.count(counts) for counts in (part, reference.counts - part))
    told = (reference.cells.sums(live) == part[0]).all()
    return bool(0 <= part[0] < _MOST_DEALT and told and (live >= 0).all() and (rest >= 0).all())


def _dealt(reference: Reference, part: Counts, rng: np.random.Generator) -> Iterator[Counts]:
    """Looks at the rows of the part, each row in one of them: of each feature in an order of its own."""
    cells = reference.cells
    left, rows = cells.count(part), int(part[0])
    while rows > 0:
        size = min(rows, _look_rows(rng))
        size = rows if rows - size < _FEWEST else size
        places = [left[cells.slice(index)] for index in range(len(cells.begins))]
        look = np.concatenate([rng.multivariate_hypergeometric(place, size, method="marginals") for place in places])
        left, rows = left - look, rows - size
        yield look


def _look_rows(rng: np.random.Generator) -> int:
    return int(np.exp(rng.uniform(math.log(_FEWEST), math.log(_MOST))))


def _some(reference: Reference) -> Reference:
    """Their places in the counts stay what they are."""
    features = reference.plan.features
    chosen = sorted({round(place) for place in np.linspace(0, len(features) - 1, min(len(features), FEATURES))})
    plan = replace(reference.plan, features=tuple(features[place] for place in chosen), blocks=())
    return Reference.of(plan, reference.counts, reference.segments)


def _possible(reference: Reference, rng: np.random.Generator) -> list[np.ndarray]:
    credited = reference.credited
    places = [reference.cells.slice(index) for index in range(len(reference.cells.begins))]
    return [rng.dirichlet(credited[place]) for place in places]


def _drawn(shares: list[np.ndarray], rows: int, rng: np.random.Generator) -> Counts:
    return np.concatenate([rng.multinomial(rows, share) for share in shares])
