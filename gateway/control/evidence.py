"""What is known of a candidate against the concurrent baseline, and what it proves: pure, valid at every look.

How to use it. ``policy = Policy(...)``; ``state = begin(policy)`` once a rollout; then, as often as one likes::

    state, judgement = judge(state, Block(epoch, shares, counters, elapsed_s), policy)

``counters`` are *cumulative* integers of the epoch, summed over replicas (``Coordination.gather``): the state remembers
which of them it has used, so that nothing counts twice, whoever leads and however often it looks. Their names are those
of ``tallies``. ``State.to_json`` and ``from_json`` make the same state again, exactly. A new epoch (any change of
weights) needs nothing but its number in the next block. Looking more often, or at every request, changes no promise.

``harmful`` has the chance ``alpha`` over the whole rollout, all streams and epochs together, when the candidate is as
good as the baseline; ``healthy`` the chance ``beta`` when a required stream's harm is ``max_harm`` or more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log
from typing import Any, NamedTuple

from gateway.control.judging import overall, stream_judgement, timed
from gateway.control.statistics.findings import Finding
from gateway.control.statistics.one_sample import OneSample
from gateway.control.statistics.sample_ratio import log_ratio_e
from gateway.control.statistics.scores import Scores
from gateway.control.statistics.two_samples import TwoSamples, least_block
from gateway.control.tallies import AGAIN, CANDIDATE, FRESH, slow_bin_of, totals_of
from gateway.control.verdicts import HARMFUL, Block, Judgement, Policy, RatioJudgement, StreamPolicy

__all__ = ["FRESH_PART", "State", "StreamState", "begin", "judge"]

FRESH_PART = 0.95
"""Of each stream's budget belongs to keys never seen before in the rollout, the rest to the later epochs."""

Totals = Mapping[str, Mapping[str, Mapping[str, int]]]
_Findings = list[tuple[Finding, float]]

Track = TwoSamples | OneSample | Scores
TRACKS: Mapping[str, type[TwoSamples | OneSample | Scores]] = {
    "error": TwoSamples,
    "slow": TwoSamples,
    "label": TwoSamples,
    "disagreement": OneSample,
    "score": Scores,
}


@dataclass(frozen=True, slots=True)
class StreamState:
    """``fresh``: over keys never seen before in the rollout; ``epoch``: over all keys of this epoch, from the second
    epoch on. ``harmful`` stays: no later good time takes a verdict of harm back."""

    fresh: Track
    epoch: Track | None = None
    harmful: bool = False

    def to_json(self) -> dict[str, Any]:
        epoch = None if self.epoch is None else self.epoch.to_json()
        return {"fresh": self.fresh.to_json(), "epoch": epoch, "harmful": self.harmful}

    @classmethod
    def from_json(cls, stream: str, body: Mapping[str, Any]) -> StreamState:
        kind = TRACKS[stream]
        epoch = None if body["epoch"] is None else kind.from_json(body["epoch"])
        return cls(kind.from_json(body["fresh"]), epoch, body["harmful"])


