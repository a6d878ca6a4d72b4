"""The documents of desired state: a route's *spec*, which operators write, and its *status*, the system's own.

A spec comes from outside, so pydantic checks it strictly, and every fault names its field, what
came and what was expected. Stored documents carry a schema number and migrate forward.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from gateway.control.findings import problem_of, sentence_of
from gateway.control.follow_spec import FollowSpec
from gateway.control.follow_state import FollowState
from gateway.control.key_space import Assignments, Weights, migrated
from gateway.control.rollout_state import Proof, RolloutState
from gateway.control.store import Body, DocumentKey
from gateway.control.truth_spec import TruthSpec
from gateway.errors import FieldProblem, InvalidInput, RegistryError, StoreUnavailable
from gateway.registry.migration import Migration, migrate
from gateway.routing.rules import compile_condition

__all__ = [
    "MAX_TOTAL_WEIGHT",
    "SCHEMA",
    "ArmSpec",
    "CacheSpec",
    "DecisionsSpec",
    "FlagRuleSpec",
    "LimitsSpec",
    "Quarantine",
    "ResidentDocument",
    "RouteDocument",
    "RouteSpec",
    "RouteStatus",
    "RuleSpec",
    "ShadowSpec",
    "check_route_name",
    "route_key",
]

SCHEMA = 2
MIGRATIONS: Mapping[int, Migration] = {1: migrated}
"""Of routes: from schema number n to a pure function that makes a body of n + 1."""

RESIDENT_SCHEMA = 1
RESIDENT_MIGRATIONS: Mapping[int, Migration] = {}

MAX_TOTAL_WEIGHT = 2**31 - 1
MAX_ARMS = 64
MAX_RULES = 256
MAX_SHADOWS = 8
MAX_FLAG_KEY = 256
MAX_TIMEOUT_MS = 3_600_000
MAX_RATE_PER_S = 1_000_000.0
MIN_CACHE_BYTES, MAX_CACHE_BYTES = 64 * 1024, 2**40
MAX_REDACTED = 256
MAX_TENSOR_NAME = 256
MAX_TTL_S = 365 * 24 * 3600.0

_ROUTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_NAME_EXPECTED = "1 to 128 letters, digits, dots, dashes or underscores, the first a letter or digit"

_KEY = r"^(header:[!#$%&'*+.^_`|~0-9A-Za-z-]+|context:.+)$"
_PATTERNS: Mapping[str, str] = {_KEY: "header:<name> or context:<field>"}

VersionNumber = Annotated[int, Field(ge=1, le=2**53)]
Weight = Annotated[int, Field(ge=0, le=MAX_TOTAL_WEIGHT)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)


class ArmSpec(_Part):
    version: VersionNumber
    weight: Weight


class RuleSpec(_Part):
    """``condition`` is JSON Logic, written ``if``; ``use`` a version, or another split."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    condition: Annotated[Any, Field(alias="if")]
    use: VersionNumber | list[ArmSpec]

    @model_validator(mode="after")
    def _sound(self) -> RuleSpec:
        compile_condition(self.condition, name=self.name)
        return self

    @field_validator("use")
    @classmethod
    def _sound_use(cls, use: int | list[ArmSpec]) -> int | list[ArmSpec]:
        if isinstance(use, list):
            _check_arms(use)
        return use

    def versions(self) -> tuple[int, ...]:
        return (self.use,) if isinstance(self.use, int) else tuple(arm.version for arm in self.use)

    @property
    def naming(self) -> str:
        """The field that names the versions."""
        return "use"


