"""What groups of settings are made of: the group itself, numbers with a bound, and where a secret is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Group", "Positive", "Seconds", "SecretSource"]

Positive = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Group(BaseModel):
    """An unknown key is an error, and nothing is changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretSource(Group):
    """Where a secret is: in the environment variable ``env``, or in a ``file`` (less its last line break)."""

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> SecretSource:
        if (self.env is None) == (self.file is None):
            raise ValueError("a secret is either in an environment variable (env) or in a file (file)")
        return self
