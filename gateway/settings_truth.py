"""Settings of the truth: how much of the answers that wait for labels is kept, and for how long what they say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.settings_groups import Group, Positive

__all__ = ["TruthSettings"]


class TruthSettings(Group):
    """Of routes whose spec has a ``truth``. ``answers`` wait for their label or have one, some 200 bytes each; ``held``
    labels wait for an answer that nobody knows yet; sums are kept for ``days``."""

    answers: Positive = 2_000_000
    held: Positive = 100_000
    days: Annotated[int, Field(ge=1, le=400)] = 60