class FlagRuleSpec(_Part):
    """A flag of the configured OpenFeature provider says the version: its value is one (``3``, ``"3"`` or
    ``"digits/3"``), or ``variants`` says which one each variant stands for; a variant that is not there is no match.

    ``versions`` are those that the flag may name, which are kept loaded; without them and without ``variants``, all
    that the route names otherwise.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    flag: Annotated[str, Field(min_length=1, max_length=MAX_FLAG_KEY)]
    listed: Annotated[
        Annotated[list[VersionNumber], Field(min_length=1, max_length=MAX_ARMS)] | None, Field(alias="versions")
    ] = None
    variants: Annotated[dict[str, VersionNumber], Field(min_length=1, max_length=MAX_ARMS)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> FlagRuleSpec:
        if self.listed is not None and self.variants is not None:
            strange = sorted(set(self.variants.values()) - set(self.listed))
            if strange:
                raise ValueError(
                    f"variants name version {strange[0]}, which is not among 'versions'; add it there, or leave "
                    "'versions' out"
                )
        return self

    use: ClassVar[None] = None
    """It has no version of its own."""

    def versions(self) -> tuple[int, ...]:
        return tuple(sorted({*(self.listed or ()), *(self.variants or {}).values()}))

    @property
    def naming(self) -> str:
        return "variants" if self.listed is None else "versions"


def _kind_of_rule(rule: object) -> str:
    named = isinstance(rule, FlagRuleSpec) or (isinstance(rule, Mapping) and "flag" in rule)
    return "flag-rule" if named else "condition-rule"


AnyRuleSpec = Annotated[
    Annotated[RuleSpec, Tag("condition-rule")] | Annotated[FlagRuleSpec, Tag("flag-rule")],
    Discriminator(_kind_of_rule),
]


class LimitsSpec(_Part):
    timeout_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] | None = None
    slow_ms: Annotated[int, Field(ge=1, le=MAX_TIMEOUT_MS)] | None = None
    queue_rows: Annotated[int, Field(ge=1, le=MAX_TOTAL_WEIGHT)] | None = None
    rate_per_s: Annotated[float, Field(gt=0, le=MAX_RATE_PER_S, allow_inf_nan=False)] | None = None
    burst: Annotated[int, Field(ge=1, le=MAX_TOTAL_WEIGHT)] | None = None

    @model_validator(mode="after")
    def _sound(self) -> LimitsSpec:
        if self.burst is not None and self.rate_per_s is None:
            raise ValueError(f"burst is {self.burst} without a rate_per_s; name the rate, or leave the burst out")
        return self


class CacheSpec(_Part):
    """The route keeps answers and gives them again for equal inputs to the same version: at most ``max_bytes`` of
    them in each web worker, each for ``ttl_s`` seconds if that is named."""

    max_bytes: Annotated[int, Field(ge=MIN_CACHE_BYTES, le=MAX_CACHE_BYTES)] = 64 * 1024 * 1024
    ttl_s: Annotated[float, Field(gt=0, le=MAX_TTL_S, allow_inf_nan=False)] | None = None


class DecisionsSpec(_Part):
    """What the decision log keeps of the route's answers: whether there is a record, whether it has digests of what was
    asked and answered, or the tensors themselves, which of them it leaves out, and whether a log that is full means
    answers without a record, or none."""

    record: bool = True
    content: Literal["none", "digest", "payload"] = "digest"
    redact: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_TENSOR_NAME)]], Field(max_length=MAX_REDACTED)
    ] = Field(default_factory=list)
    on_full: Literal["drop", "refuse"] = "drop"

    @model_validator(mode="after")
    def _sound(self) -> DecisionsSpec:
        if not self.record and self.on_full == "refuse":
            raise ValueError("on_full is 'refuse' where nothing is recorded; record the route, or leave on_full out")
        return self


class ShadowSpec(_Part):
    """``share`` of the requests that another version answered are copied to ``version``, as far as there is capacity
    to spare."""

    version: VersionNumber
    share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class RouteSpec(_Part):
    """What an operator asks of a route. The order of ``split`` is the order of the arms. Flag data that is older than
    ``stale_after_s`` is not gone by: the known good answers. With a ``target``, versions that do not stand there answer
    nobody."""

    model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
    split: Annotated[list[ArmSpec], Field(min_length=1, max_length=MAX_ARMS)]
    key: Annotated[str, Field(pattern=_KEY, max_length=200)] | None = None
    pin: Literal["allowed", "denied"] | None = None
    rules: Annotated[list[AnyRuleSpec], Field(max_length=MAX_RULES)] = Field(default_factory=list)
    stale_after_s: Annotated[float, Field(gt=0, le=MAX_TTL_S, allow_inf_nan=False)] | None = None
    fallback: VersionNumber | None = None
    known_good: VersionNumber | None = None
    limits: LimitsSpec = Field(default_factory=LimitsSpec)
    cache: CacheSpec | None = None
    access: Literal["public", "token"] = "public"
    shadow: Annotated[list[ShadowSpec], Field(max_length=MAX_SHADOWS)] = Field(default_factory=list)
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    decisions: DecisionsSpec = Field(default_factory=DecisionsSpec)
    truth: TruthSpec | None = None
    follow: FollowSpec | None = None
    target: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]{0,63}$")] | None = None

    @field_validator("split")
    @classmethod
    def _sound_split(cls, split: list[ArmSpec]) -> list[ArmSpec]:
        _check_arms(split)
        return split

    @field_validator("rules")
    @classmethod
    def _sound_rules(cls, rules: list[AnyRuleSpec]) -> list[AnyRuleSpec]:
        names = [rule.name for rule in rules]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two rules are named {min(twice)!r}; give each a name of its own")
        return rules

    @field_validator("shadow")
    @classmethod
    def _sound_shadow(cls, shadow: list[ShadowSpec]) -> list[ShadowSpec]:
        numbers = [one.version for one in shadow]
        twice = {number for number in numbers if numbers.count(number) > 1}
        if twice:
            raise ValueError(f"it names version {min(twice)} twice; give each version one share")
        return shadow

    @classmethod
    def parse(cls, body: object) -> RouteSpec:
        """Raises InvalidInput with one problem for each field that is wrong."""
        if not isinstance(body, Mapping):
            problem = FieldProblem("spec", "an object with model and split", type(body).__name__)
            raise InvalidInput("a route's spec must be an object; model and split are required", problem)
        try:
            return cls.model_validate(dict(body))
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems = [problem_of(one, _PATTERNS) for one in found]
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise InvalidInput(
                f"the route's spec does not fit: {sentence_of(found[0], _PATTERNS)}{more}", *problems
            ) from None

    def to_json(self) -> dict[str, Any]:
        """What is asked, without what is only a default; ``parse`` gives the same spec again."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def versions(self) -> frozenset[int]:
        """Every version the spec names, also at weight 0, and as a shadow."""
        return self.answering() | {shadow.version for shadow in self.shadow}

    def answering(self) -> frozenset[int]:
        """Those that may answer a client: named as more than a shadow."""
        named = {arm.version for arm in self.split} | {number for rule in self.rules for number in rule.versions()}
        return frozenset(named | {number for number in (self.fallback, self.known_good) if number is not None})

    def arms(self) -> Iterator[tuple[str, ArmSpec]]:
        """Every arm of every split, with the place where it stands."""
        for index, arm in enumerate(self.split):
            yield f"split[{index}]", arm
        for place, rule in enumerate(self.rules):
            for index, arm in enumerate(rule.use if isinstance(rule.use, list) else ()):
                yield f"rules[{place}].use[{index}]", arm


