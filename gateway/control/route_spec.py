"""A route's *spec*, which operators write: its form, checked strictly by pydantic.

Every fault names its field, what came and what was expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from gateway.control.truth_spec import TruthSpec
from gateway.errors import FieldProblem, InvalidInput
from gateway.routing.rules import compile_condition

__all__ = [
    "MAX_TOTAL_WEIGHT",
    "ArmSpec",
    "CacheSpec",
    "DecisionsSpec",
    "FlagRuleSpec",
    "LimitsSpec",
    "RouteSpec",
    "RuleSpec",
    "ShadowSpec",
]

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