@dataclass(frozen=True, slots=True)
class State:
    """What is carried from look to look. ``epochs``: how many there have been. ``seen`` and ``shares``: the counters,
    and the candidate's shares, of the last look. ``ratio_past``: what the ended epochs say of the split (the logarithm
    of an e-value); ``ratio_now``: what this one has said; ``broken`` stays. ``frozen``: counts were lost in this epoch,
    so it gives no more evidence; ``unsure``: so were claims, and no key is known to be fresh any more
    (``without_claims``)."""

    streams: Mapping[str, StreamState]
    epoch: int | None = None
    epochs: int = 0
    ratio_past: float = 0.0
    ratio_now: float = 0.0
    broken: bool = False
    seen: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    frozen: bool = False
    unsure: bool = False

    def without_claims(self) -> State:
        """For a driver that knows that claims are gone (its process began anew without others): keys that come now
        may have counted before, so they are evidence of their own epoch only. Give it before the new epoch's block."""
        return replace(self, frozen=True, unsure=True)

    def to_json(self) -> dict[str, Any]:
        return {
            "streams": {name: stream.to_json() for name, stream in self.streams.items()},
            "epoch": self.epoch,
            "epochs": self.epochs,
            "ratio_past": self.ratio_past,
            "ratio_now": self.ratio_now,
            "broken": self.broken,
            "seen": dict(self.seen),
            "shares": dict(self.shares),
            "frozen": self.frozen,
            "unsure": self.unsure,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> State:
        streams = {name: StreamState.from_json(name, stream) for name, stream in body["streams"].items()}
        return cls(**{**body, "streams": streams})


def begin(policy: Policy) -> State:
    """Nothing known: what an earlier rollout found is no part of it."""
    return State({stream.stream: StreamState(_new_track(stream)) for stream in policy.streams})


def _new_track(policy: StreamPolicy) -> Track:
    kind = TRACKS[policy.stream]
    return TwoSamples.begin(policy.max_harm) if kind is TwoSamples else kind()  # type: ignore[call-arg]


def judge(state: State, block: Block, policy: Policy) -> tuple[State, Judgement]:
    """Takes in what is new in the counters. The same block twice changes nothing. Counters that went back (a store that
    was emptied) freeze the epoch: what they then say cannot be told from what was counted. Raises ValueError for an
    epoch that has ended."""
    state = _in_epoch(state, block, policy)
    if any(block.counters.get(name, 0) < count for name, count in state.seen.items()):
        state = state.without_claims()
    totals = _Totals(totals_of(block.counters, (FRESH,)), totals_of(block.counters, (FRESH, AGAIN)))
    streams, judged = dict(state.streams), []
    for stream in policy.streams:
        known = _advanced(streams[stream.stream], stream, state, block, totals)
        findings = _findings(known, stream, policy.beta, _parts(state.epochs))
        found = stream_judgement(findings, stream, policy, harmful=known.harmful)
        streams[stream.stream] = replace(known, harmful=found.verdict == HARMFUL)
        judged.append(timed(found, block))
    ratio, now = _ratio(state, block, policy, totals)
    seen = state.seen if state.frozen else {name: count for name, count in block.counters.items() if count}
    shares = dict(block.shares)
    state = replace(state, streams=streams, broken=ratio.broken, ratio_now=now, seen=seen, shares=shares)
    return state, overall(block, tuple(judged), ratio)


def _parts(epochs: int) -> tuple[float, float]:
    """Of the budget: for fresh keys, and for all keys of the k-th epoch, 1/((k-1)k) of the rest.

    A key that returns in a later epoch has mostly the arm that it had, and fails as it did: what it says is no new
    evidence, so nothing is multiplied over it. Each epoch by itself is a test of its own, valid beside the others by
    its own part of alpha (their average would not be: they do not look at one history).
    """
    later = (1.0 - FRESH_PART) / (epochs * (epochs - 1)) if epochs > 1 else 0.0
    return FRESH_PART, later


def _in_epoch(state: State, block: Block, policy: Policy) -> State:
    if state.epoch == block.epoch:
        return state
    if state.epoch is not None and block.epoch < state.epoch:
        raise ValueError(f"a block of epoch {block.epoch}, after one of epoch {state.epoch}; that epoch has ended")
    first = state.epoch is None
    streams = {}
    for stream in policy.streams:
        known = state.streams[stream.stream]
        fresh = known.fresh if first else _renewed(known.fresh, stream, state)
        streams[stream.stream] = StreamState(fresh, None if first else _new_track(stream), known.harmful)
    return replace(
        state,
        streams=streams,
        epoch=block.epoch,
        epochs=state.epochs + 1,
        ratio_past=state.ratio_past + state.ratio_now,
        ratio_now=0.0,
        seen={},
        frozen=False,
    )


def _renewed(track: Track, policy: StreamPolicy, state: State) -> Track:
    if not isinstance(track, TwoSamples):
        return track.new_epoch()
    usable = not state.frozen and not state.unsure
    totals = totals_of(state.seen, (FRESH,)).get(policy.stream, {}) if usable else {}
    return track.new_epoch(totals, state.shares, binned=policy.stream == "slow", slow_bin=_slow_bin(policy))


def _slow_bin(policy: StreamPolicy) -> int | None:
    return None if policy.limit_ms is None else slow_bin_of(policy.limit_ms / 1000.0)


class _Totals(NamedTuple):
    """Of keys never seen in the rollout, and of all keys of the epoch: by stream, by stratum, by ``arm/outcome``."""

    fresh: Totals
    every: Totals


def _advanced(known: StreamState, policy: StreamPolicy, state: State, block: Block, totals: _Totals) -> StreamState:
    if state.frozen:
        return known
    fresh = known.fresh if state.unsure else _taken(known.fresh, policy, block, totals.fresh)
    epoch = None if known.epoch is None else _taken(known.epoch, policy, block, totals.every)
    return replace(known, fresh=fresh, epoch=epoch)


def _taken(track: Track, policy: StreamPolicy, block: Block, totals: Totals) -> Track:
    counted = totals.get(policy.stream, {})
    if isinstance(track, OneSample):
        return track.advanced(counted, policy.max_harm)
    least = max((least_block(share) for share in block.shares.values()), default=least_block(0.5))
    if isinstance(track, Scores):
        return track.advanced(counted, least)
    return track.advanced(counted, least, binned=policy.stream == "slow", slow_bin=_slow_bin(policy))


def _found(track: Track, policy: StreamPolicy, level: float) -> Finding:
    if isinstance(track, Scores):
        return track.finding(policy.max_harm, level, policy.low, policy.high)
    return track.finding(policy.max_harm, level)


def _findings(known: StreamState, policy: StreamPolicy, beta: float, parts: tuple[float, float]) -> _Findings:
    findings = [(_found(known.fresh, policy, beta * parts[0]), log(parts[0]))]
    if known.epoch is not None:
        findings.append((_found(known.epoch, policy, beta * parts[1]), log(parts[1])))
    return findings


def _ratio(state: State, block: Block, policy: Policy, totals: _Totals) -> tuple[RatioJudgement, float]:
    """Also of the k-th epoch by itself, keys that came again with it."""
    fresh_part, epoch_part = _parts(state.epochs)
    now, expected, units, candidate = _ratio_in(block, totals.fresh)
    if state.frozen or state.unsure:
        now = state.ratio_now
    log_e = state.ratio_past + now + log(fresh_part)
    if epoch_part:
        alone, expected, units, candidate = _ratio_in(block, totals.every)
        log_e = max(log_e, alone + log(epoch_part))
    threshold = log(1.0 / policy.ratio_alpha)
    broken = state.broken or log_e >= threshold
    if not units:
        return RatioJudgement(broken, log_e, threshold), now
    shares = expected / units, candidate / units
    says = f"the split gives the candidate {shares[0]:.2%} of the keys, and {shares[1]:.2%} of {units} outcomes are its"
    reason = f"{says}: it is broken, or outcomes of one arm go missing" if broken else says
    return RatioJudgement(broken, log_e, threshold, *shares, reason), now


def _ratio_in(block: Block, totals: Totals) -> tuple[float, float, int, int]:
    log_e, expected, units, candidates = 0.0, 0.0, 0, 0
    for split, outcomes in totals.get("error", {}).items():
        share = block.shares.get(split)
        if share is None:
            continue
        candidate = sum(count for name, count in outcomes.items() if name.startswith(f"{CANDIDATE}/"))
        every = sum(outcomes.values())
        log_e += log_ratio_e(candidate, every - candidate, share)
        expected, units, candidates = expected + share * every, units + every, candidates + candidate
    return log_e, expected, units, candidates
