"""Settings of batch scoring: the folders that a batch asked for over the network may read and write."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gateway.settings_groups import Group, Seconds

__all__ = ["BatchSettings"]


class BatchSettings(Group):
    """``directories`` of the gateway's machine: ``POST /admin/batch`` names files inside them, links followed. None:
    the call is refused. ``priority``: of a batch's processes beside all others; ``idle`` ones run when nobody else
    wants the processor. ``timeout_s``: for loading the version, and for each batch of rows."""

    directories: tuple[Path, ...] = ()
    priority: Literal["idle", "nice", "normal"] = "idle"
    timeout_s: Seconds = 300.0
