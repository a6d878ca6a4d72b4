"""One pass over evaluation data for all gates that want it: figures, the champion's beside them, counts by group.

Memory does not grow with the data: what is kept are sums (``metrics``), however long it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway.errors import TurnoutError
from gateway.messages import Arrays, Signature
from gateway.registry.answering import Answering
from gateway.registry.gates import verdicts
from gateway.registry.gates.datasets import DataSet
from gateway.registry.gates.fairness import GroupCounts
from gateway.registry.gates.gate import Gate
from gateway.registry.gates.intervals import BLOCKS
from gateway.registry.gates.kinds import ChampionGate, FairnessGate, MetricGate
from gateway.registry.gates.metrics import METRICS, Answers, Counted
from gateway.registry.gates.report import Finding, State
from gateway.registry.gates.rows import Reading, blocks_of, rows_of
from gateway.registry.profile_rows import Rows

__all__ = ["Asked", "Evaluation", "evaluate"]

Tell = Callable[[int], None]


class Asked:
    """A version that answers, in a process of its own."""

    def __init__(self, ref: str, signature: Signature, answering: Answering) -> None:
        self.ref = ref
        self.signature = signature
        self.answering = answering

    def ask(self, inputs: Arrays) -> Arrays:
        return self.answering.ask(inputs)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one pass goes over: a file, what its columns mean, and who is asked."""

    path: Path
    data: DataSet
    version: Asked
    champion: Asked | None = None


class _Side:
    """One version's counts. ``fault``: why they stop."""

    def __init__(self, asked: Asked, data: DataSet, metrics: Sequence[str], groups: Sequence[tuple[str, ...]]) -> None:
        self._asked = asked
        self._data = data
        self._reading: Reading | None = None
        self.counted: dict[str, Counted] = {name: METRICS[name].count(BLOCKS) for name in metrics}
        self.groups = {names: GroupCounts(names) for names in groups}
        self.clustered = data.key is not None
        self.faults: dict[str, str] = {}
        self.fault = ""

    def add(self, rows: Rows, blocks: Any) -> Answers | None:
        """None once it cannot answer."""
        if self.fault:
            return None
        try:
            if self._reading is None:
                self._reading = Reading(self._data, self._asked.signature)
            answers = self._reading.answers(rows.beside, self._asked.ask(rows.inputs))
        except TurnoutError as fault:
            self.fault = str(fault)
            return None
        for name, counted in self.counted.items():
            if name not in self.faults:
                try:
                    counted.add(blocks, answers)
                except TurnoutError as fault:
                    self.faults[name] = str(fault)
        for groups in self.groups.values():
            groups.add(rows.beside, answers)
        return answers


class _Pairs:
    """Of the rows: right by the version alone, by the champion alone, by both."""

    def __init__(self) -> None:
        self.rows = self.gained = self.lost = 0

    def add(self, one: Answers, other: Answers) -> None:
        self.rows += len(one.truth)
        self.gained += int(np.count_nonzero(one.right & ~other.right))
        self.lost += int(np.count_nonzero(~one.right & other.right))


def evaluate(asked: Evaluation, gates: Sequence[Gate], tell: Tell) -> list[Finding]:
    """A finding for each gate. ``tell``: rows done. Faults of data and versions become findings."""
    own, other = _sides(asked, gates)
    pairs, done = _Pairs(), 0
    try:
        for rows in rows_of(asked.path, asked.data, asked.version.signature):
            blocks = blocks_of(rows, asked.data.key, done, BLOCKS)
            mine = own.add(rows, blocks)
            if mine is None:
                break
            theirs = None if other is None else other.add(rows, blocks)
            if theirs is not None:
                pairs.add(mine, theirs)
            done += len(blocks)
            tell(done)
    except TurnoutError as fault:
        own.fault = str(fault)
    if not own.fault and not done:
        own.fault = f"evaluation data {asked.data.file.name} has no rows"
    return [_finding(gate, own, other, pairs, done) for gate in gates]


def _sides(asked: Evaluation, gates: Sequence[Gate]) -> tuple[_Side, _Side | None]:
    compared = [gate.metric for gate in gates if isinstance(gate, ChampionGate)]
    metrics = dict.fromkeys(gate.metric for gate in gates if isinstance(gate, MetricGate | ChampionGate))
    groups = dict.fromkeys(gate.group for gate in gates if isinstance(gate, FairnessGate))
    own = _Side(asked.version, asked.data, list(metrics), list(groups))
    if asked.champion is None or not compared:
        return own, None
    return own, _Side(asked.champion, asked.data, list(dict.fromkeys(compared)), ())


def _finding(gate: Gate, own: _Side, other: _Side | None, pairs: _Pairs, rows: int) -> Finding:
    fault = own.fault
    if not fault and isinstance(gate, MetricGate | ChampionGate):
        fault = own.faults.get(gate.metric, "")
    if fault:
        return Finding(gate.name, gate.kind, State.ERROR, fault)
    if isinstance(gate, FairnessGate):
        return verdicts.fairness(gate, own.groups[gate.group])
    if isinstance(gate, MetricGate):
        return verdicts.metric(gate, own.counted[gate.metric], rows, clustered=own.clustered)
    if isinstance(gate, ChampionGate):
        return _compared(gate, own, other, pairs, rows)
    raise TypeError(f"a gate of kind {gate.kind} is not one of evaluation data")


def _compared(gate: ChampionGate, own: _Side, other: _Side | None, pairs: _Pairs, rows: int) -> Finding:
    if other is None:
        said = "there is no champion to compare with yet"
        return Finding(gate.name, gate.kind, State.SKIPPED, said, _counts(own.counted[gate.metric], gate.metric, rows))
    fault = other.fault or other.faults.get(gate.metric, "")
    if fault:
        return Finding(gate.name, gate.kind, State.ERROR, f"the champion: {fault}")
    paired = (pairs.gained, pairs.lost, pairs.rows)
    own_counted, champions = own.counted[gate.metric], other.counted[gate.metric]
    return verdicts.champion(gate, own_counted, champions, paired, clustered=own.clustered)


def _counts(counted: Counted, metric: str, rows: int) -> Mapping[str, Any]:
    return {"metric": metric, "value": verdicts.value_of(counted), "rows": rows}
