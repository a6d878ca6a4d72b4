"""The part of a route's spec that says how later labels are compared with its answers."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.routing.truth import CLASSIFICATION, GRADE, REGRESSION, Slice, Truth

__all__ = ["SliceSpec", "TruthSpec"]

MAX_SLICES = 8
MAX_CLASSES = 200
MAX_EDGES = 20
LONGEST_S = 90 * 24 * 3600.0

_SLICE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
_PLACE = r"^(context|input):.+$"

Name = Annotated[str, Field(min_length=1, max_length=256)]
ClassName = Annotated[str, Field(min_length=1, max_length=200)] | int | bool
Seconds = Annotated[float, Field(gt=0, le=LONGEST_S, allow_inf_nan=False)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SliceSpec(_Part):
    """``of`` is ``context:<field>`` or ``input:<name>``; a bare text of that form is a slice of that name."""

    name: Annotated[str, Field(pattern=_SLICE_NAME)]
    of: Annotated[str, Field(pattern=_PLACE, max_length=200)]
    edges: Annotated[list[Number], Field(max_length=MAX_EDGES)] = Field(default_factory=list)

    @field_validator("edges")
    @classmethod
    def _rising(cls, edges: list[float]) -> list[float]:
        falls = [(before, after) for before, after in pairwise(edges) if after <= before]
        if falls:
            raise ValueError(f"each edge above the one before ({falls[0][1]:g} follows {falls[0][0]:g})")
        return edges

    def compiled(self) -> Slice:
        kind, _, field = self.of.partition(":")
        return Slice(self.name, field, kind == "input", tuple(self.edges))


class TruthSpec(_Part):
    """See ``gateway.routing.truth.Truth``, which this becomes."""

    task: Literal["classification", "regression", "grade"]
    output: Name | None = None
    score: Name | None = None
    classes: Annotated[list[ClassName], Field(max_length=MAX_CLASSES)] = Field(default_factory=list)
    positive: ClassName | None = None
    threshold: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    slices: Annotated[list[SliceSpec], Field(max_length=MAX_SLICES)] = Field(default_factory=list)
    horizon_s: Seconds = 7 * 86400.0
    late_after_s: Seconds = 86400.0
    wrong_above: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None

    @field_validator("slices", mode="before")
    @classmethod
    def _short_slices(cls, slices: Any) -> Any:
        if not isinstance(slices, list):
            return slices
        return [{"name": one.partition(":")[2], "of": one} if isinstance(one, str) else one for one in slices]

    @field_validator("slices")
    @classmethod
    def _own_names(cls, slices: list[SliceSpec]) -> list[SliceSpec]:
        names = [one.name for one in slices]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two slices are named {min(twice)!r}; give each a name of its own")
        return slices

    @model_validator(mode="after")
    def _sound(self) -> TruthSpec:
        if self.task != CLASSIFICATION:
            named = [field for field in ("score", "classes", "positive") if getattr(self, field) not in (None, [])]
            if named:
                raise ValueError(f"{named[0]}: it belongs to classification, and the task is {self.task}; leave it out")
        if self.task != REGRESSION and self.wrong_above is not None:
            raise ValueError(f"wrong_above: it belongs to regression, and the task is {self.task}; leave it out")
        if self.task == GRADE and self.output is not None:
            raise ValueError("output: a grade is compared with no output; leave it out")
        if self.task != GRADE and self.output is None:
            raise ValueError("output: name the output that holds the answer")
        if self.late_after_s > self.horizon_s:
            raise ValueError(
                f"late_after_s: at most horizon_s ({self.horizon_s:g}); a label after the horizon does not count at all"
            )
        names = [class_name(one) for one in self.classes]
        if self.positive is not None and names and class_name(self.positive) not in names:
            raise ValueError(f"positive: one of 'classes' ({', '.join(names)[:200]})")
        if len(set(names)) < len(names):
            raise ValueError("classes: each once")
        return self

    def compiled(self) -> Truth:
        return Truth(
            task=self.task,
            output=self.output or "",
            score=self.score,
            classes=tuple(class_name(one) for one in self.classes),
            positive=None if self.positive is None else class_name(self.positive),
            threshold=self.threshold,
            slices=tuple(one.compiled() for one in self.slices),
            horizon_s=self.horizon_s,
            late_after_s=self.late_after_s,
            wrong_above=self.wrong_above,
        )


def class_name(value: str | int) -> str:
    """As answers and labels are compared: 1, true and "1" are one class."""
    return str(int(value)) if isinstance(value, int) else value
