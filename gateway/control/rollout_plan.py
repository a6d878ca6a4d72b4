"""The plan of a rollout, as an operator writes it: steps of weight, what counts as harm, what happens then.

Every field has a default: the *careful* plan. ``preset: blue-green`` is a plan of one step. A plan is checked whole
before anything begins, and is never changed while it runs: another plan is another rollout.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gateway.control.findings import problem_of, sentence_of
from gateway.errors import FieldProblem, InvalidInput

__all__ = [
    "PRESETS",
    "STREAMS",
    "BakeSpec",
    "HarmSpec",
    "HookSpec",
    "HooksSpec",
    "PlanSpec",
    "ScoreSpec",
    "ShadowStepSpec",
    "StepSpec",
    "percent_of",
]

STREAMS = ("error", "slow", "disagreement", "label", "score")
"""What a candidate is judged by: each a yes/no outcome, but the last a number."""

MAX_STEPS = 50
MAX_HOOKS = 8
MAX_REQUESTS = 10**9
LONGEST_S = 90 * 24 * 3600.0
LARGEST_SCORE = 1e100
FINEST_PERCENT = 10_000
"""Percents may have four decimals: one request in a million."""

_NAMED = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
_PATTERNS: Mapping[str, str] = {
    _NAMED: "the name of a secret of the settings, in letters, digits, dashes or underscores"
}

Percent = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Margin = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]
Requests = Annotated[int, Field(ge=0, le=MAX_REQUESTS)]
Stream = Literal["error", "slow", "disagreement", "label", "score"]
Number = Annotated[float, Field(ge=-LARGEST_SCORE, le=LARGEST_SCORE, allow_inf_nan=False)]


def percent_of(value: float) -> Fraction:
    """The percent as written: 0.1 is a tenth, not the nearest binary number. ValueError past four decimals."""
    exact = Fraction(str(value))
    if (exact * FINEST_PERCENT).denominator != 1:
        raise ValueError(f"{value} has more than four decimals; the finest weight is 0.0001 percent")
    return exact


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StepSpec(_Part):
    """``weight`` percent of the split go to the candidate, for ``min_s`` seconds and ``min_requests`` of its units of
    evidence at least; with ``gate: manual`` until an operator promotes."""

    weight: Percent
    min_requests: Requests = 50
    min_s: Seconds = 30.0
    gate: Literal["manual"] | None = None

    @field_validator("weight")
    @classmethod
    def _fine_enough(cls, weight: float) -> float:
        percent_of(weight)
        return weight


class ShadowStepSpec(_Part):
    """Before any request is answered by the candidate, a ``share`` of them is copied to it and the answers compared,
    until there are ``min_pairs``. The copies go on in later steps, both ways. ``first`` False: only in later steps."""

    share: Share = 0.1
    min_pairs: Requests = 100
    min_s: Seconds = 10.0
    first: bool = True


class HarmSpec(_Part):
    """By how much (as a difference of shares) the candidate may be worse than the known good, per outcome. ``score``:
    as a difference of means, in the score's own unit (None: a twentieth of its range)."""

    error: Margin = 0.02
    slow: Margin = 0.05
    label: Margin = 0.05
    score: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class ScoreSpec(_Part):
    """The number that answers are judged by when their truth comes: ``error``, how far off a number was; ``brier``, the
    square of how far off a class's score was; ``grade``, what was given to the answer. Past ``worst`` or ``best`` it
    counts as that, so one wild value moves little."""

    of: Literal["error", "brier", "grade"]
    worst: Number
    best: Number

    @model_validator(mode="after")
    def _sound(self) -> ScoreSpec:
        if self.worst == self.best:
            raise ValueError(f"best: another number than worst ({self.worst:g}); what lies between them is compared")
        if self.of != "grade" and not 0.0 <= self.best < self.worst:
            raise ValueError(
                f"best: from 0 to less than worst ({self.worst:g}), got {self.best:g}: less {self.of} is better"
            )
        if self.of == "brier" and self.worst > 1.0:
            raise ValueError(f"worst: at most 1, got {self.worst:g}: no score is further off than that")
        return self

    @property
    def span(self) -> float:
        return abs(self.best - self.worst)


class BakeSpec(_Part):
    """After the last step the candidate has all but ``holdback`` percent, which the known good goes on to answer, for
    at least ``min_s`` and ``min_requests``. Then it is the known good."""

    holdback: Annotated[float, Field(gt=0, le=50, allow_inf_nan=False)] = 2.0
    min_s: Seconds = 300.0
    min_requests: Requests = 200

    @field_validator("holdback")
    @classmethod
    def _fine_enough(cls, holdback: float) -> float:
        percent_of(holdback)
        return holdback


class HookSpec(_Part):
    """``secret`` names a secret of the settings (``webhooks.secrets``) that signs what is sent; the plan never holds
    one."""

    url: Annotated[str, Field(max_length=2000)]
    secret: Annotated[str, Field(pattern=_NAMED)] | None = None

    @field_validator("url")
    @classmethod
    def _sound_url(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            reachable = parts.scheme in ("http", "https") and bool(parts.hostname)
            secret_in_it = parts.password is not None
        except ValueError:
            raise ValueError(f"{url!r:.100} is no address; write it as https://host/path") from None
        if not reachable:
            raise ValueError(f"{url!r:.100} is no address of HTTP; write it as https://host/path")
        if secret_in_it:
            raise ValueError("it holds a password, which every viewer could read; sign with a 'secret' of the settings")
        return url


Hooks = Annotated[list[HookSpec], Field(max_length=MAX_HOOKS)]


class HooksSpec(_Part):
    """``confirm`` must answer 2xx before a step goes on; ``before`` and ``after`` are told of each step,
    ``rolled_back`` of a rollback."""

    confirm: Hooks = Field(default_factory=list)
    before: Hooks = Field(default_factory=list)
    after: Hooks = Field(default_factory=list)
    rolled_back: Hooks = Field(default_factory=list)


def _careful() -> list[StepSpec]:
    return [StepSpec(weight=weight) for weight in (5.0, 25.0, 50.0)]


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "careful": {},
    "blue-green": {"steps": [{"weight": 100}]},
}
"""What a preset says where the plan itself does not."""


