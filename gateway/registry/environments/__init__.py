"""Environments of versions: packages of their own for a version's process, as its lock file names them."""

from __future__ import annotations

from gateway.registry.environments.environments import Environments, Told
from gateway.registry.environments.mismatch import Mismatch

__all__ = ["Environments", "Mismatch", "Told"]
