"""What observers are told: one record for each thing that happened, plain values all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.messages import Arrays, Decision, VersionRef

__all__ = [
    "SHADOW_OUTCOMES",
    "BatchRecord",
    "Content",
    "CountsRecord",
    "FlagMiss",
    "FlagSource",
    "RequestRecord",
    "RollbackRecord",
    "ShadowRecord",
]


class Content(NamedTuple):
    """What a request asked and what it was answered, for routes that want it kept (None: nothing, or not wanted).

    The arrays are the request's own, and are not written to again. ``context`` is the client's, plain JSON. A digest
    (``gateway.recording.contents.digest_of``) is there, and its arrays are not, where they were too large to be handed
    on as they are (but for empty ones, which say what was there and is redacted); where arrays are, whoever wants their
    digest makes it.
    """

    inputs: Arrays | None = None
    outputs: Arrays | None = None
    context: Mapping[str, Any] | None = None
    input_digest: str | None = None
    output_digest: str | None = None


class RequestRecord(NamedTuple):
    """One finished request, whatever became of it.

    ``decision`` is None when none was taken (bad envelope, unknown route). ``chosen_failure``
    is the class name of the VersionFailed that the *chosen* version met, also when a
    fallback then answered; ``answered_by`` is the version whose outputs were returned.
    ``code`` is the HTTP status. Times are seconds; ``started_wall`` since the epoch; ``queue_s`` of
    a request that missed its deadline is all the time that the version had for it, which a client that was slow to
    send may have left very short. ``sampled``:
    the trace is kept, so a span is worth making. ``batch`` is the serial number of the batch that answered, over all
    versions and web workers of a gateway (0: the answer was kept, or there was none), and ``batch_rows`` the rows
    computed together in ``compute_s``.

    ``key`` is the routing key as it was given: only the recorder sees it, and keeps a keyed hash. ``decode_s``,
    ``decide_s`` and ``encode_s`` are what the request's other stages took; 0 where one was not measured.
    ``trace_state`` is the caller's ``tracestate``, passed on.
    """

    route: str
    request_id: str
    decision_id: str
    decision: Decision | None
    answered_by: VersionRef | None
    code: int
    chosen_failure: str | None
    error: str | None
    rows: int
    started_wall: float
    duration_s: float
    queue_s: float = 0.0
    compute_s: float = 0.0
    slow: bool = False
    protocol: str = "predict"
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    client_id: str | None = None
    sampled: bool = False
    batch: int = 0
    batch_rows: int = 0
    key: str | None = None
    decode_s: float = 0.0
    decide_s: float = 0.0
    encode_s: float = 0.0
    content: Content | None = None
    trace_state: str = ""


class BatchRecord(NamedTuple):
    """One batch that ran. ``waits_s`` holds each item's time in the queue; ``failure`` the error's class name.

    ``batch`` is its serial number, as its requests have it. It was back at ``ended_wall`` (seconds since the epoch),
    ``took_s`` after it was handed over, for the reason ``release``: ``idle`` (its engine was), ``full`` or ``ending``
    (behind one that ran, and was about to end), ``again`` (one like it had failed). ``limit``: rows it might have had,
    0 where rows have no limit; ``ran_rows``: rows computed together, more than its own where the child ran batches of
    several gateways as one, and ``padded_rows`` of zeros that its device added. ``engine`` is the version's placement,
    ``instance`` counts its engines from 0.
    """

    version: VersionRef
    rows: int
    items: int
    compute_s: float
    waits_s: tuple[float, ...]
    failure: str | None = None
    batch: int = 0
    ended_wall: float = 0.0
    took_s: float = 0.0
    release: str = ""
    limit: int = 0
    ran_rows: int = 0
    padded_rows: int = 0
    engine: str = ""
    instance: int = 0
    device: str = ""


class CountsRecord(NamedTuple):
    """What a version was given and answered lately, in the frozen bins of a profile: sums that add up in any order.

    ``profile`` is the digest of the profile that was counted with: the version's own, or another that it is compared
    with. ``seen`` rows ran since the record before, ``counted`` of them were counted: fewer when it was busy.
    ``counts`` holds 64-bit little-endian integers in the plan's order (``runtimes.counting``), nothing if no row was
    counted. A process that dies takes what it had counted since its last record along, of a second at most.
    """

    version: VersionRef
    profile: str
    seen: int
    counted: int
    counts: bytes


SHADOW_OUTCOMES = ("agrees", "differs", "failed", "dropped")


class ShadowRecord(NamedTuple):
    """What became of a request's copy for a shadow: one of ``SHADOW_OUTCOMES``.

    ``answered`` is the version whose answer the client got, also when it was a fallback; ``epoch`` and ``bucket`` are
    the decision's. ``failed``: the shadow gave no answer to compare, by its own fault; ``dropped``: there was no
    capacity to spare for it, or its version is not here. ``difference`` is the largest one found between two numbers
    of the outputs (infinite where one of them is none); 0 where none was found, or none was comparable.

    ``trace`` is the ``traceparent`` of the request. Of a copy that was answered: ``batch``, ``queue_s`` and
    ``compute_s`` as a request has them, and ``ended_wall``, seconds since the epoch. ``decision_id`` is the request's.
    """

    route: str
    epoch: int
    bucket: int | None
    answered: VersionRef
    shadow: VersionRef
    outcome: str
    rows: int
    difference: float = 0.0
    trace: str | None = None
    batch: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0
    ended_wall: float = 0.0
    decision_id: str | None = None


class FlagSource(NamedTuple):
    """How a process's provider of flags stands. ``state`` is ``absent``, ``starting``, ``ready``, ``stale``, ``error``
    or ``fenced`` (too slow, so not asked); ``age_s`` of its data, None when there is none to go by."""

    source: str
    provider: str
    state: str
    age_s: float | None
    reason: str = ""


class FlagMiss(NamedTuple):
    """A rule that names a flag could not do what the flag says. ``cause``: ``not-ready``, ``stale``, ``error``,
    ``not-found``, ``type``, ``context``, ``no-version``, ``not-named``, ``quarantined`` or ``not-loaded``."""

    route: str
    rule: str
    flag: str
    cause: str
    model: str
    version: int | None = None


@dataclass(frozen=True, slots=True)
class RollbackRecord:
    """A route went back. ``trigger`` is ``operator`` or the guard's rule; ``durable`` whether the store has it."""

    route: str
    trigger: str
    target: int
    quarantined: tuple[int, ...]
    reason: str
    durable: bool
