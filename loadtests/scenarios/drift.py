"""What alarms of drift cost and find: false ones in ten thousand windows, and how soon a shift of one feature is seen.

Simulated on fixed seeds with the product's own judging, 50 independent normal features, a reference of 10,000 rows;
live counts are drawn in the profile's cells. Beside it, on the same kind of rows, the population stability index,
Evidently's default report and River's ADWIN, each in a virtual environment of its own (``loadtests.drift_peers``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.telemetry.drift.evidence import Reference
from gateway.telemetry.drift.judging import Policy, State, judge
from gateway.telemetry.drift.sizes import AgainstReference
from gateway.telemetry.drift.starts import START_S, Starts, bets_in
from loadtests.drift_peers import PeerFigures, peer_figures
from loadtests.measurement import Figure, Outcome, Table
from loadtests.scenarios.rounds import Plan
from runtimes.counting import Plan as CountingPlan
from runtimes.counting_profile import Profile, Reckoning
from runtimes.counting_sketch import Sketch
from runtimes.signature import Signature, TensorSpec

__all__ = ["drift"]

FEATURES, ROWS, DAYS = 50, 10_000, 90.0
WINDOWS, RUNS = 10_000, 100
QUICK_WINDOWS, QUICK_RUNS = 300, 5
LEVELS = (3.0, 4.0, 5.0, 6.0)
SIZES = (50, 100, 200, 1_000, 5_000)
CASES = ((0.2, 100, 3_000), (0.5, 20, 500))
"""Shift in standard deviations, rows of a look, rows within which it must be found."""

Numbers = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class _World:
    """``cells``: chances of each feature's values below the reference, in each bin, and above it."""

    reference: Reference
    cells: Numbers

    @classmethod
    def made(cls, seed: int, features: int, shift: float = 0.0) -> _World:
        """The reference is not shifted; what is drawn of the first feature is."""
        rows = np.random.default_rng((1, seed)).standard_normal((ROWS, features))
        sketch = Sketch(Signature((TensorSpec("x", "FP64", (-1, features)),), ()))
        tensors = {("input", "x"): rows}
        sketch.add(tensors)
        body = sketch.frozen() | {"blocks": []}
        reckoning = Reckoning(body, ROWS)
        reckoning.add(tensors)
        profile = Profile.from_json(reckoning.finished())
        cells = [_chances(profile.plan, place, shift if place == 0 else 0.0) for place in range(features)]
        return cls(Reference.of(profile.plan, profile.reference), np.array(cells))

    def counts(self, rng: np.random.Generator, rows: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        drawn = rng.multinomial(rows, self.cells)
        vector = np.zeros(self.reference.plan.size, np.int64)
        vector[0] = rows
        for feature, cells in zip(self.reference.plan.features, drawn, strict=True):
            bins = cells[1:-1].copy()
            bins[0] += cells[0]
            bins[-1] += cells[-1]
            vector[feature.counts] = bins
            vector[feature.low], vector[feature.high] = cells[0], cells[-1]
        return vector


def _chances(plan: CountingPlan, place: int, shift: float) -> Sequence[float]:
    feature = plan.features[place]
    points = [feature.lowest, *feature.edges, feature.highest]
    below = [0.5 * math.erfc((shift - point) / math.sqrt(2.0)) for point in points]
    return [after - before for before, after in zip([0.0, *below], [*below, 1.0], strict=True)]


def drift(plan: Plan) -> Outcome:
    quick = plan.rounds == 1
    windows, runs = (QUICK_WINDOWS, QUICK_RUNS) if quick else (WINDOWS, RUNS)
    calm = _without_drift(windows)
    index = {size: _psi_over(size, 100 if quick else 2_000) for size in SIZES}
    soon = {shift: _detections(shift, step, runs) for shift, step, _ in CASES}
    peers = peer_figures(quick=quick)
    work = f"no drift, {FEATURES} features, {windows:,} windows of 50 to 5,000 rows"
    budget_alarms = calm.alarms * bets_in(DAYS) / windows
    figures = [Figure(work, f"alarms in {DAYS:.0f} days, promised 1 at most", (budget_alarms,), "", 1.0, 0.5)]
    for shift, step, within in CASES:
        found = f"{shift} deviations in one of {FEATURES}, looks of {step} rows, {runs} runs"
        figures.append(
            Figure(found, "median rows until the alarm", (_median(soon[shift]),), "rows", within, within / 2)
        )
    return Outcome(
        tuple(figures),
        (_rates_table(calm, windows), _index_table(index, peers), _soon_table(soon, peers)),
        f"drift simulated in {windows:,} windows without any and {runs} runs with some",
    )


@dataclass(frozen=True, slots=True)
class _Calm:
    alarms: int
    crossings: Mapping[float, int]
    promised_bets: int


def _without_drift(windows: int) -> _Calm:
    """Alarms at the real threshold; and, at levels that chance does reach, how often the evidence of a feature rises
    over them, beside what the budget would promise there."""
    world, rng = _World.made(0, FEATURES), np.random.default_rng(2)
    evidence, policy = AgainstReference(world.reference), Policy(FEATURES, DAYS)
    total = np.zeros(world.reference.plan.size, np.int64)
    state = State(Starts.begin(total, 0.0))
    crossings, over = dict.fromkeys(LEVELS, 0), {level: np.zeros(FEATURES, bool) for level in LEVELS}
    for window in range(1, windows + 1):
        total = total + world.counts(rng, int(rng.integers(50, 5_001)))
        state, finding = judge(state, evidence, total, window * START_S, policy)
        now = np.array([one.log_evidence for one in finding.features])
        for level in LEVELS:
            crossings[level] += int(((now >= level) & ~over[level]).sum())
            over[level] = now >= level
    return _Calm(state.alarms, crossings, windows * FEATURES)


def _psi_over(rows: int, windows: int) -> tuple[float, float]:
    """Shares of windows of one feature, and of 50, in which the index is over 0.1; ten bins, as is the custom."""
    rng = np.random.default_rng((3, rows))
    chances = np.diff(np.concatenate([[0.0], np.sort(rng.random((1, ROWS)))[0, ROWS // 10 :: ROWS // 10][:9], [1.0]]))
    known = np.full(10, 0.1)
    shares = np.maximum(rng.multinomial(rows, chances, size=windows * 5) / rows, 1e-4)
    index = ((shares - known) * np.log(shares / known)).sum(axis=1)
    one = float((index > 0.1).mean())
    return one, 1.0 - (1.0 - one) ** FEATURES


def _detections(shift: float, step: int, runs: int) -> list[int]:
    """Rows since the shift began until its alarm, after some time without; the budget is that of 50 features."""
    found = []
    for run in range(runs):
        calm, moved = _World.made(run, 1), _World.made(run, 1, shift)
        rng, evidence = np.random.default_rng((4, run)), AgainstReference(calm.reference)
        policy = Policy(FEATURES, DAYS)
        total = np.zeros(calm.reference.plan.size, np.int64)
        state, looks, began = State(Starts.begin(total, 0.0)), 0, 20
        while not state.raised and looks < 500:
            looks += 1
            total = total + (calm if looks <= began else moved).counts(rng, step)
            state, _ = judge(state, evidence, total, looks * START_S, policy)
        found.append((looks - began) * step if state.raised else 10**9)
    return found


def _median(found: Sequence[int]) -> float:
    return float(np.median(found))


def _rates_table(calm: _Calm, windows: int) -> Table:
    rows = []
    for level in LEVELS:
        promised, achieved = math.exp(-level) * calm.promised_bets, calm.crossings[level]
        rows.append((f"{level:g} nats", f"{promised:,.0f}", f"{achieved:,}", f"{achieved / promised:.2f}"))
    threshold = Policy(FEATURES, DAYS).threshold
    promised = windows / bets_in(DAYS)
    rows.append((f"{threshold:.1f} nats, the budget", f"{promised:.2f}", f"{calm.alarms}", "-"))
    title = (
        f"Without drift: times that evidence of any of {FEATURES} features rose over a level, in {windows:,} windows"
    )
    return Table(title, ("level", "promised at most", "achieved", "ratio"), tuple(rows))


def _index_table(index: Mapping[int, tuple[float, float]], peers: PeerFigures) -> Table:
    head = ("rows in a window", "index over 0.1, one feature", "of 50", "Evidently, any of 50 columns", "Turnout")
    rows = [
        (f"{size:,}", f"{one:.1%}", f"{any_:.1%}", _share(peers.false_windows.get(size)), "below 0.01%")
        for size, (one, any_) in index.items()
    ]
    return Table("Windows without drift in which there is an alarm", head, tuple(rows))


def _soon_table(soon: Mapping[float, Sequence[int]], peers: PeerFigures) -> Table:
    rows = []
    for shift, found in soon.items():
        here = f"{_median(found):,.0f} (of {len(found)}, slowest {max(found):,})"
        rows.append((f"{shift} deviations", here, peers.adwin(shift), peers.evidently(shift)))
    rows.append(("none", "0 alarms at the budget", peers.adwin(0.0), peers.evidently(0.0)))
    head = ("shift of one of 50", "Turnout: median rows", "ADWIN: median rows", "Evidently: column found")
    return Table("How soon a shift is found, and what that costs without one", head, tuple(rows))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
