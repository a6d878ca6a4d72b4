"""Whether this very interpreter has what a lock file asks for: then nothing need be built for it.

A hash cannot be checked of what was installed long ago, so a lock file with hashes always gets an environment.
"""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gateway.registry.environments.contents import differences
from gateway.registry.environments.lock import Lock
from gateway.registry.environments.mismatch import Mismatch

__all__ = ["OWN", "child_python", "lacking_here"]

OWN = Path(sys.executable)


def child_python(python: Path) -> str | None:
    """What a version's process is started with; None is this interpreter, whose children start at once."""
    return None if python == OWN else str(python)


def lacking_here(lock: Lock) -> tuple[Mismatch, ...]:
    """What the lock file asks for and this interpreter does not have so. A package with a marker may be absent."""
    here = ".".join(map(str, sys.version_info[:3]))
    wanted = lock.python
    series = ".".join(here.split(".")[:2])
    wrong_python = wanted is not None and wanted.split(".")[:2] != series.split(".")
    found = {package.name: one for package in lock.packages if (one := _version(package.name)) is not None}
    wrong = differences(lock, found)
    return (Mismatch("python", wanted or "", here), *wrong) if wrong_python else wrong


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
