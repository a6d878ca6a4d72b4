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
    """Where a secret is: in the environment variable ``env``, in a ``file``, or in what a ``command`` prints (a list of
    program and arguments; no shell takes part). A last line break is not part of it.

    A file is read again when it has changed, a command run again every ``refresh_s``: a secret is rotated without a
    restart. A command has ``timeout_s``.
    """

    env: str | None = None
    file: Path | None = None
    command: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    timeout_s: Annotated[float, Field(gt=0, le=120, allow_inf_nan=False)] = 10.0
    refresh_s: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 300.0

    @model_validator(mode="after")
    def _one(self) -> SecretSource:
        if [self.env is None, self.file is None, self.command is None].count(False) != 1:
            raise ValueError(
                "a secret is in an environment variable (env), in a file (file), or printed by a command (command): "
                "name one of the three"
            )
        return self

    @property
    def kind(self) -> str:
        """``env``, ``file`` or ``command``."""
        return "command" if self.command is not None else "file" if self.file is not None else "env"

    def __str__(self) -> str:
        """Where it is, for people: of a command the program alone, since arguments may say more."""
        if self.command is not None:
            return f"the command {self.command[0]}"
        return f"the environment variable {self.env}" if self.file is None else str(self.file)