class PlanSpec(_Part):
    """``alpha``: the chance, over the whole rollout and all streams together, to find harm where there is none.
    ``needs``: the streams that must have excluded harm before the weight grows; None: errors, and disagreement where
    answers are compared. ``score``: judged where it is there. ``silence_s``: so long without a unit of evidence is
    silence. ``on_drift``: whether an alarm of drift about the candidate holds its steps."""

    candidate: Annotated[int, Field(ge=1, le=2**53)]
    steps: Annotated[list[StepSpec], Field(min_length=1, max_length=MAX_STEPS)] = Field(default_factory=_careful)
    shadow: ShadowStepSpec | None = Field(default_factory=ShadowStepSpec)
    alpha: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.05
    max_harm: HarmSpec = Field(default_factory=HarmSpec)
    max_disagreement: Margin | None = 0.1
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    needs: Annotated[list[Stream], Field(max_length=len(STREAMS))] | None = None
    score: ScoreSpec | None = None
    on_harm: Literal["rollback", "pause"] = "rollback"
    on_silence: Literal["wait", "pause"] = "wait"
    silence_s: Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)] = 300.0
    on_drift: Literal["go-on", "hold"] = "go-on"
    bake: BakeSpec | None = Field(default_factory=BakeSpec)
    webhooks: HooksSpec = Field(default_factory=HooksSpec)

    @field_validator("steps", mode="before")
    @classmethod
    def _short_steps(cls, steps: Any) -> Any:
        """A bare number is a step of that weight."""
        if not isinstance(steps, list):
            return steps
        return [{"weight": step} if type(step) in (int, float) else step for step in steps]

    @model_validator(mode="after")
    def _sound(self) -> PlanSpec:
        weights = [step.weight for step in self.steps]
        falls = [(before, after) for before, after in pairwise(weights) if after <= before]
        if falls:
            raise ValueError(
                f"steps: each with more weight than the one before ({falls[0][1]:g} follows {falls[0][0]:g})"
            )
        if "disagreement" in (self.needs or ()) and not self.compares:
            raise ValueError("needs: disagreement is asked for without a shadow and a max_disagreement to find it by")
        self._check_score()
        return self

    def _check_score(self) -> None:
        harm = self.max_harm.score
        if self.score is None and "score" in (self.needs or ()):
            raise ValueError("needs: score is asked for without a 'score' that says of what, and from worst to best")
        if self.score is None and harm is not None:
            raise ValueError("max_harm: score has a margin, and the plan has no 'score' that is judged; leave it out")
        if self.score is not None and harm is not None and harm >= self.score.span:
            raise ValueError(
                f"max_harm: score is at most the range of the score, less than {self.score.span:g}, got {harm:g}"
            )

    @property
    def compares(self) -> bool:
        """Whether answers of candidate and known good are paired and judged."""
        return self.shadow is not None and self.max_disagreement is not None

    @property
    def max_score_harm(self) -> float:
        """In the score's own unit; 0 where none is judged."""
        return self.max_harm.score or (0.0 if self.score is None else self.score.span / 20.0)

    @property
    def required(self) -> tuple[str, ...]:
        """The streams without whose word no step goes on."""
        if self.needs is not None:
            return tuple(stream for stream in STREAMS if stream in self.needs)
        return ("error", "disagreement") if self.compares else ("error",)

    @property
    def climb(self) -> tuple[StepSpec, ...]:
        """The steps before the bake: a last step of 100 is the bake itself, where there is one."""
        if self.bake is not None and self.steps[-1].weight >= 100.0 - self.bake.holdback:
            return tuple(self.steps[:-1])
        return tuple(self.steps)

    @classmethod
    def parse(cls, body: object) -> PlanSpec:
        """``preset`` fills what the body leaves out. Raises InvalidInput with one problem for each field."""
        if not isinstance(body, Mapping):
            problem = FieldProblem("plan", "an object with a candidate", type(body).__name__)
            raise InvalidInput("a rollout's plan must be an object; candidate is required", problem)
        preset = body.get("preset", "careful")
        if preset not in PRESETS:
            problem = FieldProblem("preset", " or ".join(PRESETS), repr(preset)[:60])
            raise InvalidInput(f"preset: expected {' or '.join(PRESETS)}, got {preset!r:.60}", problem)
        asked = {**PRESETS[preset], **{str(name): value for name, value in body.items() if name != "preset"}}
        try:
            return cls.model_validate(asked)
        except ValidationError as error:
            found = error.errors(include_url=False)
            problems = [problem_of(one, _PATTERNS) for one in found]
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise InvalidInput(f"the plan does not fit: {sentence_of(found[0], _PATTERNS)}{more}", *problems) from None

    def to_json(self) -> dict[str, Any]:
        """All of it, so that a report tells what was in force also when defaults change; but what is new and not used,
        which the release before does not know."""
        body = self.model_dump(mode="json")
        if self.score is None:
            del body["score"], body["max_harm"]["score"]
        if self.on_drift == "go-on":
            del body["on_drift"]
        return body
