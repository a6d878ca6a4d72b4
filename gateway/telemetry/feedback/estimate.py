"""How right a version probably is before its labels come, from what its scores promise: marked as an estimate.

As confidence-based performance estimation does (NannyML's CBPE): an answer whose score is well calibrated is right with
that chance, so the sum of chances over all answered rows is the number of right ones to be expected, and likewise for
positives. Scores are calibrated by the labels that have come: a bin's chance is its share of events, drawn towards its
mean score as if that had been seen on ``PRIOR_ROWS`` rows. The interval holds the chance in the rows to come and in the
bins' calibration; nobody can say without labels whether scores that were calibrated still are: that is the assumption,
and where concept drift breaks it the estimate stays fair while the truth falls.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from gateway.telemetry.feedback.sums import Group

__all__ = ["estimates"]

PRIOR_ROWS = 20
_Z = 1.96


def estimates(group: Group, *, positive: str | None) -> dict[str, Any]:
    """By measure; empty where there are no scores. ``rows`` that have one; ``calibrated_by`` so many labels."""
    rows = sum(count for count, _ in group.given.values())
    if not rows:
        return {}
    right = chance = learned = 0.0
    expected = {True: [0.0, 0.0], False: [0.0, 0.0]}
    """By what the answer bets on: rows, and events to be expected among them."""
    for (place, bets), (count, total) in sorted(group.given.items()):
        labelled, events, _ = group.bins.get(place, (0, 0, None))
        p = (events + PRIOR_ROWS * total.over(count)) / (labelled + PRIOR_ROWS)
        p = min(max(p, 0.0), 1.0)
        right += count * (p if bets else 1.0 - p)
        chance += count * p * (1.0 - p)
        learned += (count / rows) ** 2 * p * (1.0 - p) / (labelled + PRIOR_ROWS)
        expected[bets][0] += count
        expected[bets][1] += count * p
    value, half = right / rows, _Z * sqrt(chance / rows**2 + learned)
    found: dict[str, Any] = {
        "accuracy": {"value": value, "low": max(0.0, value - half), "high": min(1.0, value + half)},
    }
    if positive is not None:
        found |= _of_positive(expected)
    return {
        "measures": found,
        "rows": rows,
        "calibrated_by": sum(count for count, _, _ in group.bins.values()),
        "estimate": True,
    }


def _of_positive(expected: dict[bool, list[float]]) -> dict[str, Any]:
    (answered, both), events = expected[True], expected[True][1] + expected[False][1]
    found = {}
    if answered:
        found["precision"] = {"value": both / answered}
    if events:
        found["recall"] = {"value": both / events}
    if answered + events:
        found["f1"] = {"value": 2.0 * both / (answered + events)}
    return found