def _check_arms(arms: list[ArmSpec]) -> None:
    numbers = [arm.version for arm in arms]
    twice = {number for number in numbers if numbers.count(number) > 1}
    if not arms or len(arms) > MAX_ARMS:
        raise ValueError(f"it has {len(arms)} arms; expected 1 to {MAX_ARMS}")
    if twice:
        raise ValueError(f"it names version {min(twice)} twice; give each version one arm")
    total = sum(arm.weight for arm in arms)
    if not 1 <= total <= MAX_TOTAL_WEIGHT:
        raise ValueError(f"its weights add up to {total}; expected 1 to {MAX_TOTAL_WEIGHT}")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Why a version was taken off a route, when (seconds since the epoch) and by whom (a token or ``guard:<rule>``)."""

    reason: str
    at: float
    by: str

    def to_json(self) -> dict[str, Any]:
        return {"reason": self.reason, "at": self.at, "by": self.by}


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """What the system holds of a route: ``split`` in force, ``assignment`` of keys to arms, and ``epoch``, which counts
    changes of who gets what.

    ``rollout`` is the one that runs, ``last_rollout`` the one that ended last. ``proved``: versions that earned their
    place as known good, newest last. ``follow``: how far it is with the name that the spec follows."""

    split: tuple[ArmSpec, ...]
    known_good: int
    quarantined: Mapping[int, Quarantine] = field(default_factory=dict)
    epoch: int = 1
    rollout: RolloutState | None = None
    last_rollout: RolloutState | None = None
    proved: tuple[Proof, ...] = ()
    assignment: Assignments = field(default_factory=Assignments)
    follow: FollowState | None = None

    def to_json(self) -> dict[str, Any]:
        held = {str(number): why.to_json() for number, why in sorted(self.quarantined.items())}
        # Left out where nothing is followed, so that documents written before are what they were.
        follow = {} if self.follow is None else {"follow": self.follow.to_json()}
        return {
            "split": [arm.model_dump() for arm in self.split],
            "known_good": self.known_good,
            "quarantined": held,
            "epoch": self.epoch,
            "rollout": None if self.rollout is None else self.rollout.to_json(),
            "last_rollout": None if self.last_rollout is None else self.last_rollout.to_json(),
            "proved": [proof.to_json() for proof in self.proved],
            "assignment": self.assignment.to_json(),
            **follow,
        }

    @classmethod
    def from_json(cls, body: Body) -> RouteStatus:
        return cls(
            split=tuple(ArmSpec.model_validate(arm) for arm in body["split"]),
            known_good=int(body["known_good"]),
            quarantined={int(number): Quarantine(**why) for number, why in body["quarantined"].items()},
            epoch=int(body["epoch"]),
            rollout=_rollout(body.get("rollout")),
            last_rollout=_rollout(body.get("last_rollout")),
            proved=tuple(Proof.from_json(proof) for proof in body.get("proved", ())),
            assignment=Assignments.from_json(body["assignment"]),
            follow=None if body.get("follow") is None else FollowState.from_json(body["follow"]),
        )


def _rollout(body: Body | None) -> RolloutState | None:
    return None if body is None else RolloutState.from_json(body)


@dataclass(frozen=True, slots=True)
class RouteDocument:
    spec: RouteSpec
    status: RouteStatus

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "spec": self.spec.to_json(), "status": self.status.to_json()}

    @classmethod
    def from_json(cls, body: Body, *, migrations: Mapping[int, Migration] = MIGRATIONS) -> RouteDocument:
        """Raises StoreUnavailable when the document is newer than this program, or damaged."""
        try:
            body = migrate(body, migrations, SCHEMA, what="the route document")
            return cls(RouteSpec.parse(body["spec"]), RouteStatus.from_json(body["status"]))
        except (AttributeError, KeyError, TypeError, ValueError, InvalidInput, RegistryError) as error:
            raise StoreUnavailable(f"a stored route cannot be read: {error}") from error

    def named(self) -> frozenset[int]:
        """Every version that the spec names, is in force, is the known good, or is being rolled out."""
        candidate = set() if self.status.rollout is None else {self.status.rollout.candidate}
        return self.spec.versions() | {arm.version for arm in self.status.split} | {self.status.known_good} | candidate

    def weights(self) -> tuple[Weights, Mapping[str, Weights]]:
        """Of the split in force, and by name of each rule with arms; without the arms in quarantine."""
        held = self.status.quarantined
        ruled = {
            rule.name: {arm.version: arm.weight for arm in rule.use if arm.version not in held}
            for rule in self.spec.rules
            if isinstance(rule.use, list)
        }
        return {arm.version: arm.weight for arm in self.status.split}, ruled

    def versions(self) -> frozenset[int]:
        """All that the route knows of: those it names, and those in quarantine."""
        return self.named() | set(self.status.quarantined)

    def answering(self) -> frozenset[int]:
        """Of ``versions``, those that may answer a client: a shadow never does."""
        held = set(self.status.quarantined)
        return self.spec.answering() | {arm.version for arm in self.status.split} | {self.status.known_good} | held

    def may_answer(self) -> frozenset[int]:
        """Of ``answering``, those that are not quarantined; and the candidate of a rollout, which soon will."""
        rollout = self.status.rollout
        candidate = frozenset() if rollout is None else frozenset({rollout.candidate})
        return (self.answering() | candidate) - set(self.status.quarantined)

    def routable(self) -> frozenset[int]:
        """The versions that may be asked for an answer: these are kept loaded."""
        return self.versions() - set(self.status.quarantined)


@dataclass(frozen=True, slots=True)
class ResidentDocument:
    """A version that an operator wants loaded although no route names it."""

    model: str
    version: int

    @property
    def key(self) -> DocumentKey:
        return DocumentKey("resident", f"{self.model}/{self.version}")

    def to_json(self) -> dict[str, Any]:
        return {"schema": RESIDENT_SCHEMA, "model": self.model, "version": self.version}

    @classmethod
    def from_json(cls, body: Body, *, migrations: Mapping[int, Migration] = RESIDENT_MIGRATIONS) -> ResidentDocument:
        try:
            body = migrate(body, migrations, RESIDENT_SCHEMA, what="the resident document")
            return cls(str(body["model"]), int(body["version"]))
        except (KeyError, TypeError, ValueError, RegistryError) as error:
            raise StoreUnavailable(f"a stored resident cannot be read: {error}") from error


def check_route_name(name: str) -> str:
    if not _ROUTE_NAME.fullmatch(name):
        problem = FieldProblem("route", _NAME_EXPECTED, repr(name)[:140])
        raise InvalidInput(f"route name {name!r:.140}: expected {_NAME_EXPECTED}", problem)
    return name


def route_key(name: str) -> DocumentKey:
    return DocumentKey("route", name)
