"""The part of a route's spec that says which name in another system it follows, and what becomes of what is found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gateway.control.rollout_plan import PlanSpec
from gateway.errors import InvalidInput
from gateway.registry.sources import foreign_place

__all__ = ["FollowSpec"]

SYSTEMS = ("mlflow", "dvc", "wandb")
"""Those with names that move."""

LONGEST_S = 7 * 24 * 3600.0


class FollowSpec(BaseModel):
    """``source`` is asked every ``every_s`` seconds what it points at. A version that is new there is registered and
    passes the model's gates; then it is offered, or ``then: start`` begins a rollout by ``plan`` (which names no
    candidate: that is the version found). Written as a bare text, it is the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    source: Annotated[str, Field(min_length=1, max_length=1000)]
    every_s: Annotated[float, Field(ge=1, le=LONGEST_S, allow_inf_nan=False)] = 60.0
    then: Literal["offer", "start"] = "offer"
    plan: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"source": value} if isinstance(value, str) else value

    @field_validator("source")
    @classmethod
    def _foreign(cls, source: str) -> str:
        place = foreign_place(source)
        if place is None or place.client not in SYSTEMS:
            raise ValueError(f"{source[:200]!r} is no name in another system; expected mlflow:…, dvc:… or wandb:…")
        return source

    @field_validator("plan")
    @classmethod
    def _sound_plan(cls, plan: dict[str, Any]) -> dict[str, Any]:
        if "candidate" in plan:
            raise ValueError("the plan names a candidate; leave it out: the candidate is the version that is found")
        try:
            PlanSpec.parse({**plan, "candidate": 1})
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return plan

    def plan_for(self, candidate: int) -> Mapping[str, Any]:
        return {**self.plan, "candidate": candidate}
