"""The routing table: every route in force, as one immutable value. Built by control, read by ``decide``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.messages import VersionRef
from gateway.routing.assignment import Assignment, first, moved
from gateway.routing.truth import Truth

__all__ = [
    "Arm",
    "CachePolicy",
    "Choice",
    "Choose",
    "Condition",
    "Limits",
    "Places",
    "Recording",
    "Route",
    "RoutingTable",
    "Rule",
    "Shadow",
    "Trial",
]

Condition = Callable[[Mapping[str, Any]], bool]
"""A compiled rule: context to yes or no. Never raises; an error inside it is no match."""


class Choice(NamedTuple):
    """What a flag said. ``version`` None: none that may answer here, so the rule does not match. ``stale``: the flag
    data is too old to go by, or there is none. ``flag`` as in ``Decision``."""

    version: int | None
    age_s: float | None = None
    flag: tuple[str, str | None, str] | None = None
    stale: bool = False


Choose = Callable[[str, Mapping[str, Any]], Choice]
"""A compiled flag rule: targeting key and context to a choice. Never raises, and asks nobody over a network."""


@dataclass(frozen=True, slots=True)
class Arm:
    version: int
    weight: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A feature flag of the route: when ``matches`` the context, ``use`` one version, or another split.

    ``assignment`` says which keys each arm of that split has. With ``choose``, a flag of a provider says which version;
    ``may_choose`` are those that it names in advance. ``condition`` is what ``matches`` was made of (JSON Logic), or
    the flag's name: for the record, nothing is decided by it.
    """

    name: str
    matches: Condition
    use: int | tuple[Arm, ...]
    choose: Choose | None = None
    may_choose: frozenset[int] = frozenset()
    assignment: Assignment | None = None
    condition: Any = None

    def versions(self) -> frozenset[int]:
        if self.choose is not None:
            return self.may_choose
        return frozenset((self.use,) if isinstance(self.use, int) else (arm.version for arm in self.use))


@dataclass(frozen=True, slots=True)
class Limits:
    """``rate_per_s`` requests of one client, of which ``burst`` may come at once; None: as many as come."""

    timeout_ms: int = 10_000
    slow_ms: int | None = None
    queue_rows: int | None = None
    rate_per_s: float | None = None
    burst: int = 1


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How much a route's response cache may hold, and for how many seconds an answer is good (None: for ever)."""

    max_bytes: int
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True)
class Shadow:
    """``version`` gets a copy of a ``share`` (0 to 1) of the requests that ``of`` answered (None: any other)."""

    version: int
    share: float
    of: int | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """What the decision log keeps of a route's answers. ``content`` is ``none``, ``digest`` or ``payload``; of
    payload and digests, tensors named in ``redact`` are left out. ``refuse``: no answer that cannot be recorded."""

    content: str = "digest"
    redact: frozenset[str] = frozenset()
    refuse: bool = False


class Places(NamedTuple):
    """An assignment as requests read it: the interval that ends first after a place is its version's."""

    ends: tuple[int, ...]
    versions: tuple[VersionRef, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """A rollout that runs: ``candidate`` is tried against ``baseline``, in the ``epoch`` of the document; what is
    counted of it goes under ``scope``, which no other rollout has."""

    scope: str
    candidate: int
    baseline: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Route:
    """``key`` is ``header:<name>`` or ``context:<field>``; ``pin`` is ``allowed``, ``denied`` or None
    (denied for /predict, allowed under /v2). ``pinnable`` are the versions the route names.
    ``protected``: calls need a token that covers this route. ``shadows`` stand in order of their versions;
    ``tolerance`` is how far two numbers of their outputs may be apart, absolutely and relatively; None: nobody said.

    ``assignment`` says which keys each arm has (None: as at first), ``epoch`` counts its changes. ``places`` and
    ``rule_places`` (None for a rule without arms) are made of the assignments; keys that these still give to a
    quarantined arm go to the other arms, and no other key moves. ``recording`` None: nothing of it goes to the decision
    log. ``truth``: how later labels are compared with its answers; None: not at all. ``keeps_content``: one of the two
    wants to see tensors; ``refuses``: no answer that cannot be recorded."""

    name: str
    model: str
    arms: tuple[Arm, ...]
    key: str | None = None
    pin: str | None = None
    rules: tuple[Rule, ...] = ()
    fallback: int | None = None
    known_good: int | None = None
    quarantined: frozenset[int] = frozenset()
    limits: Limits = field(default_factory=Limits)
    cache: CachePolicy | None = None
    protected: bool = False
    pinnable: frozenset[int] = frozenset()
    trial: Trial | None = None
    shadows: tuple[Shadow, ...] = ()
    tolerance: float | None = None
    assignment: Assignment | None = None
    epoch: int = 0
    recording: Recording | None = None
    truth: Truth | None = None
    places: Places = field(init=False)
    rule_places: tuple[Places | None, ...] = field(init=False)
    keeps_content: bool = field(init=False)
    refuses: bool = field(init=False)

    def __post_init__(self) -> None:
        ruled = [None if isinstance(one.use, int) else self._places(one.use, one.assignment) for one in self.rules]
        object.__setattr__(self, "places", self._places(self.arms, self.assignment))
        object.__setattr__(self, "rule_places", tuple(ruled))
        recording = self.recording
        wanted = recording is not None and recording.content != "none"
        object.__setattr__(self, "keeps_content", wanted or self.truth is not None)
        object.__setattr__(self, "refuses", recording is not None and recording.refuse)

    def _places(self, arms: tuple[Arm, ...], assignment: Assignment | None) -> Places:
        weights: dict[int, int] = {}
        for arm in arms:
            weights[arm.version] = weights.get(arm.version, 0) + arm.weight
        may = {version: weight for version, weight in weights.items() if version not in self.quarantined}
        settled = moved(first(weights) if assignment is None else assignment, may)
        return Places(settled.ends, tuple(map(self.ref, settled.versions)))

    def ref(self, version: int) -> VersionRef:
        return VersionRef(self.model, version)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    routes: Mapping[str, Route]
    default_route: str | None
    revision: int
