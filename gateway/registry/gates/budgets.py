"""Time and memory of a version beside the champion's, measured in their own processes.

A machine that does other things only ever adds to a time, so a budget is held against the quietest of several rounds,
and a ratio against the middle one of rounds that take turns. The report has every round, and the processor time beside
the wall clock's: where the two are far apart, the processes waited for their turn.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gateway.errors import TurnoutError
from gateway.messages import Arrays, Signature
from gateway.registry.answering import Answering, Measured
from gateway.registry.gates.kinds import LatencyGate, MemoryGate
from gateway.registry.gates.report import Finding, State
from gateway.registry.gates.speaking import figure
from runtimes.example import synthetic_inputs

__all__ = ["Batches", "latency", "memory", "tiled"]

Batches = Callable[[Signature, int], Arrays]
"""A batch of so many rows."""

BUSY = 1.5
MB = 1e6


def latency(
    gate: LatencyGate, own: Answering, other: Answering | None, signature: Signature, batches: Batches
) -> Finding:
    told, sizes, kept = [], list[dict[str, Any]](), True
    try:
        for rows in gate.rows:
            inputs = batches(signature, rows)
            for side in (own, other):
                if side is not None and gate.warm_up:
                    side.measure(inputs, gate.warm_up)
            mine, theirs = list[Measured](), list[Measured]()
            for _ in range(gate.rounds):
                mine.append(own.measure(inputs, gate.calls))
                if other is not None:
                    theirs.append(other.measure(inputs, gate.calls))
            size, sentence, good = _judged(gate, rows, mine, theirs)
            sizes.append(size)
            told.append(sentence)
            kept &= good
    except TurnoutError as fault:
        return Finding(gate.name, gate.kind, State.ERROR, str(fault), {"batches": sizes})
    numbers = {"batches": sizes, "quantile": gate.quantile, "rounds": gate.rounds, "calls": gate.calls}
    numbers |= {"warm_up": gate.warm_up, "time": gate.time, "load": [round(one, 2) for one in os.getloadavg()]}
    if kept and gate.at_most_ms is None and other is None:
        return Finding(gate.name, gate.kind, State.SKIPPED, "there is no champion to compare with yet", numbers)
    return Finding(gate.name, gate.kind, State.PASSED if kept else State.FAILED, "; ".join(told), numbers)


def _judged(
    gate: LatencyGate, rows: int, mine: Sequence[Measured], theirs: Sequence[Measured]
) -> tuple[dict[str, Any], str, bool]:
    own = _times(gate, mine)
    ratio = None
    size: dict[str, Any] = {"rows": rows, "version": own}
    told, kept = [], True
    if gate.at_most_ms is not None:
        kept &= own["quietest_ms"] <= gate.at_most_ms
        told.append(f"{gate.quantile:.0%} of batches of {rows} take {figure(own['quietest_ms'])} ms or less")
        told[-1] += f" (asked is {figure(gate.at_most_ms)} ms)"
    if theirs:
        size["champion"] = _times(gate, theirs)
        ratio = size["ratio"] = _ratio(gate, mine, theirs)
    if gate.at_most_ratio is not None and ratio is not None:
        kept &= ratio <= gate.at_most_ratio
        told.append(f"batches of {rows} take {figure(ratio)} times the champion's time")
        told[-1] += f" (asked is {figure(gate.at_most_ratio)} at most)"
    if own["median_ms"] > BUSY * own["processor_ms"] and gate.time == "wall":
        told[-1:] = [f"{told[-1]}; {figure(own['processor_ms'])} ms of it on the processor"] if told else []
    return size, ", ".join(told), kept


def _times(gate: LatencyGate, rounds: Sequence[Measured]) -> dict[str, Any]:
    each = [1000 * float(np.quantile(_clock(gate, one), gate.quantile)) for one in rounds]
    return {
        "quietest_ms": round(min(each), 4),
        "median_ms": round(1000 * float(np.median([time for one in rounds for time in one.wall_s])), 4),
        "processor_ms": round(1000 * float(np.median([time for one in rounds for time in one.processor_s])), 4),
        "rounds_ms": [round(one, 4) for one in each],
    }


def _ratio(gate: LatencyGate, mine: Sequence[Measured], theirs: Sequence[Measured]) -> float:
    ratios = [
        float(np.median(_clock(gate, one))) / max(1e-9, float(np.median(_clock(gate, other))))
        for one, other in zip(mine, theirs, strict=True)
    ]
    return round(float(np.median(ratios)), 4)


def _clock(gate: LatencyGate, measured: Measured) -> tuple[float, ...]:
    return measured.wall_s if gate.time == "wall" else measured.processor_s


def memory(
    gate: MemoryGate,
    open_own: Callable[[], Answering],
    open_other: Callable[[], Answering] | None,
    signature: Signature,
    batches: Batches,
) -> Finding:
    """Each in a fresh process, so that nothing is held from other gates."""
    try:
        own = _held(gate, open_own, signature, batches)
        other = None if open_other is None else _held(gate, open_other, signature, batches)
    except TurnoutError as fault:
        return Finding(gate.name, gate.kind, State.ERROR, str(fault))
    if own is None:
        return Finding(gate.name, gate.kind, State.ERROR, "this system does not tell how much a process holds")
    numbers: dict[str, Any] = {"rows": list(gate.rows), "version": own, "champion": other}
    told, kept = [], True
    if gate.at_most_mb is not None:
        kept &= own["peak_mb"] <= gate.at_most_mb
        told.append(f"its process holds {figure(own['peak_mb'])} MB at most (asked is {figure(gate.at_most_mb)} MB)")
        numbers["at_most_mb"] = gate.at_most_mb
    if gate.at_most_ratio is not None and other is not None:
        ratio = numbers["ratio"] = round(own["peak_mb"] / other["peak_mb"], 4)
        kept &= ratio <= gate.at_most_ratio
        told.append(f"it holds {figure(ratio)} times what the champion holds")
        told[-1] += f" (asked is {figure(gate.at_most_ratio)} at most)"
    if not told:
        return Finding(gate.name, gate.kind, State.SKIPPED, "there is no champion to compare with yet", numbers)
    return Finding(gate.name, gate.kind, State.PASSED if kept else State.FAILED, ", ".join(told), numbers)


def _held(
    gate: MemoryGate, opened: Callable[[], Answering], signature: Signature, batches: Batches
) -> Mapping[str, float] | None:
    with opened() as answering:
        measured = None
        first = answering.measure(batches(signature, 1), 1)
        for rows in gate.rows:
            measured = answering.measure(batches(signature, rows), 3)
    if measured is None or measured.peak_bytes is None or first.resident_bytes is None:
        return None
    return {"peak_mb": round(measured.peak_bytes / MB, 3), "loaded_mb": round(first.resident_bytes / MB, 3)}


def tiled(example: Arrays | None) -> Batches:
    """Of the example, again and again; without one, of zeros."""

    def batch(signature: Signature, rows: int) -> Arrays:
        if example is None:
            return synthetic_inputs(signature, rows)
        if not signature.batched:
            return example
        return {name: array[np.arange(rows) % len(array)] for name, array in example.items()}

    return batch
