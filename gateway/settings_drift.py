"""Settings of drift: how often it is looked for, how many false alarms are too many, and what matters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings_groups import Group, Seconds

__all__ = ["DriftSettings", "ModelDrift"]

Effect = Annotated[float, Field(ge=0.01, le=3.0, allow_inf_nan=False)]


class ModelDrift(Group):
    """What matters in one model: in all of its features, and in some of them by name."""

    least_effect: Effect | None = None
    features: dict[str, Effect] = Field(default_factory=dict)


class DriftSettings(Group):
    """Versions with a reference profile are looked at every ``look_s``. At most one false alarm is expected for a model
    in ``budget_days``. Where processors are short, or a version has no pause, counting takes ``busy_share`` of the time
    for each profile, and rows for which that is too little are sampled; 1 counts them all. A drift of less than
    ``least_effect`` (standard deviations, or the like for what has none) is shown and raises no alarm; ``models`` says
    otherwise for some. Metrics show the ``features_shown`` furthest features of a version."""

    enabled: bool = True
    look_s: Seconds = 60.0
    busy_share: Annotated[float, Field(ge=0.001, le=1, allow_inf_nan=False)] = 0.02
    budget_days: Annotated[float, Field(ge=1, le=3650, allow_inf_nan=False)] = 90.0
    least_effect: Effect = 0.1
    models: dict[str, ModelDrift] = Field(default_factory=dict)
    features_shown: Annotated[int, Field(ge=0, le=100)] = 5
