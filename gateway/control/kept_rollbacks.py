"""Rollbacks that the store does not have yet, in a file of the home: a restart meanwhile must not undo them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from gateway.control.audit import canonical
from gateway.control.overrides import Override
from gateway.control.store import Actor, AuditEntry
from gateway.registry.disk import write_whole

__all__ = ["KeptRollbacks"]

log = logging.getLogger("turnout.control")

Entries = Mapping[tuple[str, Override], AuditEntry]


class KeptRollbacks:
    """One line for each: route, rollback, audit entry, id of the token. A line that cannot be read is told and left
    out."""

    def __init__(self, home: Path) -> None:
        self._path = home / "rollbacks-not-stored"
        self._written: bytes | None = None

    def __repr__(self) -> str:
        return f"<KeptRollbacks {self._path}>"

    def read(self) -> dict[tuple[str, Override], AuditEntry]:
        try:
            self._written = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            log.error("%s cannot be read: rollbacks that the store does not have are lost: %s", self._path, error)
            return {}
        found = {}
        for line in self._written.splitlines():
            try:
                route, override, entry, *token = json.loads(line)
                entry["actor"] = Actor(entry["actor"], *token)
                override["against"] = tuple(override.get("against", ()))
                found[str(route), Override(**override)] = AuditEntry(**entry)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                log.error("%s: a rollback cannot be read and is left out: %s", self._path, error)
        return found

    async def write(self, entries: Entries) -> None:
        """Returns when it is on disk; a failure is told and changes nothing else."""
        lines = [
            canonical([route, asdict(override), asdict(entry), entry.token])
            for (route, override), entry in entries.items()
        ]
        content = b"\n".join(lines)
        if content == (self._written or b""):
            return
        try:
            await asyncio.to_thread(self._write, content)
        except OSError as error:
            log.error("%s cannot be written: a restart now would undo a rollback: %s", self._path, error)
        else:
            self._written = content

    def _write(self, content: bytes) -> None:
        if not content:
            self._path.unlink(missing_ok=True)
            return
        write_whole(self._path, content)
