"""What was asked of a reproduction, and what one check of it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MAX_TOLD", "Asked", "Check", "inside"]

MAX_TOLD = 20
"""Differences that one check names; what is more is counted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """``here``: where the command was given, whose repository and files are looked at first. ``data``: places that the
    operator names for inputs. ``interpreter``: what would train."""

    folder: Path
    here: Path
    interpreter: str
    repository: str | None = None
    data: Mapping[str, Path] | None = None


@dataclass(frozen=True, slots=True)
class Check:
    what: str
    state: str
    detail: str = ""


def inside(root: Path, path: Path) -> bool:
    """A name of a manifest must not lead out of its folder."""
    return path.resolve().is_relative_to(root.resolve())
