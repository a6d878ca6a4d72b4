"""What the driver knows of one rollout beside its document: evidence so far, how long a step has lasted, its webhooks.

Evidence and webhooks are kept by the coordination for the next leader; time is not: it is measured on this process's
monotonic clock from when the step was first seen here, after what the wall clock says had passed before.

Evidence that was lost (with the process or the store that knew which keys were counted) begins anew, and keys may come
again that the lost part had counted. The parts are therefore no product of independent tests: each has a budget of its
own, 80% of ``alpha`` for the first, and 10%, halved each time, for those that follow. The last 10% are for what each
replica proves by itself while it is cut off. (``beta`` is not divided: each part has it anew.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from gateway.control.evidence import State, begin, judge
from gateway.control.rollout_evidence import finding_of
from gateway.control.rollout_facts import Facts, Finding
from gateway.control.rollout_hooks import Hooks
from gateway.control.rollout_state import Phase, RolloutState
from gateway.control.verdicts import Block, Judgement, Policy
from gateway.control.webhooks import Webhooks

__all__ = ["Run", "budgeted", "budgeted_alone"]

FIRST_BUDGET, LATER_BUDGET, ALONE_BUDGET = 0.8, 0.1, 0.1
"""Parts of ``alpha``; they add up to all of it."""

StepKey = tuple[str, int, int]


class Run:
    """``policy`` is the plan's. Used by one driver, on the event loop."""

    def __init__(self, scope: str, policy: Policy, webhooks: Webhooks) -> None:
        self.scope = scope
        self._whole = policy
        self._renewals = 0
        self._counted: tuple[int, Mapping[str, int]] = (0, {})
        self.policy = budgeted(policy, 0)
        self.state: State = begin(self.policy)
        self.judgement: Judgement | None = None
        self.finding = Finding()
        self.waits: tuple[str, ...] = ()
        self.trouble = ""
        self.lost_all = False
        self.kept_at = float("-inf")
        self.hooks = Hooks(scope, webhooks)
        self._kept_detail: Mapping[str, Any] = {}
        self._step: StepKey | None = None
        self._step_began = 0.0
        self._epoch: int | None = None
        self._epoch_began = 0.0
        self._units = -1
        self._moved_at = 0.0

    def __repr__(self) -> str:
        return f"<Run {self.scope} [{self.hooks}]>"

    @property
    def detail(self) -> Mapping[str, Any]:
        """The numbers of the last judgement, made here or by the leader before."""
        return self.finding.detail or self._kept_detail

    # Evidence and time

    def look(self, rollout: RolloutState, epoch: int, *, now: float, wall: float) -> None:
        """Where the rollout stands; a step or an epoch that is new begins to last."""
        step = (str(rollout.active_phase), rollout.step, int(rollout.entered_at * 1000))
        if step != self._step:
            before = max(0.0, wall - rollout.entered_at) if self._step is None else 0.0
            self._step, self._step_began = step, now - before
            self._units, self._moved_at = -1, now
        if epoch != self._epoch:
            self._epoch, self._epoch_began = epoch, now
        if rollout.renewals != self._renewals:
            self._begin_anew(rollout.renewals)

    def _begin_anew(self, renewals: int) -> None:
        self._renewals, self.policy = renewals, budgeted(self._whole, renewals)
        self.state, self.judgement, self.finding = begin(self.policy), None, Finding()

    def judged(
        self, counters: Mapping[str, int], shares: Mapping[str, float], epoch: int, *, now: float, plan_of: RolloutState
    ) -> Finding:
        block = Block(epoch, shares, counters, now - self._epoch_began)
        if counters:
            self._counted = (epoch, counters)
        self.state, self.judgement = judge(self.state, block, self.policy)
        self.finding = finding_of(self.judgement, plan_of.plan)
        return self.finding

    def lost(self, counters: Mapping[str, int], epoch: int) -> bool:
        """What was counted in this epoch is no longer there: claims and counters went with a process or a store."""
        before, counted = self._counted
        return before == epoch and any(counters.get(name, 0) < count for name, count in counted.items())

    @property
    def counted_epoch(self) -> int:
        """The newest epoch of which anything was counted; 0: none."""
        return self._counted[0]

    def facts(self, rollout: RolloutState, *, now: float, ready: bool, refused: str, drift: str) -> Facts:
        found = self.judgement
        units, pairs = (0, 0) if found is None else (found.epoch_candidate, found.epoch_pairs)
        told = pairs if rollout.phase is Phase.SHADOWING else units
        if told != self._units:
            self._units, self._moved_at = told, now
        return Facts(
            ready=ready,
            refused=refused,
            elapsed_s=max(0.0, now - self._step_began),
            units=units,
            pairs=pairs,
            quiet_s=now - self._moved_at,
            unconfirmed=self.hooks.unconfirmed(rollout),
            drift=drift,
        )

    # What the next leader gets

    def kept(self, facts: Facts | None, wall: float) -> bytes:
        body = {
            "state": self.state.to_json(),
            "renewals": self._renewals,
            "counted": [self._counted[0], dict(self._counted[1])],
            "judgement": dict(self.detail),
            "waits": list(self.waits),
            "trouble": self.trouble,
            "progress": {} if facts is None else _progress(facts),
            "webhooks": self.hooks.deliveries,
            "at": wall,
        }
        return orjson.dumps(body)

    def restore(self, value: bytes | None, renewals: int) -> bool:
        """Whether there was something: the evidence of the leader before, of the same part."""
        body = {} if value is None else orjson.loads(value)
        self._begin_anew(renewals)
        self.hooks.restore(body.get("webhooks", []))
        if not body or body["renewals"] != renewals:
            return False
        self._kept_detail = dict(body["judgement"])
        self.state = State.from_json(body["state"])
        self._counted = (int(body["counted"][0]), dict(body["counted"][1]))
        return True


def budgeted(policy: Policy, renewals: int) -> Policy:
    """The part of ``alpha`` that evidence has which began anew so often."""
    part = FIRST_BUDGET if not renewals else LATER_BUDGET * 0.5**renewals
    return replace(policy, alpha=policy.alpha * part)


def budgeted_alone(policy: Policy, replicas: int) -> Policy:
    """The part that one of so many replicas has, for all times together that it is cut off."""
    return replace(policy, alpha=policy.alpha * ALONE_BUDGET / replicas)


def _progress(facts: Facts) -> dict[str, Any]:
    return {
        "elapsed_s": round(facts.elapsed_s, 3),
        "units": facts.units,
        "pairs": facts.pairs,
        "quiet_s": round(facts.quiet_s, 3),
        "ready": facts.ready,
    }
