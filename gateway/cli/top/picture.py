"""What ``turnout top`` shows, as values: the gateway, its routes, its versions, what happened last."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Arm", "Event", "GatewayLine", "Picture", "RouteRow", "VersionRow"]


@dataclass(frozen=True, slots=True)
class GatewayLine:
    """``state``: ``ready``, ``not ready`` or ``draining``. ``degraded`` is what ``/readyz`` lists. ``span_s``: the
    time that rates are over; 0 at the first look. ``dropped``: records that the decision log has lost, ever.
    What is None was not told: by the gateway, or to this token."""

    address: str
    state: str
    degraded: tuple[str, ...]
    revision: int | None
    store_up: bool | None
    replicas: int | None
    dropped: int | None
    inflight: int
    requests_s: float | None
    started_at: float | None
    span_s: float


@dataclass(frozen=True, slots=True)
class Arm:
    """A version in a route's split. ``percent`` of the requests that no rule and no pin decides."""

    version: int
    percent: float
    state: str
    known_good: bool
    quarantined: bool


@dataclass(frozen=True, slots=True)
class RouteRow:
    """Rates over the picture's span, None while there is none; times of requests in seconds, None without any.
    ``errors``: the share of answers with a status from 500 on. ``refused_s``: turned away at the door, by reason.
    ``notes``: how its rollout stands and why it waits, and what is degraded."""

    route: str
    model: str
    ready: bool
    requests_s: float | None
    errors: float | None
    p50_s: float | None
    p99_s: float | None
    inflight: int
    fallbacks_s: float | None
    refused_s: float | None
    refused_for: tuple[str, ...]
    split: tuple[Arm, ...]
    rollout: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class VersionRow:
    """``requests_s`` and ``errors``: of the requests that it was chosen for, those made good by a fallback among
    the errors. ``batch_rows``: the mean of the batches of the
    span. ``drift``: alarms that stand; None where it is not watched."""

    model: str
    version: int
    state: str
    reason: str
    pid: int | None
    device: str
    memory_bytes: int | None
    queue_rows: int
    batch_rows: float | None
    requests_s: float | None
    errors: float | None
    drift: int | None
    restarts: int


@dataclass(frozen=True, slots=True)
class Event:
    """A record of the audit log. ``at`` in seconds since the epoch."""

    at: float
    actor: str
    action: str
    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment. ``at`` in seconds since the epoch. Routes and versions: what is in trouble first. ``withheld``: what
    cannot be shown, and why."""

    at: float
    gateway: GatewayLine
    routes: tuple[RouteRow, ...]
    versions: tuple[VersionRow, ...]
    events: tuple[Event, ...]
    withheld: tuple[str, ...]
