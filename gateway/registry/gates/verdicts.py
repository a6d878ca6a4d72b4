"""From counts to findings: what a figure, a difference or a gap means for its gate. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from gateway.intervals import wilson
from gateway.registry.gates.fairness import GroupCounts
from gateway.registry.gates.intervals import bootstrap, mcnemar, tango
from gateway.registry.gates.kinds import ChampionGate, FairnessGate, MetricGate
from gateway.registry.gates.metrics import METRICS, Counted
from gateway.registry.gates.report import Finding, State
from gateway.registry.gates.speaking import figure, finite, interval

__all__ = ["LEAST_ROWS", "champion", "fairness", "metric", "value_of"]

LEAST_ROWS = 30
"""Of fewer a bootstrap tells nothing: where two versions have five rows alike, every draw says that they are equal."""


def value_of(counted: Counted) -> float | None:
    return finite(_value(counted))


def metric(gate: MetricGate, counted: Counted, rows: int, *, clustered: bool = False) -> Finding:
    """``clustered``: rows of one block belong together, and only blocks are independent."""
    value, ends = _value(counted), _interval(gate.metric, counted, gate.confidence, clustered)
    few = _too_few(gate.metric, clustered, counted) if gate.sure else ""
    low, high = ends if gate.sure else (value, value)
    kept = np.isfinite(value)
    kept &= gate.at_least is None or low >= gate.at_least
    kept &= gate.at_most is None or high <= gate.at_most
    kept &= not few
    limits = [f"at least {figure(gate.at_least)}"] if gate.at_least is not None else []
    limits += [f"at most {figure(gate.at_most)}"] if gate.at_most is not None else []
    sure = " for the whole interval" if gate.sure else ""
    said = f"{gate.metric} is {figure(value)} {interval(ends)} over {rows:,} rows; asked is {' and '.join(limits)}"
    said += sure + few
    numbers: dict[str, Any] = {"metric": gate.metric, "value": finite(value), "interval": _ends(ends), "rows": rows}
    numbers |= {"confidence": gate.confidence, "at_least": gate.at_least, "at_most": gate.at_most, "sure": gate.sure}
    return Finding(gate.name, gate.kind, State.PASSED if kept else State.FAILED, said, numbers)


def champion(
    gate: ChampionGate, own: Counted, other: Counted, pairs: tuple[int, int, int], *, clustered: bool = False
) -> Finding:
    """``pairs``: rows that only the version has right, that only the champion has, and all. ``clustered`` as above."""
    kind = METRICS[gate.metric]
    value, before = _value(own), _value(other)
    shares = kind.proportion and not clustered
    ends = _difference(gate, pairs) if shares else _drawn_difference(gate, own, other)
    # Turned so that more is better, whichever way the metric goes.
    low = ends[0] if kind.higher_is_better else -ends[1]
    needed = -gate.margin if gate.must == "not-worse" else 0.0
    few = _too_few(gate.metric, clustered, own, other)
    good = bool(np.isfinite(low)) and not few and (low >= needed if gate.must == "not-worse" else low > 0)
    turned = value - before if kind.higher_is_better else before - value
    if not good and not few and turned >= needed:
        few = "; by the figures alone it would be, and the rows are too few to be sure"
    asked = f"worse by {figure(gate.margin)} at most" if gate.must == "not-worse" else "better"
    said = (
        f"{gate.metric} is {figure(value)}, the champion's {figure(before)}: a difference of "
        f"{figure(value - before)} {interval(ends)} over {pairs[2]:,} rows; it must be {asked}{few}"
    )
    numbers: dict[str, Any] = {
        "metric": gate.metric,
        "value": finite(value),
        "champion": finite(before),
        "difference": finite(value - before),
        "interval": _ends(ends),
        "confidence": gate.confidence,
        "rows": pairs[2],
        "margin": gate.margin,
        "must": gate.must,
        "method": "tango" if shares else "paired bootstrap",
        "too_few_rows": bool(few),
    }
    if shares:
        numbers |= {"only_version_right": pairs[0], "only_champion_right": pairs[1]}
        numbers["mcnemar_p"] = mcnemar(pairs[0], pairs[1])
        said += f" (McNemar p = {numbers['mcnemar_p']:.3g}, {pairs[0]:,} rows gained and {pairs[1]:,} lost)"
    return Finding(gate.name, gate.kind, State.PASSED if good else State.FAILED, said, numbers)


def fairness(gate: FairnessGate, counts: GroupCounts) -> Finding:
    groups = counts.groups()
    if not any(one.chosen or one.deserving for one in groups.values()):
        said = "no row has the positive answer, neither of the truth nor of the version; name it: positive of the data"
        return Finding(gate.name, gate.kind, State.FAILED, said, {"groups": sorted(groups)})
    told, kept, numbers = [], True, dict[str, Any]()
    for kind, limit in gate.limits.items():
        gap = counts.gap(kind, gate.min_rows, gate.confidence)
        words = kind.replace("_", " ")
        if gap is None:
            kept = False
            told.append(f"{words} cannot be told: fewer than two groups have {gate.min_rows} rows for it")
            numbers[kind] = {"gap": None, "at_most": limit}
            continue
        keeps = (gap.interval[1] if gate.sure else gap.value) <= limit
        kept &= keeps
        told.append(
            f"{words}: the {gap.rate} of {gap.high!r} and {gap.low!r} differ by {figure(gap.value)} "
            f"{interval(gap.interval)}, asked is {figure(limit)} at most{'' if keeps else ' (too wide)'}"
        )
        numbers[kind] = {"gap": gap.value, "interval": _ends(gap.interval), "at_most": limit, "rate": gap.rate}
        numbers[kind] |= {"highest": gap.high, "lowest": gap.low}
    numbers["groups"] = {
        name: {"rows": one.rows, "chosen": one.chosen, "deserving": one.deserving, "both": one.both}
        for name, one in groups.items()
    }
    numbers |= {"min_rows": gate.min_rows, "confidence": gate.confidence, "sure": gate.sure}
    return Finding(gate.name, gate.kind, State.PASSED if kept else State.FAILED, "; ".join(told), numbers)


def _value(counted: Counted) -> float:
    return float(counted.value(counted.sums.sum(axis=0)))


def _too_few(name: str, clustered: bool, *sides: Counted) -> str:
    """Why the interval says nothing; empty where it does, as those of shares do of any number of rows."""
    if METRICS[name].proportion and not clustered:
        return ""
    held = [(METRICS[name].rests_on(side.sums.sum(axis=0)), len(_used(side.sums))) for side in sides]
    rows = min(min(pair) for pair in held)
    what = "keys" if clustered else "rows"
    return f"; it rests on {rows:g} {what}, too few to be sure (at least {LEAST_ROWS})" if rows < LEAST_ROWS else ""


def _interval(name: str, counted: Counted, confidence: float, clustered: bool) -> tuple[float, float]:
    if METRICS[name].proportion and not clustered:
        rows, hits = counted.sums.sum(axis=0)
        return wilson(hits, rows, 1 - confidence)
    return bootstrap(_used(counted.sums), counted.value, confidence)


def _difference(gate: ChampionGate, pairs: tuple[int, int, int]) -> tuple[float, float]:
    gained, lost, rows = pairs if METRICS[gate.metric].higher_is_better else (pairs[1], pairs[0], pairs[2])
    return tango(gained, lost, rows, gate.confidence)


def _drawn_difference(gate: ChampionGate, own: Counted, other: Counted) -> tuple[float, float]:
    width = own.sums.shape[1]
    both = _used(np.concatenate([own.sums, other.sums], axis=1))

    def difference(sums: Any) -> Any:
        return own.value(sums[..., :width]) - other.value(sums[..., width:])

    return bootstrap(both, difference, gate.confidence)


def _used(sums: Any) -> Any:
    """Of fewer rows than blocks, those that have any."""
    return sums[np.any(sums != 0, axis=1)]


def _ends(ends: tuple[float, float]) -> list[float | None]:
    return [finite(ends[0]), finite(ends[1])]
