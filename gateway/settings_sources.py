"""Settings of other registries: how each is reached, with which interpreter, and what is written back to it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings_groups import Group, Seconds

__all__ = ["InterpreterSettings", "MlflowSettings", "WandbSettings"]

_ADDRESS = Field(pattern=r"^[a-z][a-z0-9+.-]*:[^@]*$|^[^:@]+$")
"""No password stands in an address, which is shown: a vendor's client finds it in variables of its own."""


class InterpreterSettings(Group):
    """The Python that has a system's packages, by system; null: the gateway's own. Their pins often clash with others',
    so that they live better in a virtual environment of their own."""

    mlflow: str | None = None
    dvc: str | None = None
    wandb: str | None = None
    store: str | None = None


class MlflowSettings(Group):
    """``tracking_uri`` of the MLflow server; ``registry_uri`` where models are registered elsewhere than runs. With
    ``write_back``, an alias that moves here is moved in MLflow too, under the name that ``aliases`` gives it there, and
    what becomes of a version on routes is written to it as tags; ``routes`` names, for a route, the alias there that is
    to be at its known good."""

    tracking_uri: Annotated[str, _ADDRESS] | None = None
    registry_uri: Annotated[str, _ADDRESS] | None = None
    write_back: bool = False
    aliases: dict[str, str] = Field(default_factory=dict)
    routes: dict[str, str] = Field(default_factory=dict)
    retry_s: Seconds = 30.0


class WandbSettings(Group):
    """``base_url`` of a W&B server of one's own, or of a dedicated one; null: as the SDK finds it."""

    base_url: Annotated[str, _ADDRESS] | None = None
