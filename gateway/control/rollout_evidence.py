"""Between a plan and the statistics: which streams it asks for, and what a judgement means for its next step. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.control.documents import RouteDocument
from gateway.control.rollout_facts import Finding
from gateway.control.rollout_plan import PlanSpec
from gateway.control.route_spec import ArmSpec
from gateway.control.verdicts import HARMFUL, HEALTHY, Judgement, Policy, StreamJudgement, StreamPolicy

__all__ = ["finding_of", "policy_of", "shares_of", "summary_of"]


def policy_of(plan: PlanSpec, *, slow_ms: int | None) -> Policy:
    """Labels are judged where the plan needs them, a score where it has one: a stream that never has data would cost
    the others its part of ``alpha``."""
    required, harm = plan.required, plan.max_harm
    streams = [
        StreamPolicy("error", harm.error, required="error" in required),
        StreamPolicy("slow", harm.slow, required="slow" in required, limit_ms=slow_ms),
    ]
    if plan.compares:
        most = plan.max_disagreement or 0.0
        streams.append(StreamPolicy("disagreement", most, required="disagreement" in required))
    if "label" in required:
        streams.append(StreamPolicy("label", harm.label))
    if plan.score is not None:
        low, high, needed = plan.score.worst, plan.score.best, "score" in required
        streams.append(StreamPolicy("score", plan.max_score_harm, required=needed, low=low, high=high))
    return Policy(streams=tuple(streams), alpha=plan.alpha)


def shares_of(document: RouteDocument) -> dict[str, float]:
    """The candidate's part of what it shares with the baseline, for each split that gives both some."""
    rollout = document.status.rollout
    if rollout is None:
        return {}
    splits: dict[str, Any] = {"split": document.status.split}
    for rule in document.spec.rules:
        if isinstance(rule.use, list):
            splits[f"rule:{rule.name}"] = rule.use
    shares = {name: _share(arms, rollout.candidate, rollout.baseline) for name, arms in splits.items()}
    return {name: share for name, share in shares.items() if share is not None}


def _share(arms: tuple[ArmSpec, ...] | list[ArmSpec], candidate: int, baseline: int) -> float | None:
    weights = {arm.version: arm.weight for arm in arms}
    mine, other = weights.get(candidate, 0), weights.get(baseline, 0)
    return mine / (mine + other) if mine and other else None


def finding_of(judgement: Judgement, plan: PlanSpec) -> Finding:
    lacking: dict[str, int | None] = {}
    known = {stream.stream: stream for stream in judgement.streams}
    for name in plan.required:
        stream = known.get(name)
        if stream is None or stream.verdict != HEALTHY:
            lacking[name] = None if stream is None else stream.needed
    harmful = next((stream for stream in judgement.streams if stream.verdict == HARMFUL), None)
    ratio = judgement.ratio
    return Finding(
        harm="" if harmful is None else harmful.stream,
        reason="" if harmful is None else _sentence(harmful),
        lacking=lacking,
        broken_split=(ratio.reason or "the arms' shares are not as expected") if ratio.broken else "",
        detail=summary_of(judgement),
    )


def _sentence(stream: StreamJudgement) -> str:
    one, other = stream.candidate, stream.baseline
    if stream.stream == "score":
        return f"score: {stream.reason}"
    counts = f"{one.bad} of {one.units} units of the candidate"
    if other.units:
        counts += f", {other.bad} of {other.units} of the known good"
    return f"{stream.stream}: {counts}" + (f"; {stream.reason}" if stream.reason else "")


def summary_of(judgement: Judgement) -> Mapping[str, Any]:
    """For records and people: as much of a judgement as tells why."""
    return {
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "epoch": judgement.epoch,
        "sample_ratio": judgement.ratio.to_json(),
        "streams": {stream.stream: _stream_summary(stream) for stream in judgement.streams},
        "needed": judgement.needed,
        "expected_s": judgement.expected_s,
    }


def _stream_summary(stream: StreamJudgement) -> dict[str, Any]:
    body = stream.to_json()
    del body["stream"]
    return body
