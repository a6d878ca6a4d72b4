"""Device names: ``auto``, ``cpu``, ``cuda`` (the first one) and ``cuda:N``."""

from __future__ import annotations

import re

__all__ = ["CPU", "check_device", "cuda_index"]

CPU = "cpu"

_NAME = re.compile(r"auto|cpu|cuda(?::\d{1,3})?")


def check_device(name: str) -> str:
    """ValueError says what was expected."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"device {name!r} is unknown; expected auto, cpu, cuda or cuda:N")
    return name


def cuda_index(name: str) -> int | None:
    """The number of a CUDA device; None for ``cpu`` and ``auto``. ValueError for a name that is none."""
    kind, _, number = check_device(name).partition(":")
    return int(number or 0) if kind == "cuda" else None
