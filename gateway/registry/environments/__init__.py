"""Environments of versions: packages of their own for a version's process, as its lock file names them."""

from __future__ import annotations

from gateway.registry.environments.building import Told
from gateway.registry.environments.environments import FOLDER, Environments
from gateway.registry.environments.lock import Lock, read_lock
from gateway.registry.environments.mismatch import EnvironmentRefused, Mismatch
from gateway.registry.environments.own import child_python
from gateway.registry.environments.record import EnvironmentEntry

__all__ = [
    "FOLDER",
    "EnvironmentEntry",
    "EnvironmentRefused",
    "Environments",
    "Lock",
    "Mismatch",
    "Told",
    "child_python",
    "read_lock",
]
