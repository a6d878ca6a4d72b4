"""From sums to measures: how right a version is, each with an interval. Pure, and the same however sums came together.

Every interval is valid at every look (``intervals``), except that of the area under the curve. Precision and recall
are shares of the rows that they speak of; F1 is 2J/(1 + J) of the share J = both / either, so an interval of J gives
one of F1. The expected calibration error's comes from intervals of all its bins at once, so it is wide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from math import sqrt
from typing import Any, NamedTuple

from gateway.intervals import ALPHA, Interval, mean_sequence, share_sequence, wilson
from gateway.telemetry.feedback.exact import Exact
from gateway.telemetry.feedback.sums import BINS, Group, longest_delay_of

__all__ = ["Measure", "arrival", "calibration", "classes", "error_size", "grade", "measures", "share"]

QUANTILES = (0.5, 0.9, 0.99)


class Measure(NamedTuple):
    """``low`` and ``high`` at every look; ``one_look``: the usual interval, for shares. ``units``: rows behind it."""

    value: float
    low: float
    high: float
    units: int
    one_look: Interval | None = None

    def to_json(self) -> dict[str, Any]:
        body = {"value": _plain(self.value), "low": _plain(self.low), "high": _plain(self.high), "units": self.units}
        return body if self.one_look is None else {**body, "wilson": list(self.one_look)}


def _plain(value: float) -> float | None:
    """JSON has no infinity."""
    return value if abs(value) < float("inf") else None


def measures(group: Group, *, positive: str | None = None, numbers: bool = False) -> dict[str, Measure]:
    """By name: of labelled rows. ``numbers``: the task is regression."""
    if not group.labelled:
        return {}
    if numbers:
        return dict(_of_numbers(group))
    return dict([*_of_classes(group, positive), *_of_scores(group)])


def _of_classes(group: Group, positive: str | None) -> Iterator[tuple[str, Measure]]:
    yield "accuracy", share(group.labelled - group.wrong, group.labelled)
    if positive is not None:
        support, answered, both = group.classes.get(positive, (0, 0, 0))
        if answered:
            yield "precision", share(both, answered)
        if support:
            yield "recall", share(both, support)
        either = support + answered - both
        if either:
            yield "f1", _f1(share(both, either))
        yield "positive_rate", share(answered, group.labelled)
        return
    several = [_f1_of(counts) for _, counts in sorted(group.classes.items())]
    if several:
        mean = sum(several) / len(several)
        low, high = _macro_interval(group)
        yield "f1_macro", Measure(mean, low, high, group.labelled)


def _f1_of(counts: list[int]) -> float:
    support, answered, both = counts
    return 2.0 * both / (support + answered) if support + answered else 0.0


def _macro_interval(group: Group) -> Interval:
    """Of all classes at once."""
    alpha, lows, highs = ALPHA / len(group.classes), 0.0, 0.0
    for _, (support, answered, both) in sorted(group.classes.items()):
        low, high = share_sequence(both, support + answered - both, alpha)
        lows, highs = lows + 2.0 * low / (1.0 + low), highs + 2.0 * high / (1.0 + high)
    return lows / len(group.classes), highs / len(group.classes)


def _f1(jaccard: Measure) -> Measure:
    value, low, high = (2.0 * j / (1.0 + j) for j in jaccard[:3])
    return Measure(value, low, high, jaccard.units)


def share(hits: int, units: int, alpha: float = ALPHA) -> Measure:
    return Measure(hits / units, *share_sequence(hits, units, alpha), units, wilson(hits, units, alpha))


def _of_scores(group: Group) -> Iterator[tuple[str, Measure]]:
    units = sum(count for count, _, _ in group.bins.values())
    if not units:
        return
    yield "brier", _clipped(_mean(units, group.loss, group.loss_squares), 0.0, 1.0)
    yield "ece", _calibration_error(group, units)
    if (area := _area(group)) is not None:
        yield "auc", area


def _calibration_error(group: Group, units: int) -> Measure:
    distance, low, high = Fraction(0), 0.0, 0.0
    for _, (count, events, total) in sorted(group.bins.items()):
        score, part = total.over(count), count / units
        ends = share_sequence(events, count, ALPHA / len(group.bins))
        distance += abs(total.fraction - events)
        low += part * max(0.0, ends[0] - score, score - ends[1])
        high += part * max(abs(score - ends[0]), abs(score - ends[1]))
    return Measure(float(distance / units), low, min(1.0, high), units)


def _area(group: Group) -> Measure | None:
    """Of the curve of true over false positives; equal scores count half. Its interval is Hanley and McNeil's (*The
    meaning and use of the area under a ROC curve*, 1982), for one look."""
    without, events = (sum(counts[side] for counts in group.ranks.values()) for side in (0, 1))
    if not without or not events:
        return None
    below = twice = 0
    for place in sorted(group.ranks):
        none, some = group.ranks[place]
        twice += some * (2 * below + none)
        below += none
    area = twice / (2 * without * events)
    q_1, q_2 = area / (2.0 - area), 2.0 * area * area / (1.0 + area)
    spread = area * (1.0 - area) + (events - 1) * (q_1 - area * area) + (without - 1) * (q_2 - area * area)
    half = 1.96 * sqrt(max(spread, 0.0) / (without * events))
    return Measure(area, max(0.0, area - half), min(1.0, area + half), without + events)


def _of_numbers(group: Group) -> Iterator[tuple[str, Measure]]:
    units = group.labelled
    yield "mae", error_size(group)
    square = _mean(units, group.error_squares, group.error_fourths)
    root = sqrt(square.value), sqrt(max(0.0, square.low)), sqrt(max(0.0, square.high))
    yield "rmse", Measure(*root, units)
    yield "bias", _mean(units, group.error, group.error_squares)


def error_size(group: Group, alpha: float = ALPHA) -> Measure:
    """The mean absolute error."""
    size = _mean(group.labelled, group.error_size, group.error_squares, alpha)
    return size._replace(low=max(0.0, size.low))


def grade(group: Group, alpha: float = ALPHA) -> Measure:
    """The mean of the labels, where they say themselves how good an answer was: errors against an answer of 0."""
    return _mean(group.labelled, Exact(-group.error.units, group.error.scale), group.error_squares, alpha)


def _mean(units: int, total: Exact, squares: Exact, alpha: float = ALPHA) -> Measure:
    spread = squares.fraction / units - (total.fraction / units) ** 2
    try:
        variance = float(spread)
    except OverflowError:
        variance = float("inf")
    mean = total.over(units)
    return Measure(mean, *mean_sequence(units, mean, variance, alpha), units)


def _clipped(measure: Measure, least: float, most: float) -> Measure:
    return measure._replace(low=max(least, measure.low), high=min(most, measure.high))


def calibration(group: Group) -> list[dict[str, Any]]:
    """The curve: for each bin of scores, their mean and the share of events."""
    return [
        {
            "from": place / BINS,
            "to": (place + 1) / BINS,
            "rows": count,
            "score": total.over(count),
            "events": share(events, count).to_json(),
        }
        for place, (count, events, total) in sorted(group.bins.items())
    ]


def classes(group: Group) -> dict[str, Any]:
    """For each class: rows labelled so, precision, recall, F1."""
    found: dict[str, Any] = {}
    for name, (support, answered, both) in sorted(group.classes.items()):
        body: dict[str, Any] = {"support": support, "answered": answered, "right": both}
        if answered:
            body["precision"] = share(both, answered).to_json()
        if support:
            body["recall"] = share(both, support).to_json()
        found[name] = {**body, "f1": _f1_of([support, answered, both])}
    return found


def arrival(group: Group) -> dict[str, Any]:
    """How many answers have their label, and how long labels took: quantiles by the upper ends of 19% wide bins."""
    return {
        "rows": group.rows,
        "labelled": group.labelled,
        "share": group.labelled / group.rows if group.rows else None,
        "delay_s": {f"p{round(level * 100)}": _quantile(group.delays, level) for level in QUANTILES},
    }


def _quantile(delays: Mapping[int, int], level: float) -> float | None:
    total, below = sum(delays.values()), 0
    for place in sorted(delays):
        below += delays[place]
        if below >= level * total:
            return longest_delay_of(place)
    return None
