"""The webhooks of one rollout: whom to ask, whom to tell, and what became of it.

``confirm`` and ``before`` come ahead of a step and are made of where the rollout stands. ``after`` and ``rolled_back``
are owed by the route's status, which has a telling for each change in the very document that made it: whoever leads
sends those that nobody is known to have sent, under the names that any other leader would have given them. A receiver
may so get one twice, never not at all, and knows it by its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.control.rollout_plan import HookSpec
from gateway.control.rollout_state import ENDED, RolloutState, Telling
from gateway.control.webhooks import Delivery, Webhooks, delivery_id

__all__ = ["Hooks", "Subject", "settled"]

ASK_AGAIN_S = 10.0
"""A confirmation that was refused is asked for again after so long."""

Json = Mapping[str, Any]


class Subject:
    """Whom a webhook's words are about: the rollout of a route, as it stands."""

    def __init__(self, route: str, model: str, rollout: RolloutState) -> None:
        self.rollout = rollout
        self._names: Json = {"route": route, "model": model, "rollout": rollout.id}
        self._names = {**self._names, "candidate": rollout.candidate, "baseline": rollout.baseline}

    def ahead(self, fresh: RolloutState) -> dict[str, Any]:
        """Of the step that comes next."""
        now = {"phase": str(self.rollout.phase), "percent": self.rollout.percent}
        return {**self._names, **now, "next": {"phase": str(fresh.phase), "percent": fresh.percent}}

    def of(self, telling: Telling, evidence: Json) -> dict[str, Any]:
        """Of a change that was made; of the last one with all that was found."""
        now = {"phase": telling.phase, "percent": telling.percent, "by": telling.by, "reason": telling.reason}
        body = {**self._names, **now, "next": {"phase": telling.next_phase, "percent": telling.next_percent}}
        return body | ({"evidence": dict(evidence)} if telling.next_phase in ENDED else {})


class Hooks:
    """``scope`` is the rollout's: names of deliveries are made of it. Used by one driver, on the event loop."""

    def __init__(self, scope: str, webhooks: Webhooks) -> None:
        self._scope = scope
        self._webhooks = webhooks
        self._sent: dict[str, Delivery] = {}
        self._past: list[Json] = []

    def __repr__(self) -> str:
        return f"<Hooks {self._scope} [{len(self._sent)} sent]>"

    def unconfirmed(self, rollout: RolloutState) -> str:
        """Who has not said yes to leaving this step."""
        asked = [
            (hook, self._sent.get(self._ahead("confirm", rollout, hook))) for hook in rollout.plan.webhooks.confirm
        ]
        missing = [_awaited(hook, found) for hook, found in asked if found is None or found.state != "delivered"]
        return "; ".join(missing)

    def ask(self, subject: Subject, fresh: RolloutState, *, now_wall: float) -> None:
        """Asks those who have not confirmed; who refused, again after a while."""
        for hook in subject.rollout.plan.webhooks.confirm:
            name = self._ahead("confirm", subject.rollout, hook)
            found = self._sent.get(name)
            again = found is not None and found.state == "failed" and abs(now_wall - found.at) >= ASK_AGAIN_S
            if found is None or again:
                self._sent[name] = self._webhooks.send(hook, "confirm", name, subject.ahead(fresh), once=True)

    def before(self, subject: Subject, fresh: RolloutState) -> bool:
        """Tells of the step, once; whether each has it, or is given up."""
        names = []
        for hook in subject.rollout.plan.webhooks.before:
            names.append(name := self._ahead("before", subject.rollout, hook))
            if name not in self._sent:
                self._sent[name] = self._webhooks.send(hook, "before", name, subject.ahead(fresh))
        return all(self._sent[name].state != "pending" for name in names)

    def tell(self, subject: Subject, evidence: Json) -> None:
        """Sends what the rollout's state owes and was not sent yet."""
        for telling in subject.rollout.tellings:
            for hook, name in _owed(self._scope, subject.rollout, telling):
                if name not in self._sent:
                    event = telling.event.replace("_", "-")
                    self._sent[name] = self._webhooks.send(hook, event, name, subject.of(telling, evidence))

    def _ahead(self, event: str, rollout: RolloutState, hook: HookSpec) -> str:
        return delivery_id(self._scope, event, rollout.active_phase, rollout.step, hook.url)

    @property
    def deliveries(self) -> list[dict[str, Any]]:
        fresh = [delivery.to_json() for delivery in self._sent.values()]
        names = {delivery["delivery"] for delivery in fresh}
        return [*(_given_up(past) for past in self._past if past["delivery"] not in names), *fresh]

    @property
    def under_way(self) -> bool:
        return any(delivery.state == "pending" for delivery in self._sent.values())

    def restore(self, past: Sequence[Json]) -> None:
        """What another leader did. What it had not finished is sent again, if it is still to be sent."""
        self._past = [*self._past, *past]
        for one in past:
            if one["state"] != "pending" and one["delivery"] not in self._sent:
                outcome = (one["state"], one["attempts"], one["answer"], one["at"])
                delivery = Delivery(HookSpec(url=one["url"]), one["event"], one["delivery"], *outcome)
                self._sent[delivery.name] = delivery


def settled(scope: str, ended: RolloutState, deliveries: Sequence[Json]) -> bool:
    """Whether all that the ended rollout owes is delivered, or given up."""
    states = {one["delivery"]: one["state"] for one in deliveries}
    owed = [name for telling in ended.tellings for _, name in _owed(scope, ended, telling)]
    return "pending" not in states.values() and all(name in states for name in owed)


def _owed(scope: str, rollout: RolloutState, telling: Telling) -> list[tuple[HookSpec, str]]:
    hooks: list[HookSpec] = getattr(rollout.plan.webhooks, telling.event)
    return [(hook, delivery_id(scope, telling.event, telling.number, hook.url)) for hook in hooks]


def _awaited(hook: HookSpec, found: Delivery | None) -> str:
    if found is None:
        return f"{hook.url} is to be asked"
    return f"{hook.url} is asked" if found.state == "pending" else f"{hook.url} said no ({found.answer})"


def _given_up(past: Json) -> dict[str, Any]:
    if past["state"] != "pending":
        return dict(past)
    return {**past, "state": "failed", "answer": past["answer"] or "its sender ended before it was answered"}
