"""What a name of an artifact says: ``ENTITY/PROJECT/NAME[:ALIAS]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PART = re.compile(r"[^/:\x00-\x1f]{1,128}")
_ALIAS = re.compile(r"[^/:\x00-\x1f]{1,128}")
_VERSION = re.compile(r"v(?:0|[1-9][0-9]*)")


@dataclass(frozen=True)
class Place:
    """``alias`` may be a version, ``v3``, which never moves."""

    entity: str
    project: str
    name: str
    alias: str

    @property
    def text(self) -> str:
        return f"{self.entity}/{self.project}/{self.name}:{self.alias}"

    @property
    def is_version(self) -> bool:
        return _VERSION.fullmatch(self.alias) is not None


def parse(text: str) -> Place:
    """ValueError says what of the name is not understood."""
    path, _, alias = text.partition(":")
    parts = path.split("/")
    alias = alias or "latest"
    if len(parts) != 3 or not all(_PART.fullmatch(part) for part in parts) or not _ALIAS.fullmatch(alias):
        raise ValueError(f"{text!r} names no artifact; expected wandb:ENTITY/PROJECT/NAME:ALIAS")
    entity, project, name = parts
    return Place(entity, project, name, alias)
