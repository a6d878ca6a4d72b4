"""What is believed of each feature after a look, by a budget of false alarms: pure, states and counts in, states out.

The budget says how many days a model may expect between two false alarms. It is divided evenly over the tests of a
model (each feature, each block of columns, each comparison of arms) and the moments at which a drift may begin, so an
alarm is raised when the evidence reaches ``tests * moments``; with 50 features and 90 days that is 13.4 nats. Evidence
is only ever of *a* difference: with a million rows an hour any two days differ. An alarm is raised when the difference
also matters: when the lower end of its interval is at or above the least effect. A difference that is proved and does
not matter is ``minor``.

Once raised, an alarm stands until the rows that came since are shown to be the reference's again: they must be as many
times more likely under it than under what raised the alarm as moments are in the budget, and the effect below what
matters. Silence is neither.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gateway.telemetry.drift.cells import Counts, Floats
from gateway.telemetry.drift.sizes import Effect
from gateway.telemetry.drift.starts import Starts, bets_in

__all__ = ["Evidence", "FeatureState", "Finding", "Policy", "Raised", "State", "judge", "view"]

_MOST_ROWS_EFFECTS = 200.0
_FEWEST_ROWS = 5
_NOTHING = Effect(0.0, 0.0, math.inf)


class Evidence(Protocol):
    """What windows are judged by: columns are ``names``."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def log_e(self, windows: Counts) -> Floats: ...

    def effects(self, windows: Counts, chosen: NDArray[np.intp]) -> Sequence[Effect]: ...

    def log_return(self, windows: Counts, name: str, drifted: Counts) -> Floats: ...

    def rows(self, windows: Counts) -> Counts: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """``tests`` share one false alarm in ``budget_days``. ``correction`` in nats comes from calibration, and is never
    below 0. ``least_effect``: what matters, in standard deviations or the like (``sizes``); ``least_by_feature`` where
    another does."""

    tests: int
    budget_days: float = 90.0
    least_effect: float = 0.1
    least_by_feature: Mapping[str, float] = field(default_factory=dict)
    correction: float = 0.0

    @property
    def threshold(self) -> float:
        """Of evidence, in nats."""
        return math.log(max(1, self.tests) * bets_in(self.budget_days)) + self.correction

    @property
    def return_threshold(self) -> float:
        return math.log(bets_in(self.budget_days))

    @property
    def most_rows(self) -> int:
        """A bet that has seen as many finds what matters, or finds nothing: the next ones go on."""
        least = min([self.least_effect, *self.least_by_feature.values()])
        return int(_MOST_ROWS_EFFECTS / max(least, 0.01) ** 2)

    def least(self, name: str) -> float:
        return self.least_by_feature.get(name, self.least_effect)


@dataclass(frozen=True, slots=True, eq=False)
class Raised:
    """An alarm that stands. ``began``: about when the drift did; ``counts``: the window that raised it; ``serial``:
    bets from this number on have seen only what came after."""

    at: float
    began: float
    log_evidence: float
    effect: Effect
    rows: int
    serial: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class State:
    """Of one version against one profile (or two arms). ``since``: bets below that number are void for a feature whose
    alarm was cleared."""

    starts: Starts
    raised: Mapping[str, Raised] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    alarms: int = 0
    began_at: float = 0.0


