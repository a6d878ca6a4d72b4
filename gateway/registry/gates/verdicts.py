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

__all__ = ["champion", "fairness", "metric", "value_of"]


def value_of(counted: Counted) -> float | None:
    return finite(_value(counted))


def metric(gate: MetricGate, counted: Counted, rows: int) -> Finding:
    value, ends = _value(counted), _interval(gate.metric, counted, gate.confidence)
    low, high = ends if gate.sure else (value, value)
    kept = np.isfinite(value)
    kept &= gate.at_least is None or low >= gate.at_least
    kept &= gate.at_most is None or high <= gate.at_most
    limits = [f"at least {figure(gate.at_least)}"] if gate.at_least is not None else []
    limits += [f"at most {figure(gate.at_most)}"] if gate.at_most is not None else []
    sure = " for the whole interval" if gate.sure else ""
    said = (
        f"{gate.metric} is {figure(value)} {interval(ends)} over {rows:,} rows; asked is {' and '.join(limits)}{sure}"
    )
    numbers: dict[str, Any] = {"metric": gate.metric, "value": finite(value), "interval": _ends(ends), "rows": rows}
    numbers |= {"confidence": gate.confidence, "at_least": gate.at_least, "at_most": gate.at_most, "sure": gate.sure}
    return Finding(gate.name, gate.kind, State.PASSED if kept else State.FAILED, said, numbers)


def champion(gate: ChampionGate, own: Counted, other: Counted, pairs: tuple[int, int, int]) -> Finding:
    """``pairs``: rows that only the version has right, that only the champion has, and all."""
    kind = METRICS[gate.metric]
    value, before = _value(own), _value(other)
    ends = _difference(gate, own, other, pairs)
    # Turned so that more is better, whichever way the metric goes.
    low = ends[0] if kind.higher_is_better else -ends[1]
    needed = -gate.margin if gate.must == "not-worse" else 0.0
    good = bool(np.isfinite(low)) and (low >= needed if gate.must == "not-worse" else low > 0)
    asked = f"worse by {figure(gate.margin)} at most" if gate.must == "not-worse" else "better"
    said = (
        f"{gate.metric} is {figure(value)}, the champion's {figure(before)}: a difference of "
        f"{figure(value - before)} {interval(ends)} over {pairs[2]:,} rows; it must be {asked}"
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
        "method": "tango" if kind.proportion else "paired bootstrap",
    }
    if kind.proportion:
        numbers |= {"only_version_right": pairs[0], "only_champion_right": pairs[1]}
        numbers["mcnemar_p"] = mcnemar(pairs[0], pairs[1])
        said += f" (McNemar p = {numbers['mcnemar_p']:.3g}, {pairs[0]:,} rows gained and {pairs[1]:,} lost)"
    return Finding(gate.name, gate.kind, State.PASSED if good else State.FAILED, said, numbers)


def fairness(gate: FairnessGate, counts: GroupCounts) -> Finding:
    groups = counts.groups()
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


def _interval(name: str, counted: Counted, confidence: float) -> tuple[float, float]:
    if METRICS[name].proportion:
        rows, hits = counted.sums.sum(axis=0)
        return wilson(hits, rows, 1 - confidence)
    return bootstrap(_used(counted.sums), counted.value, confidence)


def _difference(gate: ChampionGate, own: Counted, other: Counted, pairs: tuple[int, int, int]) -> tuple[float, float]:
    if METRICS[gate.metric].proportion:
        gained, lost, rows = pairs if METRICS[gate.metric].higher_is_better else (pairs[1], pairs[0], pairs[2])
        return tango(gained, lost, rows, gate.confidence)
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
