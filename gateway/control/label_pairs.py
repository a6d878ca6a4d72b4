"""Which late labels count now, so that those of both arms are of requests of the same time. Pure.

Where one arm's labels come later than the other's (its answers are acted on later, say), labels of the same seconds
are of different hours, and while answers grow better or worse in general, that alone would speak for or against the
candidate. So a label is counted when the other arm has its part of labels of the same while: in each cell of requests'
times the two are let through in the proportion of the split, first come, first counted. Labels that take equally long
come in that proportion anyway, and hardly wait.

Cells are so wide that chance leaves few of a cell over, and merge as they become more: what was left over then finds
its counterpart in a neighbour. What a label says is not asked, so none is let through or kept for that.

Not chosen: to hold a label for as long as the other arm's seem to take. How long labels take is not known before they
have all come, and in the meantime the slower arm's look quicker than they are (means of 10 and 30 minutes: 20 of 20
equal candidates rolled back while scores rose, here none).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Generic, TypeVar

from gateway.control.tallies import ARMS, BASELINE, CANDIDATE

__all__ = ["MOST_WAITING", "LabelPairs"]

MOST_CELLS, LABELS_A_CELL, NARROWEST_S = 32, 8, 1.0
"""Of the arm that has fewer labels, so many a cell on average, where there are more than two."""

MOST_WAITING = 10_000
"""Labels of a stratum. Where more would wait those go for which the other arm's have come, as far as they do; where
that is not enough only every second key's counts from then on, of both arms alike."""

SETTLED = 0.8
"""Of the other arm's labels, as many as come on average: more will hardly."""

MOST_ODDS = 32.0
"""Labels of one arm for each of the other. Of an arm that has more keys only every second, fourth, ... counts: more
would prove next to nothing, and what chance leaves over of them would be too many before the other has a hundred."""

T = TypeVar("T")


@dataclass(slots=True)
class _Cell(Generic[T]):
    """``came`` and ``passed``: by arm, how many labels; ``waiting``: the others, each with the place of its key."""

    came: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ARMS, 0))
    passed: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ARMS, 0))
    waiting: dict[str, deque[tuple[int, T]]] = field(default_factory=lambda: {arm: deque() for arm in ARMS})

    def released(self, odds: float) -> list[T]:
        found = []
        for arm, part in ((CANDIDATE, self.came[BASELINE] * odds), (BASELINE, self.came[CANDIDATE] / odds)):
            waiting, most = self.waiting[arm], ceil(part - 1e-9)
            while waiting and self.passed[arm] < most:
                self.passed[arm] += 1
                found.append(waiting.popleft()[1])
        return found

    def take_over(self, other: _Cell[T]) -> None:
        for arm in ARMS:
            self.came[arm] += other.came[arm]
            self.passed[arm] += other.passed[arm]
            self.waiting[arm].extend(other.waiting[arm])

    def settle(self, came: Mapping[str, int]) -> None:
        """``came``: of all cells. Lets go what waits for labels that an arm which has fewer of them will not get."""
        for arm, other in ((CANDIDATE, BASELINE), (BASELINE, CANDIDATE)):
            if self.came[other] and self.came[other] * came[arm] >= SETTLED * came[other] * self.came[arm]:
                self.came[arm] -= len(self.waiting[arm])
                self.waiting[arm].clear()

    def thin(self, every: Mapping[str, int]) -> None:
        for arm, waiting in self.waiting.items():
            kept = deque(one for one in waiting if one[0] % every[arm] == 0)
            self.came[arm] -= len(waiting) - len(kept)
            self.waiting[arm] = kept


@dataclass(slots=True)
class _Stratum(Generic[T]):
    """``cells`` by the requests' time in ``width_s``; ``every``: by arm, which of the keys count, so that there are
    ``odds`` of the candidate's for one of the baseline's."""

    odds: float
    every: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ARMS, 1))
    cells: dict[int, _Cell[T]] = field(default_factory=dict)
    width_s: float = NARROWEST_S
    came: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ARMS, 0))
    waiting: int = 0

    @classmethod
    def of(cls, share: float) -> _Stratum[T]:
        stratum = cls(share / (1.0 - share))
        while stratum.odds > MOST_ODDS:
            stratum.odds, stratum.every[CANDIDATE] = stratum.odds / 2.0, 2 * stratum.every[CANDIDATE]
        while stratum.odds < 1.0 / MOST_ODDS:
            stratum.odds, stratum.every[BASELINE] = stratum.odds * 2.0, 2 * stratum.every[BASELINE]
        return stratum

    def take(self, arm: str, place: int, at_s: float, item: T) -> list[T]:
        if place % self.every[arm]:
            return []
        cell = self.cells.setdefault(int(at_s // self.width_s), _Cell())
        cell.came[arm] += 1
        cell.waiting[arm].append((place, item))
        self.came[arm] += 1
        found = cell.released(self.odds)
        while len(self.cells) > max(2, min(MOST_CELLS, min(self.came.values()) // LABELS_A_CELL)):
            found += self._merged()
        self.waiting += 1 - len(found)
        if self.waiting > MOST_WAITING:
            self._thin()
        return found

    def _merged(self) -> list[T]:
        """Two cells become one, and what they let through then."""
        narrow, self.cells = self.cells, {}
        self.width_s *= 2.0
        for place, cell in narrow.items():
            self.cells.setdefault(place // 2, _Cell()).take_over(cell)
        return [item for cell in self.cells.values() for item in cell.released(self.odds)]

    def _thin(self) -> None:
        for cell in self.cells.values():
            cell.settle(self.came)
        if self._left() > MOST_WAITING // 2:
            self.every = {arm: 2 * every for arm, every in self.every.items()}
            for cell in self.cells.values():
                cell.thin(self.every)
        self.waiting = self._left()

    def _left(self) -> int:
        return sum(len(waiting) for cell in self.cells.values() for waiting in cell.waiting.values())


class LabelPairs(Generic[T]):
    """Labels by stratum; what belongs to a rollout that has ended is let go by ``keep``."""

    def __init__(self) -> None:
        self._strata: dict[str, dict[Hashable, _Stratum[T]]] = {}

    def __repr__(self) -> str:
        return f"<LabelPairs [{self.waiting} waiting]>"

    @property
    def waiting(self) -> int:
        return sum(stratum.waiting for strata in self._strata.values() for stratum in strata.values())

    def take(
        self, scope: str, stratum: Hashable, arm: str, *, place: int, at_s: float, share: float, item: T
    ) -> list[T]:
        """What counts now that this one has come, it or others. ``at_s``: when the answer was given; ``share``: the
        candidate's, of the keys of the stratum, always the same."""
        strata = self._strata.setdefault(scope, {})
        if stratum not in strata:
            strata[stratum] = _Stratum.of(share)
        return strata[stratum].take(arm, place, at_s, item)

    def keep(self, scopes: set[str]) -> None:
        """Other rollouts are forgotten."""
        self._strata = {scope: strata for scope, strata in self._strata.items() if scope in scopes}
