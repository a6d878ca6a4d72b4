"""Settings of environments: where packages come from, how long a build may take, how much disk all may use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from gateway.settings_groups import Group, Positive, Seconds

__all__ = ["EnvironmentSettings"]

Series = Annotated[str, Field(pattern=r"^[0-9]+\.[0-9]+$")]


class EnvironmentSettings(Group):
    """Packages of a version's lock file are fetched from ``indexes`` (the first in place of pip's own; none: as pip is
    configured on this machine) and from folders of wheels. ``offline``: from those folders alone. ``own``: a version
    whose packages the gateway's own interpreter has at those very versions runs in that, unless the lock file has
    hashes. ``source``: packages without a wheel may be built, which runs their authors' code in the build.
    ``pythons``: interpreters by version, besides those on the PATH. ``max_bytes``: of all environments together."""

    indexes: tuple[str, ...] = ()
    wheels: tuple[Path, ...] = ()
    offline: bool = False
    own: bool = True
    source: bool = False
    pythons: dict[Series, Path] = Field(default_factory=dict)
    build_timeout_s: Seconds = 1800.0
    max_bytes: Positive = 20 * 1024**3
