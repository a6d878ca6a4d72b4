"""Settings of targets: the places that versions are promoted to, by which path, and what each asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal

from pydantic import Field

from gateway.settings_groups import Group

__all__ = ["TargetSettings", "sound_targets"]

MAX_TARGETS = 32
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")


class TargetSettings(Group):
    """A version comes here from one of ``from`` (none named: as it was registered). Whoever promotes or demotes needs
    ``role``. ``gates``: those that its model declares (``declared``), that it must declare some (``required``), or
    ``none``. It must have been in the target before for ``stood_s`` seconds. ``by_another``: whoever promoted it there
    may not promote it on. ``reason``: whether one must be given.

    ``rollout``: with a promotion, the routes of the target begin to move weight to the version, by this plan (an empty
    one is the careful plan); None: they are left to the operator.
    """

    origins: Annotated[tuple[str, ...], Field(alias="from")] = ()
    role: Literal["operator", "admin"] = "operator"
    gates: Literal["declared", "required", "none"] = "declared"
    stood_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    by_another: bool = False
    reason: Literal["optional", "required"] = "optional"
    rollout: dict[str, Any] | None = None


def sound_targets(targets: Mapping[str, TargetSettings]) -> Mapping[str, TargetSettings]:
    """Raises ValueError for a name that is none, a target that is not there, and a path that never begins."""
    if len(targets) > MAX_TARGETS:
        raise ValueError(f"{len(targets)} targets are named; expected at most {MAX_TARGETS}")
    for name, target in targets.items():
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} is no name of a target; expected 1 to 64 letters, digits, dots, dashes or underscores, the "
                "first a letter"
            )
        strange = [origin for origin in target.origins if origin not in targets]
        if strange:
            raise ValueError(f"{name}.from names {strange[0]!r}, which is no target; there are {', '.join(targets)}")
        if target.rollout is not None and "candidate" in target.rollout:
            raise ValueError(f"{name}.rollout names a candidate; it is the version that is promoted, leave it out")
    try:
        TopologicalSorter({name: target.origins for name, target in targets.items()}).prepare()
    except CycleError as error:
        raise ValueError(f"no version can ever enter {' → '.join(error.args[1])}: the path goes in a circle") from None
    return targets
