"""From a route's document to the compiled route that requests are decided by."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from gateway.control.documents import RouteDocument
from gateway.control.flag_rules import FlagRules, without_flags
from gateway.control.rollout_plan import PlanSpec
from gateway.control.rollout_state import ENDED, Phase
from gateway.control.route_spec import ArmSpec, DecisionsSpec, FlagRuleSpec, LimitsSpec, RuleSpec
from gateway.routing.rules import compile_condition
from gateway.routing.table import Arm, CachePolicy, Limits, Recording, Route, Rule, Shadow, Trial

__all__ = ["compile_route"]


def compile_route(
    name: str, document: RouteDocument, *, default_timeout_ms: int, flags: FlagRules | None = None
) -> Route:
    """Without ``flags``, rules that name one have no data to go by."""
    spec, status = document.spec, document.status
    return Route(
        name=name,
        model=spec.model,
        arms=_arms(status.split),
        key=spec.key,
        pin=spec.pin,
        rules=tuple(_rule(name, document, rule, flags) for rule in spec.rules),
        fallback=spec.fallback,
        known_good=status.known_good,
        quarantined=frozenset(status.quarantined),
        limits=_limits(spec.limits, default_timeout_ms),
        cache=None if spec.cache is None else CachePolicy(spec.cache.max_bytes, spec.cache.ttl_s),
        protected=spec.access == "token",
        shadows=_shadows(document),
        tolerance=_tolerance(document),
        # The quarantined too, so that a pin on one is told that it was rolled back, not that it is unknown.
        pinnable=document.answering(),
        trial=_trial(name, document),
        assignment=status.assignment.split,
        epoch=status.epoch,
        recording=_recording(spec.decisions),
        truth=None if spec.truth is None else spec.truth.compiled(),
    )


def _recording(decisions: DecisionsSpec) -> Recording | None:
    if not decisions.record:
        return None
    return Recording(decisions.content, frozenset(decisions.redact), decisions.on_full == "refuse")


def _trial(name: str, document: RouteDocument) -> Trial | None:
    """None as long as there is nothing to compare."""
    rollout, status = document.status.rollout, document.status
    if rollout is None or rollout.phase is Phase.PREPARING:
        return None
    return Trial(f"{name}/{rollout.id}", rollout.candidate, rollout.baseline, status.epoch)


def _shadows(document: RouteDocument) -> tuple[Shadow, ...]:
    """What the operator asks for, and what the rollout that runs does: candidate and known good are each copied to
    the other. A version in quarantine gets nothing."""
    found = [Shadow(shadow.version, shadow.share) for shadow in document.spec.shadow]
    plan = _plan_that_runs(document)
    rollout = document.status.rollout
    if plan is not None and plan.shadow is not None and rollout is not None:
        share, candidate, baseline = plan.shadow.share, rollout.candidate, rollout.baseline
        found += [Shadow(candidate, share, baseline), Shadow(baseline, share, candidate)]
    sound = (shadow for shadow in found if shadow.version not in document.status.quarantined)
    return tuple(sorted(sound, key=lambda shadow: shadow.version))


def _tolerance(document: RouteDocument) -> float | None:
    plan = _plan_that_runs(document)
    return document.spec.tolerance if plan is None or plan.tolerance is None else plan.tolerance


def _plan_that_runs(document: RouteDocument) -> PlanSpec | None:
    """Of a rollout whose candidate has loaded, and that has not ended."""
    rollout = document.status.rollout
    return None if rollout is None or rollout.phase in (*ENDED, Phase.PREPARING) else rollout.plan


def _limits(limits: LimitsSpec, default_timeout_ms: int) -> Limits:
    """Without a burst, what the rate lets through in a second may come at once."""
    burst = math.ceil(limits.rate_per_s or 1) if limits.burst is None else limits.burst
    return Limits(
        timeout_ms=default_timeout_ms if limits.timeout_ms is None else limits.timeout_ms,
        slow_ms=limits.slow_ms,
        queue_rows=limits.queue_rows,
        rate_per_s=limits.rate_per_s,
        burst=burst,
    )


def _arms(arms: Iterable[ArmSpec]) -> tuple[Arm, ...]:
    return tuple(Arm(arm.version, arm.weight) for arm in arms)


def _rule(route: str, document: RouteDocument, rule: RuleSpec | FlagRuleSpec, flags: FlagRules | None) -> Rule:
    if isinstance(rule, FlagRuleSpec):
        choose = (flags or without_flags()).compile(route, document, rule)
        named = frozenset(rule.versions()) or document.answering()
        return Rule(rule.name, _never, (), choose, named, condition=rule.flag)
    use = rule.use if isinstance(rule.use, int) else _arms(rule.use)
    assignment = document.status.assignment.rules.get(rule.name)
    matches = compile_condition(rule.condition, name=rule.name)
    return Rule(rule.name, matches, use, assignment=assignment, condition=rule.condition)


def _never(context: Mapping[str, Any]) -> bool:  # noqa: ARG001 (a condition's shape)
    """A rule that names a flag is asked by ``choose``."""
    return False
