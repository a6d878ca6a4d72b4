"""The values around evidence: what a rollout is judged by, what was counted, and what that proves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "HARMFUL",
    "HEALTHY",
    "NOT_ENOUGH",
    "STREAMS",
    "Block",
    "Counts",
    "Judgement",
    "Policy",
    "RatioJudgement",
    "StreamJudgement",
    "StreamPolicy",
]

HEALTHY, HARMFUL, NOT_ENOUGH = "healthy", "harmful", "not-enough"

STREAMS = ("error", "slow", "disagreement", "label", "score")
"""All but ``score`` are yes/no outcomes; ``score`` is a number."""


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """One stream that is on. ``max_harm``: by how much, as a difference of shares, the candidate may be worse before
    it can no longer be healthy; of ``disagreement`` the share of differing answers itself; of ``score`` a difference
    of means in its own unit.

    ``weight``: its part of ``alpha``. ``required``: nothing is healthy without it. ``limit_ms``: what is slow; None:
    twice the baseline's 99th percentile. ``low`` and ``high``: the worst and the best of a score,
    past which it is cut; the worst may be the greater.
    """

    stream: str
    max_harm: float
    weight: float = 1.0
    required: bool = True
    limit_ms: float | None = None
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """``alpha``: the chance to find harm where there is none, over the whole rollout. ``beta``: the chance to call a
    candidate healthy whose harm in a required stream is ``max_harm``. ``ratio_alpha``: the chance to call a sound split
    broken. A stream that cannot have data (no labels, no shadow) is left out, and costs the others nothing."""

    streams: tuple[StreamPolicy, ...] = (StreamPolicy("error", 0.02), StreamPolicy("slow", 0.05, required=False))
    alpha: float = 0.05
    beta: float = 0.05
    ratio_alpha: float = 0.001

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Policy:
        streams = tuple(StreamPolicy(**stream) for stream in body["streams"])
        return cls(**{**body, "streams": streams})


@dataclass(frozen=True, slots=True)
class Block:
    """The epoch's counters so far. ``shares``: per split (``split``, or ``rule:<name>``) the candidate's part of the
    key space that it shares with the baseline. ``elapsed_s``: since the epoch began."""

    epoch: int
    shares: Mapping[str, float]
    counters: Mapping[str, int]
    elapsed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Counts:
    """``bad`` of ``units``. For a score ``bad`` is 0, and ``mean`` that of what has been compared."""

    units: int = 0
    bad: int = 0
    mean: float | None = None


@dataclass(frozen=True, slots=True)
class StreamJudgement:
    """``log_harm`` and ``log_health`` are natural logarithms of e-values; a verdict is given at its ``threshold``.

    ``difference`` (candidate less baseline; the share itself for disagreement) with its anytime-valid interval.
    ``needed``: candidate units until a verdict, at the present pace of evidence; None: unknown yet, or none in sight.
    """

    stream: str
    verdict: str
    required: bool
    reason: str
    candidate: Counts
    baseline: Counts
    log_harm: float
    harm_threshold: float
    log_health: float
    health_threshold: float
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    needed: int | None = None
    expected_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RatioJudgement:
    """Whether the split gives the arms the keys that it says: ``expected`` and ``seen`` are the candidate's share."""

    broken: bool
    log_e: float
    threshold: float
    expected: float | None = None
    seen: float | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judgement:
    """``verdict`` over all streams: ``harmful`` if any is; ``healthy`` if all required ones are and the split is sound.

    ``epoch_candidate`` and ``epoch_baseline``: units of evidence in this epoch alone (for a step's ``min_requests``);
    ``epoch_pairs``: shadow pairs in it. ``needed`` and ``expected_s``: the slowest required stream's.
    """

    verdict: str
    reason: str
    epoch: int
    epoch_candidate: int
    epoch_baseline: int
    epoch_pairs: int
    streams: tuple[StreamJudgement, ...]
    ratio: RatioJudgement
    needed: int | None = None
    expected_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
