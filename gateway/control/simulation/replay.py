"""One rollout on one stream, by a simulated clock: what a driver does every tick, with all that is pure taken from it.

The plan's steps (:func:`gateway.control.rollout.advance`), the evidence, the transitions of the route's document and
the intervals of its split are the ones that run in a gateway. What is left out: the fast guard, which only makes
a failure found sooner; webhooks, which here say yes at once; and everything that a machine may do.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gateway.control.documents import RouteDocument
from gateway.control.evidence import begin, judge
from gateway.control.rollout import Facts, Finding, Kind, advance, promote, running, start
from gateway.control.rollout_evidence import finding_of, policy_of, shares_of
from gateway.control.rollout_plan import PlanSpec
from gateway.control.rollout_state import Phase, RolloutState
from gateway.control.route_spec import RouteSpec
from gateway.control.simulation.arrivals import Booleans, Integers
from gateway.control.simulation.counted import LIMIT_MS, Counted, Met
from gateway.control.simulation.runs import PAUSED, PROMOTED, ROLLED_BACK, UNFINISHED, Run, Stage
from gateway.control.transitions import Catalogue, put
from gateway.control.verdicts import Block, Judgement, Policy
from gateway.errors import FieldProblem, InvalidInput
from gateway.routing.assignment import Assignment

__all__ = ["TICK_S", "Conduct", "replay"]

TICK_S = 0.5
PATIENCE_S = 4.0
"""A look costs a millisecond and more. Where no outcome of the candidate was bad, which is what harm is found by, the
next look waits for this long, and for the step's ``min_s``; how often one looks changes nothing of what is promised,
and little of what is found."""

_MODEL = "simulated"
_HALTS = {Kind.ROLL_BACK: ROLLED_BACK, Kind.PAUSE: PAUSED}


@dataclass(frozen=True, slots=True)
class Conduct:
    """How the rollout is done. ``approve``: manual gates are opened at once; a plan with one is refused otherwise."""

    plan: PlanSpec
    tick_s: float = TICK_S
    approve: bool = False

    @property
    def policy(self) -> Policy:
        return policy_of(self.plan, slow_ms=LIMIT_MS)

    def checked(self) -> Conduct:
        """Raises InvalidInput for a plan that would wait for somebody, or something, for ever."""
        gated = [place for place, step in enumerate(self.plan.climb) if step.gate == "manual"]
        if gated and not self.approve:
            field = f"steps[{gated[0]}].gate"
            raise InvalidInput(
                f"{field}: nobody is there to open a manual gate; open them all at once with --approve",
                FieldProblem(field, "no manual gate, or --approve", "manual"),
            )
        if "label" in self.plan.required or self.plan.score is not None:
            field = "score" if self.plan.score is not None else "needs"
            raise InvalidInput(
                f"{field}: no truth comes to simulated answers; try the plan without label and score",
                FieldProblem(field, "a plan that asks for no truth", "label or score"),
            )
        return self


def replay(stage: Stage, conduct: Conduct, copied: Booleans) -> Run:
    """``copied``: of which requests the other version gets a copy, where the plan compares answers."""
    return _Replay(stage, conduct, copied).run()


@dataclass(slots=True)
class _Step:
    """What is known of the present step. ``tick``: after which it began; ``row`` and ``harmed``: the counts of the last
    look, which was at ``looked``;
    ``units``: of the evidence that the step is for; ``news``: the tick of the latest of them."""

    tick: int
    counted: Counted
    looked: int
    news: int
    least_s: float
    row: list[int] = field(default_factory=list)
    harmed: int = 0
    units: int = 0
    judgement: Judgement | None = None


class _Replay:
    """One run: the document, its evidence and its split as they stand, and which requests the candidate answered."""

    def __init__(self, stage: Stage, conduct: Conduct, copied: Booleans) -> None:
        self._stage = stage
        self._conduct = conduct
        self._copied = copied if conduct.plan.compares else np.zeros_like(copied)
        self._asked: Booleans = np.zeros(len(stage.arrivals.times_s), dtype=np.bool_)
        self._met = Met(stage.arrivals.key_count)
        self._ticks = int(stage.arrivals.length_s / conduct.tick_s)
        ends = np.arange(self._ticks + 1) * conduct.tick_s
        self._came: list[int] = np.searchsorted(stage.arrivals.times_s, ends, side="left").tolist()
        self._weights: list[tuple[float, float]] = []
        self._policy = conduct.policy
        self._state = begin(self._policy)
        self._finding = Finding()
        self._document = advance(_begun(conduct.plan), Finding(), Facts(), at=0.0).document
        self._step = self._turned(0)

    def run(self) -> Run:
        for tick in range(1, self._ticks + 1):
            self._look(tick)
            ended = self._move(tick)
            if ended is not None:
                return ended
        return self._ended(UNFINISHED, self._ticks)

    def _look(self, tick: int) -> None:
        """The evidence up to this tick; the same as before where nothing came."""
        step, plan = self._step, self._conduct.plan
        place = tick - step.tick
        row, harmed = step.counted.row(place), step.counted.harmed(place)
        elapsed_s, unseen_s = (ticks * self._conduct.tick_s for ticks in (place, tick - step.looked))
        resting = elapsed_s < step.least_s or unseen_s < PATIENCE_S
        if step.judgement is not None and ((resting and harmed == step.harmed) or row == step.row):
            return
        block = Block(
            epoch=self._document.status.epoch,
            shares=shares_of(self._document),
            counters=step.counted.counters(row),
            elapsed_s=elapsed_s,
        )
        self._state, judgement = judge(self._state, block, self._policy)
        if step.judgement is None or _verdicts(judgement) != _verdicts(step.judgement):
            self._finding = finding_of(judgement, plan)
        shadowing = running(self._document).phase is Phase.SHADOWING
        units = judgement.epoch_pairs if shadowing else judgement.epoch_candidate
        if units != step.units:
            step.units, step.news = units, tick
        step.row, step.harmed, step.looked, step.judgement = row, harmed, tick, judgement

    def _move(self, tick: int) -> Run | None:
        """What the plan says now; the run, if it is over."""
        step, tick_s = self._step, self._conduct.tick_s
        facts = Facts(
            elapsed_s=(tick - step.tick) * tick_s,
            units=0 if step.judgement is None else step.judgement.epoch_candidate,
            pairs=0 if step.judgement is None else step.judgement.epoch_pairs,
            quiet_s=(tick - step.news) * tick_s,
        )
        move = advance(self._document, self._finding, facts, at=tick * tick_s)
        if move.kind is Kind.WAIT:
            return None
        if move.kind in _HALTS:
            return self._ended(_HALTS[move.kind], tick, self._finding.harm)
        gated = move.kind is Kind.GATE
        self._document = promote(move.document, self._finding, by=_MODEL, at=tick * tick_s) if gated else move.document
        if self._document.status.rollout is None:
            return self._ended(PROMOTED, tick)
        self._step = self._turned(tick)
        return None

    def _turned(self, tick: int) -> _Step:
        """A new step: its split is in force from this tick on."""
        rollout, came = running(self._document), self._came[tick]
        if tick:
            span = slice(self._came[self._step.tick], came)
            self._met.add(self._stage.arrivals.keys[span], self._copied[span])
        assignment = self._document.status.assignment.split
        self._asked[came:] = _asked(assignment, self._stage.places[came:], rollout.candidate)
        self._weights.append((tick * self._conduct.tick_s, rollout.percent))
        counted = Counted(
            self._stage, start=came, asked=self._asked, paired=self._copied, met=self._met, ticks=self._came[tick:]
        )
        return _Step(tick, counted, looked=tick, news=tick, least_s=_least_s(rollout))

    def _ended(self, end: str, tick: int, cause: str = "") -> Run:
        self._asked[self._came[tick] :] = False
        return self._stage.ended(self._asked, end, tick * self._conduct.tick_s, cause=cause, weights=self._weights)


def _least_s(rollout: RolloutState) -> float:
    plan = rollout.plan
    if rollout.phase is Phase.SHADOWING:
        return 0.0 if plan.shadow is None else plan.shadow.min_s
    if rollout.phase is Phase.BAKING:
        return 0.0 if plan.bake is None else plan.bake.min_s
    return plan.climb[rollout.step].min_s


def _verdicts(judgement: Judgement) -> tuple[object, ...]:
    """All of a judgement that a step depends on; the numbers beside them are for people."""
    return judgement.ratio.broken, *(stream.verdict for stream in judgement.streams)


def _begun(plan: PlanSpec) -> RouteDocument:
    baseline = 1 if plan.candidate != 1 else 2
    spec = RouteSpec.parse({"model": _MODEL, "split": [{"version": baseline, "weight": 1}]})
    catalogue = Catalogue(_MODEL, frozenset({baseline, plan.candidate}))
    return start(put(spec, None, catalogue), plan, catalogue, name=_MODEL, by=_MODEL, at=0.0)


def _asked(assignment: Assignment, places: Integers, candidate: int) -> Booleans:
    ends, versions = np.array(assignment.ends), np.array(assignment.versions)
    asked: Booleans = versions[np.searchsorted(ends, places, side="right")] == candidate
    return asked
