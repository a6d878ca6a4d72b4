"""Counts of decisions by group, and the gaps between groups. Pure.

The gaps are those of fairlearn's ``demographic_parity_difference``, ``equal_opportunity_difference`` and
``equalized_odds_difference``: the largest rate of any group less the smallest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gateway.errors import InvalidRegistration
from gateway.messages import Array, Arrays
from gateway.registry.gates.intervals import newcombe
from gateway.registry.gates.metrics import Answers
from gateway.registry.gates.rows import groups_of

__all__ = ["RATES", "Gap", "Group", "GroupCounts"]

MOST_GROUPS = 1000

RATES: Mapping[str, tuple[str, ...]] = {
    "demographic_parity": ("selection rate",),
    "equal_opportunity": ("true positive rate",),
    "equalized_odds": ("true positive rate", "false positive rate"),
}
"""A gap to the rates of which the widest difference counts."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows; those that got the positive answer; those that should have; those of both."""

    rows: int
    chosen: int
    deserving: int
    both: int

    def rate(self, name: str) -> tuple[int, int]:
        """Hits, and of how many."""
        if name == "selection rate":
            return self.chosen, self.rows
        if name == "true positive rate":
            return self.both, self.deserving
        return self.chosen - self.both, self.rows - self.deserving


@dataclass(frozen=True, slots=True)
class Gap:
    """``rate`` differs by ``value`` between the groups ``high`` and ``low``."""

    rate: str
    value: float
    interval: tuple[float, float]
    high: str
    low: str


class GroupCounts:
    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._counts: dict[str, Array] = {}

    def add(self, beside: Arrays, answers: Answers) -> None:
        names, places = np.unique(groups_of(beside, self._names), return_inverse=True)
        chosen, deserving = answers.predicted == answers.positive, answers.truth == answers.positive
        columns = (np.ones(len(places)), chosen, deserving, chosen & deserving)
        counted = np.stack([np.bincount(places, column, len(names)) for column in columns], axis=1)
        for name, row in zip(names.tolist(), counted, strict=True):
            self._counts[name] = self._counts.get(name, np.zeros(4)) + row
        if len(self._counts) > MOST_GROUPS:
            raise InvalidRegistration(
                f"{' and '.join(self._names)} make more than {MOST_GROUPS} groups; choose columns with few values"
            )

    def groups(self) -> dict[str, Group]:
        return {name: Group(*(int(value) for value in self._counts[name])) for name in sorted(self._counts)}

    def gap(self, kind: str, min_rows: int, confidence: float) -> Gap | None:
        """The widest, of groups with at least ``min_rows`` rows in the rate; None of fewer than two."""
        gaps = [self._gap(rate, min_rows, confidence) for rate in RATES[kind]]
        return max((gap for gap in gaps if gap is not None), key=lambda gap: gap.value, default=None)

    def _gap(self, rate: str, min_rows: int, confidence: float) -> Gap | None:
        held = {name: group.rate(rate) for name, group in self.groups().items()}
        judged = {name: counts for name, counts in held.items() if counts[1] >= min_rows}
        if len(judged) < 2:
            return None
        high = max(judged, key=lambda name: judged[name][0] / judged[name][1])
        others = [name for name in judged if name != high]
        low = min(others, key=lambda name: judged[name][0] / judged[name][1])
        value = judged[high][0] / judged[high][1] - judged[low][0] / judged[low][1]
        return Gap(rate, value, newcombe(judged[high], judged[low], confidence), high, low)
