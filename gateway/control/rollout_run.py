"""What the driver knows of one rollout beside its document: evidence so far, how long a step has lasted, its webhooks.

Evidence and webhooks are kept by the coordination for the next leader; time is not: it is measured on this process's
monotonic clock from when the step was first seen here, after what the wall clock says had passed before.

Evidence that was lost (with the process or the store that knew which keys were counted) begins anew, and keys may come
again that the lost part had counted. The parts are therefore no product of independent tests: each has a budget of its
own, 90% of ``alpha`` for the first and the rest, halved each time, for those that follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from gateway.control.evidence import Block, Judgement, Policy, State, begin, judge
from gateway.control.rollout import Facts, Finding
from gateway.control.rollout_evidence import finding_of
from gateway.control.rollout_plan import HookSpec
from gateway.control.rollout_state import Phase, RolloutState
from gateway.control.webhooks import Delivery, Webhooks, delivery_id

__all__ = ["Run"]

FIRST_BUDGET = 0.9
ASK_AGAIN_S = 10.0
"""A confirmation that was refused is asked for again after so long."""

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
        self._webhooks = webhooks
        self._hooks: dict[str, Delivery] = {}
        self._past: list[Mapping[str, Any]] = []
        self._step: StepKey | None = None
        self._step_began = 0.0
        self._epoch: int | None = None
        self._epoch_began = 0.0
        self._units = -1
        self._moved_at = 0.0

    def __repr__(self) -> str:
        return f"<Run {self.scope} [{len(self._hooks)} webhooks]>"

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

    def facts(self, rollout: RolloutState, *, now: float, ready: bool, refused: str) -> Facts:
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
            unconfirmed=self.unconfirmed(rollout),
        )

    # Webhooks

    def unconfirmed(self, rollout: RolloutState) -> str:
        """Who has not said yes to leaving this step."""
        asked = [
            (hook, self._hooks.get(self._name("confirm", rollout, hook))) for hook in rollout.plan.webhooks.confirm
        ]
        missing = [_awaited(hook, found) for hook, found in asked if found is None or found.state != "delivered"]
        return "; ".join(missing)

    def ask(self, rollout: RolloutState, about: Mapping[str, Any], *, now_wall: float) -> None:
        """Asks those who have not confirmed; who refused, again after a while."""
        for hook in rollout.plan.webhooks.confirm:
            found = self._hooks.get(self._name("confirm", rollout, hook))
            again = found is not None and found.state == "failed" and now_wall - found.at >= ASK_AGAIN_S
            if found is None or again:
                self._send(hook, "confirm", rollout, about, once=True)

    def told(self, event: str, rollout: RolloutState, about: Mapping[str, Any]) -> bool:
        """Tells the event's hooks of the step, once; whether each has it, or is given up."""
        hooks: list[HookSpec] = getattr(rollout.plan.webhooks, event)
        for hook in hooks:
            if self._name(event, rollout, hook) not in self._hooks:
                self._send(hook, event, rollout, about, once=False)
        return all(self._hooks[self._name(event, rollout, hook)].state != "pending" for hook in hooks)

    def _send(self, hook: HookSpec, event: str, rollout: RolloutState, about: Mapping[str, Any], *, once: bool) -> None:
        name = self._name(event, rollout, hook)
        self._hooks[name] = self._webhooks.send(hook, event.replace("_", "-"), name, about, once=once)

    def _name(self, event: str, rollout: RolloutState, hook: HookSpec) -> str:
        return delivery_id(self.scope, event, rollout.active_phase, rollout.step, hook.url)

    @property
    def deliveries(self) -> list[dict[str, Any]]:
        fresh = [delivery.to_json() for delivery in self._hooks.values()]
        names = {delivery["delivery"] for delivery in fresh}
        return [*(dict(past) for past in self._past if past["delivery"] not in names), *fresh]

    @property
    def undelivered(self) -> bool:
        return any(delivery.state == "pending" for delivery in self._hooks.values())

    # What the next leader gets

    def kept(self, facts: Facts | None, wall: float) -> bytes:
        body = {
            "state": self.state.to_json(),
            "renewals": self._renewals,
            "counted": [self._counted[0], dict(self._counted[1])],
            "judgement": dict(self.finding.detail),
            "waits": list(self.waits),
            "trouble": self.trouble,
            "progress": {} if facts is None else _progress(facts),
            "webhooks": self.deliveries,
            "at": wall,
        }
        return orjson.dumps(body)

    def restore(self, value: bytes | None, renewals: int) -> bool:
        """Whether there was something: the evidence of the leader before, of the same part."""
        body = {} if value is None else orjson.loads(value)
        self._begin_anew(renewals)
        if not body or body["renewals"] != renewals:
            return False
        self.state = State.from_json(body["state"])
        self._counted = (int(body["counted"][0]), dict(body["counted"][1]))
        self._past = list(body["webhooks"])
        for past in self._past:
            if past["state"] == "delivered":
                hook = HookSpec(url=past["url"])
                self._hooks[past["delivery"]] = Delivery(
                    hook, past["event"], past["delivery"], "delivered", past["attempts"], past["answer"], past["at"]
                )
        return True


def budgeted(policy: Policy, renewals: int) -> Policy:
    """The part of ``alpha`` that evidence has which began anew so often."""
    part = FIRST_BUDGET if not renewals else (1 - FIRST_BUDGET) * 0.5**renewals
    return replace(policy, alpha=policy.alpha * part)


def _progress(facts: Facts) -> dict[str, Any]:
    return {
        "elapsed_s": round(facts.elapsed_s, 3),
        "units": facts.units,
        "pairs": facts.pairs,
        "quiet_s": round(facts.quiet_s, 3),
        "ready": facts.ready,
    }


def _awaited(hook: HookSpec, found: Delivery | None) -> str:
    if found is None:
        return f"{hook.url} is to be asked"
    return f"{hook.url} is asked" if found.state == "pending" else f"{hook.url} said no ({found.answer})"
