"""What the web layer needs of the rest, handed in whole by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from gateway.clock import Clock
from gateway.codec.limits import CodecLimits
from gateway.control.tokens import Principal
from gateway.dataplane import Dataplane
from gateway.events.observer import Observer
from gateway.web.large_bodies import LargeBodies
from gateway.web.standing import Whereabouts, unknown
from gateway.web.statistics import ModelStatistics

__all__ = ["Drift", "IndexEntry", "Labels", "Repository", "Services", "Verify", "WebLimits"]


@dataclass(frozen=True, slots=True)
class WebLimits:
    """``body_bytes`` after inflation, too. ``receive_s`` for the whole body. ``watch_after_s``: work that takes longer
    is dropped when its client leaves; shorter work is done before a watch would pay.
    ``compress_from_bytes``: answers below it go out as they are. ``decode_elsewhere_bytes``: larger bodies of JSON are
    decoded in a process of their own. ``under_way_bytes``: what other bodies may hold together while they come."""

    body_bytes: int = 64 * 1024 * 1024
    under_way_bytes: int = 256 * 1024 * 1024
    receive_s: float = 30.0
    codec: CodecLimits = field(default_factory=CodecLimits)
    watch_after_s: float = 0.02
    compress_from_bytes: int = 1024
    decode_elsewhere_bytes: int = 256 * 1024


Verify = Callable[[str], Principal | Awaitable[Principal | None] | None]
"""A bearer token to whom it stands for; None, or Unauthenticated, when it is wrong. May raise StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One registered version, as the repository index shows it when it is not resident."""

    name: str
    version: int
    state: str
    reason: str


class Repository(Protocol):
    """The model repository extension. ``reference`` is a model or one version of it: ``digits``, ``digits/5``,
    ``digits@champion``. ``actor`` goes into the audit.

    ``load`` returns when the version is warm; raises UnknownModel, UnknownVersion, LoadError.
    ``unload`` raises UnknownModel, UnknownVersion, and Conflict while a route uses the version.
    """

    async def index(self) -> Sequence[IndexEntry]: ...

    async def load(self, reference: str, *, actor: str) -> None: ...

    async def unload(self, reference: str, *, actor: str) -> None: ...


class Labels(Protocol):
    """``join`` answers what became of each label (its outcome; of one that does not fit, what was expected and what
    came) once all are durable. ``routes``: those whose answers the ``sender`` may label; None: all. Raises Conflict
    where no route wants labels, Overloaded, StoreUnavailable, StorageFull: sending them again is safe.

    ``report``: how right a route's versions are, over so many days. Raises NotFound."""

    async def join(
        self, labels: Sequence[tuple[str, Any]], routes: frozenset[str] | None, sender: str
    ) -> Sequence[tuple[str, str, str]]: ...

    async def report(self, route: str, days: int) -> Mapping[str, Any]: ...


class Drift(Protocol):
    async def report(self, name: str) -> Mapping[str, Any]:
        """How far a route's versions are from their references. Raises UnknownRoute, StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """``statistics`` must also be among the observers that ``observer`` tells. ``trace_ratio``: the share of
    traces that are sampled when the caller has not decided. ``whereabouts`` tells of versions that are not in force.
    Without ``large``, bodies of any size are decoded here. ``degraded``: what else is not as it should be, in
    sentences. Without ``labels`` none are taken; without ``drift`` it is not watched."""

    dataplane: Dataplane
    observer: Observer
    clock: Clock
    verify: Verify
    repository: Repository
    statistics: ModelStatistics
    limits: WebLimits = field(default_factory=WebLimits)
    trace_ratio: float = 0.0
    whereabouts: Whereabouts = unknown
    large: LargeBodies | None = None
    degraded: Callable[[], Sequence[str]] = tuple
    labels: Labels | None = None
    drift: Drift | None = None