@dataclass(frozen=True, slots=True)
class FeatureState:
    """``state`` is ``quiet``, ``minor``, ``alarm`` or ``no-data``. ``window`` is the place of the bet that says
    most."""

    name: str
    state: str
    log_evidence: float
    threshold: float
    effect: Effect
    rows: int
    window: int
    began: float


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one look. ``raised`` and ``cleared`` name features whose alarm changed in it."""

    features: Sequence[FeatureState]
    raised: tuple[str, ...] = ()
    cleared: tuple[str, ...] = ()


def view(state: State, evidence: Evidence, policy: Policy) -> Sequence[FeatureState]:
    """What the last look left, without another."""
    found = _features(state, evidence, policy)
    return [replace(one, state="alarm") if one.name in state.raised else _unraised(one) for one in found]


def _unraised(one: FeatureState) -> FeatureState:
    """Only a look raises an alarm: what a view would, is about to be one."""
    return replace(one, state="minor") if one.state == "alarm" else one


def judge(state: State, evidence: Evidence, now: Counts, at: float, policy: Policy) -> tuple[State, Finding]:
    """One look: ``now`` is all that was counted so far, ``at`` the time by the wall."""
    starts = state.starts.counted(now)
    looked = replace(state, starts=starts)
    features = list(_features(looked, evidence, policy))
    raised, cleared = dict(state.raised), []
    windows: dict[int, Counts] = {}  # one array for all features that one window raised: there may be a thousand
    for place, one in enumerate(features):
        standing = state.raised.get(one.name)
        if standing is None and one.state == "alarm":
            if one.window not in windows:
                windows[one.window] = starts.windows[one.window].copy()
            counts = windows[one.window]
            raised[one.name] = Raised(
                at, one.began, one.log_evidence, one.effect, one.rows, serial=starts.opened, counts=counts
            )
        elif standing is not None and _returned(looked, standing, evidence, policy, one.name):
            cleared.append(one.name)
            features[place] = replace(one, state="quiet")
            del raised[one.name]
        elif standing is not None:
            features[place] = replace(one, state="alarm")
    fresh = tuple(name for name in raised if name not in state.raised)
    after = State(
        starts.opened_anew(at, policy.most_rows),
        raised,
        {**state.since, **dict.fromkeys(cleared, starts.opened)},
        state.alarms + len(fresh),
        state.began_at,
    )
    return after, Finding(tuple(features), fresh, tuple(cleared))


def _features(state: State, evidence: Evidence, policy: Policy) -> Iterator[FeatureState]:
    starts, names = state.starts, evidence.names
    windows = starts.windows
    rows, log_e = evidence.rows(windows), evidence.log_e(windows)
    first = np.array([_first(state, name) for name in names], np.int64)
    valid = (np.array(starts.serials)[:, None] >= first) & (rows[:, None] > 0)
    bets = np.where(valid, log_e, -np.inf)
    totals = np.logaddexp.reduce(bets, axis=0, initial=-np.inf)
    most = np.where(valid, rows[:, None], -1)
    proved = (totals >= policy.threshold) & (most.max(axis=0, initial=-1) >= _FEWEST_ROWS)
    chosen = np.where(proved, bets.argmax(axis=0), most.argmax(axis=0))
    effects = evidence.effects(windows, chosen)
    for place, name in enumerate(names):
        window = int(chosen[place])
        if not valid[:, place].any():
            yield FeatureState(name, "no-data", 0.0, policy.threshold, _NOTHING, 0, -1, 0.0)
            continue
        effect, verdict = effects[place], "quiet"
        if proved[place]:
            verdict = "alarm" if effect.low >= policy.least(name) else "minor"
        total, began = float(totals[place]), starts.times[window]
        yield FeatureState(name, verdict, total, policy.threshold, effect, int(rows[window]), window, began)


def _first(state: State, name: str) -> int:
    """The first bet that counts: of a feature whose alarm stands, of those that saw only what came after."""
    standing = state.raised.get(name)
    return max(state.since.get(name, 0), 0 if standing is None else standing.serial)


def _returned(state: State, standing: Raised, evidence: Evidence, policy: Policy, name: str) -> bool:
    after = np.flatnonzero(np.array(state.starts.serials) >= standing.serial)
    if not len(after):
        return False
    windows = state.starts.windows[after]
    log_return = evidence.log_return(windows, name, standing.counts)
    if np.logaddexp.reduce(log_return) < policy.return_threshold:
        return False
    best = np.full(len(evidence.names), int(np.argmax(log_return)), np.intp)
    return evidence.effects(windows, best)[evidence.names.index(name)].value < policy.least(name)
