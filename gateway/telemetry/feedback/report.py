"""What the ledger says of a route: by version, by slice, with the gaps between its groups; and for the metrics.

Months of sums take a second to read, so both are steps of a look (``looks``). The sums of one day, all its groups, are
fetched in one of them: a label that joins meanwhile counts in all of them or in none. To add up those of 400 groups
takes a tenth of a second, which is a step for each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import permutations
from typing import Any

from gateway.intervals import ALPHA
from gateway.messages import VersionRef
from gateway.routing.truth import CLASSIFICATION, GRADE, REGRESSION, Truth
from gateway.telemetry.feedback.estimate import estimates
from gateway.telemetry.feedback.ledger import DAY_MS, Ledger
from gateway.telemetry.feedback.looks import Steps
from gateway.telemetry.feedback.measures import (
    Measure,
    arrival,
    calibration,
    classes,
    error_size,
    grade,
    measures,
    share,
)
from gateway.telemetry.feedback.nouns import Series
from gateway.telemetry.feedback.sums import Group

__all__ = ["gaps", "report_steps", "scores_steps"]

LEAST_ROWS = 10
"""Labelled rows without which a group is not compared."""

MOST_VERSIONS = 64
"""That metrics are computed for, where routes name fewer: those beside them that came last."""

Groups = dict[tuple[str, str], Group]
"""By slice and group; ("", "") is all of it."""

WHOLE = ("", "")


def report_steps(ledger: Ledger, route: str, truth: Truth, days: int) -> Steps[dict[str, Any]]:
    """Of the answers of the last ``days`` days (0: all that is kept), by version."""
    since = 0 if days <= 0 else ledger.now_ms // DAY_MS - days + 1
    chosen = [one for one in ledger.series if one.route == route and alike(one.truth, truth)]
    versions = {}
    for version in sorted({one.version for one in chosen}):
        found = yield from _merged(ledger, chosen, version, since)
        if found[WHOLE].rows:
            versions[str(version.number)] = yield from _of_version(found, truth)
    return {
        "route": route,
        "task": truth.task,
        "positive": truth.positive,
        "horizon_s": truth.horizon_s,
        "days": days if days > 0 else None,
        "interval": f"{1 - ALPHA:.0%}, valid however often one looks",
        "versions": versions,
    }


def alike(one: Truth, other: Truth) -> bool:
    """Whether answers under both can be counted as one: they are compared by the same outputs in the same way."""
    fields = ("task", "output", "score", "classes", "positive", "threshold", "wrong_above")
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def _merged(ledger: Ledger, series: Iterable[Series], version: VersionRef, since: int) -> Steps[Groups]:
    found: Groups = {WHOLE: Group()}
    for one in series:
        if one.version == version:
            for day in ledger.days_of(one.number, since):
                for place, group in ledger.sums_of(one.number, day):
                    found.setdefault((place.cut, place.part), Group()).add(group)
                    yield
                yield
    return found


def _of_version(found: Groups, truth: Truth) -> Steps[dict[str, Any]]:
    whole = found[WHOLE]
    body: dict[str, Any] = {
        "arrival": arrival(whole),
        "measures": {name: one.to_json() for name, one in _measures(whole, truth).items()},
        "slices": {},
    }
    if truth.task == CLASSIFICATION:
        estimate = estimates(whole, positive=truth.positive)
        body |= {"classes": classes(whole), "calibration": calibration(whole), "estimate": estimate or None}
    for cut in truth.slices:
        yield
        parts = {part: group for (name, part), group in sorted(found.items()) if name == cut.name}
        groups = {}
        for part, group in parts.items():
            shown = {name: one.to_json() for name, one in _measures(group, truth).items()}
            groups[part] = {"arrival": arrival(group), "measures": shown}
            yield
        body["slices"][cut.name] = {"groups": groups, "gap": gaps(parts, truth)}
    return body


def _measures(group: Group, truth: Truth) -> Mapping[str, Any]:
    if truth.task == GRADE:
        return {"grade": grade(group)} if group.labelled else {}
    return measures(group, positive=truth.positive, numbers=truth.task != CLASSIFICATION)


def gaps(parts: Mapping[str, Group], truth: Truth) -> dict[str, Any]:
    """By measure, the largest difference between two groups, with an interval that holds for all pairs at every look:
    each group's own has a part of alpha. Of classes with a positive one: accuracy, rate of positive answers
    (demographic parity), recall (equal opportunity)."""
    if truth.task != CLASSIFICATION:
        return _gap_of_means(parts, truth)
    return {name: _gap(groups) for name, groups in _compared(parts, truth).items()}


def _gap_values(parts: Mapping[str, Group], truth: Truth) -> dict[str, float]:
    """Without intervals, which a metric does not show and which take a hundred times as long."""
    if truth.task != CLASSIFICATION:
        return {name: gap["value"] for name, gap in _gap_of_means(parts, truth).items()}
    rates = {name: [hits / units for hits, units in held.values()] for name, held in _compared(parts, truth).items()}
    return {name: max(values) - min(values) for name, values in rates.items()}


def _compared(parts: Mapping[str, Group], truth: Truth) -> dict[str, dict[str, tuple[int, int]]]:
    kinds: dict[str, dict[str, tuple[int, int]]] = {}
    for part, group in parts.items():
        for name, hits, units in _shares(group, truth):
            if units >= LEAST_ROWS:
                kinds.setdefault(name, {})[part] = (hits, units)
    return {name: groups for name, groups in kinds.items() if len(groups) > 1}


def _shares(group: Group, truth: Truth) -> Iterable[tuple[str, int, int]]:
    yield "accuracy", group.labelled - group.wrong, group.labelled
    if truth.positive is not None:
        support, answered, both = group.classes.get(truth.positive, (0, 0, 0))
        yield "positive_rate", answered, group.labelled
        yield "recall", both, support


def _gap(groups: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    held = {part: share(hits, units, ALPHA / len(groups)) for part, (hits, units) in groups.items()}
    ends = {part: (one.value, one.low, one.high) for part, one in held.items()}
    return _widest(ends)


def _gap_of_means(parts: Mapping[str, Group], truth: Truth) -> dict[str, Any]:
    enough = {part: group for part, group in parts.items() if group.labelled >= LEAST_ROWS}
    if len(enough) < 2:
        return {}
    name, mean = _MEANS[truth.task]
    held = {part: mean(group, ALPHA / len(enough)) for part, group in enough.items()}
    return {name: _widest({part: (one.value, one.low, one.high) for part, one in held.items()})}


_MEANS: Mapping[str, tuple[str, Callable[[Group, float], Measure]]] = {
    REGRESSION: ("mae", error_size),
    GRADE: ("grade", grade),
}


def _widest(ends: Mapping[str, tuple[float, float, float]]) -> dict[str, Any]:
    best, worst = max(ends, key=lambda part: ends[part][0]), min(ends, key=lambda part: ends[part][0])
    low = max(ends[one][1] - ends[other][2] for one, other in permutations(ends, 2))
    high = max(ends[one][2] - ends[other][1] for one, other in permutations(ends, 2))
    value = ends[best][0] - ends[worst][0]
    return {"value": value, "low": max(0.0, low), "high": high, "highest": best, "lowest": worst}


def scores_steps(ledger: Ledger, named: frozenset[VersionRef]) -> Steps[list[dict[str, Any]]]:
    """For the metrics: by version, over all its routes with like truths; of the newest where they differ. ``named`` by
    routes in force: those are never left out, however many have come since."""
    newest: dict[VersionRef, Truth] = {}
    for one in ledger.series:
        newest.pop(one.version, None)
        newest[one.version] = one.truth
    found = []
    ordered = sorted(newest, key=named.__contains__)  # stable: the last ones are named, before them the newest
    for version in ordered[-max(MOST_VERSIONS, len(named)) :]:
        truth = newest[version]
        chosen = [one for one in ledger.series if one.version == version and alike(one.truth, truth)]
        groups = yield from _merged(ledger, chosen, version, 0)
        whole = groups[WHOLE]
        scores = {name: one.value for name, one in _measures(whole, truth).items()}
        yield
        for cut in truth.slices:
            parts = {part: group for (name, part), group in groups.items() if name == cut.name}
            scores |= {f"{name}_gap:{cut.name}": value for name, value in _gap_values(parts, truth).items()}
        estimated = estimates(whole, positive=truth.positive) if truth.task == CLASSIFICATION else {}
        scores |= {f"{name}_estimated": one["value"] for name, one in estimated.get("measures", {}).items()}
        found.append(
            {
                "model": version.model,
                "version": version.number,
                "scores": scores,
                "rows": whole.rows,
                "labelled": whole.labelled,
                "delays": sorted(whole.delays.items()),
                "waited_s": whole.waited_ms / 1000,
            }
        )
    return found
