"""From what the tests of a stream have found to verdicts, reasons, and how much is still needed. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil, exp, log
from typing import TypeVar

from gateway.control.statistics.findings import Finding
from gateway.control.tallies import AGAIN, CANDIDATE, FRESH, KEPT, totals_of
from gateway.control.verdicts import (
    HARMFUL,
    HEALTHY,
    NOT_ENOUGH,
    Block,
    Counts,
    Judgement,
    Policy,
    RatioJudgement,
    StreamJudgement,
    StreamPolicy,
)

__all__ = ["overall", "stream_judgement", "timed"]

Number = TypeVar("Number", int, float)


def stream_judgement(
    findings: Sequence[tuple[Finding, float]], policy: StreamPolicy, whole: Policy, *, harmful: bool
) -> StreamJudgement:
    """``findings``: of fresh keys, and of this epoch's, each with the logarithm of its part of the budget. ``harmful``:
    it was found so before."""
    alpha = whole.alpha * policy.weight / sum(stream.weight for stream in whole.streams)
    fresh = findings[0][0]
    log_harm = max(found.log_harm + part for found, part in findings)
    log_health = max(found.log_health + part for found, part in findings)
    wanted_harm, wanted_health = log(1.0 / alpha), log(1.0 / whole.beta)
    verdict = HEALTHY if log_health >= wanted_health else NOT_ENOUGH
    if harmful or log_harm >= wanted_harm:
        verdict = HARMFUL
    mean, baseline_mean = fresh.means or (None, None)
    needed = [_needed(found, part, wanted_harm, wanted_health) for found, part in findings]
    judgement = StreamJudgement(
        stream=policy.stream,
        verdict=verdict,
        required=policy.required,
        reason="",
        candidate=Counts(fresh.units, fresh.bad, mean),
        baseline=Counts(fresh.baseline_units, fresh.baseline_bad, baseline_mean),
        log_harm=log_harm,
        harm_threshold=wanted_harm,
        log_health=log_health,
        health_threshold=wanted_health,
        difference=fresh.difference,
        low=max(found.low for found, _ in findings),
        high=min(found.high for found, _ in findings),
        needed=min((n for n in needed if n is not None), default=None) if verdict == NOT_ENOUGH else 0,
    )
    return replace(judgement, reason=_reason(judgement, policy))


MOST_NEEDED = 10**9


def _needed(found: Finding, part: float, wanted_harm: float, wanted_health: float) -> int | None:
    ways = (
        (wanted_harm - part - found.log_harm, found.harm_pace),
        (wanted_health - part - found.log_health, found.health_pace),
    )
    units = [ceil(missing / pace) for missing, pace in ways if pace > 0.0 and missing < pace * MOST_NEEDED]
    return min((max(n, 1) for n in units), default=None)


def _reason(judgement: StreamJudgement, policy: StreamPolicy) -> str:
    a, b = judgement.candidate, judgement.baseline
    if not a.units:
        return "the candidate has no outcome yet"
    if policy.stream == "score":
        seen = f"{a.units} scores of the candidate{_mean(a)} and {b.units} of the baseline{_mean(b)}"
    elif policy.stream == "disagreement":
        seen = f"{a.bad} of {a.units} answers differ"
    else:
        seen = f"{a.bad} of the candidate's {a.units} and {b.bad} of the baseline's {b.units} are bad"
    if judgement.verdict == HARMFUL:
        return f"{seen}: harm, at {_odds(judgement.log_harm)} with {_odds(judgement.harm_threshold)} asked for"
    if judgement.verdict == HEALTHY:
        return f"{seen}: the harm is less than {policy.max_harm:g}"
    more = "" if judgement.needed is None else f"; about {judgement.needed} more of the candidate's are needed"
    return f"{seen}: that proves neither harm nor its absence{more}"


def _mean(counts: Counts) -> str:
    return "" if counts.mean is None else f" (mean {counts.mean:.4g})"


def _odds(logarithm: float) -> str:
    return f"{exp(min(logarithm, 30.0)):.3g} to 1"


def timed(judgement: StreamJudgement, block: Block) -> StreamJudgement:
    """How long what is needed takes, at this epoch's pace."""
    if not judgement.needed:
        return judgement
    units, _ = _arms(block.counters, "error" if judgement.stream == "slow" else judgement.stream)
    if not units or block.elapsed_s <= 0.0:
        return judgement
    return replace(judgement, expected_s=judgement.needed * block.elapsed_s / units)


_NO_UNITS = (f"/{KEPT}", "/sum", "/squares")
"""Outcomes that count something else than units; the latter two of scores."""


def _arms(counters: Mapping[str, int], stream: str) -> tuple[int, int]:
    """Units of the candidate and of the baseline in this epoch."""
    found = [0, 0]
    for outcomes in totals_of(counters, (FRESH, AGAIN)).get(stream, {}).values():
        for name, count in outcomes.items():
            if not name.endswith(_NO_UNITS):
                found[not name.startswith(f"{CANDIDATE}/")] += count
    return found[0], found[1]


def overall(block: Block, streams: tuple[StreamJudgement, ...], ratio: RatioJudgement) -> Judgement:
    harmful = [stream for stream in streams if stream.verdict == HARMFUL]
    waiting = [stream for stream in streams if stream.required and stream.verdict != HEALTHY]
    if harmful:
        verdict, reason = HARMFUL, "; ".join(f"{stream.stream}: {stream.reason}" for stream in harmful)
    elif ratio.broken:
        verdict, reason = NOT_ENOUGH, ratio.reason
    elif waiting or not streams:
        verdict, reason = NOT_ENOUGH, "; ".join(f"{stream.stream}: {stream.reason}" for stream in waiting)
    else:
        proved = [stream for stream in streams if stream.verdict == HEALTHY]
        verdict, reason = HEALTHY, "; ".join(f"{stream.stream}: {stream.reason}" for stream in proved)
    candidate, baseline = _arms(block.counters, "error")
    pairs, _ = _arms(block.counters, "disagreement")
    return Judgement(
        verdict=verdict,
        reason=reason,
        epoch=block.epoch,
        epoch_candidate=candidate,
        epoch_baseline=baseline,
        epoch_pairs=pairs,
        streams=streams,
        ratio=ratio,
        needed=_slowest([stream.needed for stream in waiting]),
        expected_s=_slowest([stream.expected_s for stream in waiting]),
    )


def _slowest(each: Sequence[Number | None]) -> Number | None:
    known = [number for number in each if number is not None]
    return max(known) if known and len(known) == len(each) else None
