"""What a search asks of a manifest, in few bytes: format, metrics, data, commit, author, where it was imported from.

A manifest never changes, so what was read of it once stands for ever under its digest: one line of JSON in a file that
only grows. Losing the file costs the time to read all manifests again, and nothing else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from sys import intern
from typing import Any

import orjson

from gateway.errors import LoadError, RegistryError
from gateway.registry.blobs import BlobStore
from gateway.registry.lineage.kinds import data_digests, read_kinds
from gateway.registry.manifest import SCHEMA as MANIFEST_SCHEMA
from gateway.registry.manifest import Manifest

__all__ = ["FactsIndex", "VersionFacts", "facts_of"]

log = logging.getLogger("turnout.registry")

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """``metrics``: name, value, slice. ``data``: digests as lineage spells them. ``source``: ``system:name``."""

    format: str
    metrics: tuple[tuple[str, float, str | None], ...] = ()
    data: tuple[str, ...] = ()
    commit: str | None = None
    author: str | None = None
    source: str | None = None

    def to_json(self) -> list[Any]:
        return [self.format, self.metrics, self.data, self.commit, self.author, self.source]

    @classmethod
    def from_json(cls, body: list[Any]) -> VersionFacts:
        name, metrics, data, commit, author, source = body
        rows = tuple((intern(metric), float(value), part) for metric, value, part in metrics)
        return cls(intern(name), rows, tuple(data), commit, author, source)


def facts_of(body: Mapping[str, Any]) -> VersionFacts:
    """Of a manifest's JSON. Raises KeyError, TypeError or ValueError for what is none."""
    lineage = body["lineage"]
    source = lineage.get("source") or {}
    author, system = lineage.get("author"), source.get("system")
    rows = body["evaluation"]
    return VersionFacts(
        format=body["format"],
        metrics=tuple((row["metric"], float(row["value"]), row.get("slice")) for row in rows),
        data=tuple(sorted(data_digests(lineage))),
        commit=read_kinds({"code": lineage.get("code")}).code.commit,
        author=None if author is None else str(author),
        source=None if system is None else f"{system}:{source.get('name') or ''}",
    )


@dataclass(slots=True)
class FactsIndex:
    """Facts by manifest digest. Blocks on the disk; one caller at a time, though processes may share the file."""

    path: Path
    blobs: BlobStore
    _known: dict[str, VersionFacts] = field(default_factory=dict)
    _read: bool = False

    def __repr__(self) -> str:
        return f"<FactsIndex {self.path} [{len(self._known)} manifests]>"

    def of(self, digests: Collection[str]) -> Mapping[str, VersionFacts]:
        """Those of each digest whose manifest can be read; what is not known yet is read now, and kept."""
        if not self._read:
            self._known, self._read = self._kept(), True
        added = {}
        for digest in digests:
            if digest not in self._known and (facts := self._found(digest)) is not None:
                self._known[digest] = added[digest] = facts
        if added:
            self._keep(added)
        return self._known

    def _found(self, digest: str) -> VersionFacts | None:
        """The bytes are proved by their digest, and were checked when they were stored: what a whole manifest takes to
        be built would be nine tenths of reading ten thousand."""
        try:
            raw = self.blobs.read(digest)
            body = orjson.loads(raw)
            if body["schema"] != MANIFEST_SCHEMA:
                body = Manifest.from_bytes(raw).to_json()
            return facts_of(body)
        except (LoadError, RegistryError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("manifest %s cannot be read and is not searched: %s", digest, error)
            return None

    def _kept(self) -> dict[str, VersionFacts]:
        """A line that is torn or of another schema is as none."""
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError:
            return {}
        found = {}
        for line in lines:
            try:
                schema, digest, *facts = orjson.loads(line)
                if schema == SCHEMA:
                    found[digest] = VersionFacts.from_json(facts)
            except (ValueError, TypeError):
                continue
        return found

    def _keep(self, added: Mapping[str, VersionFacts]) -> None:
        """In one write, behind a line break: what a killed process left half written spoils no other line."""
        lines = [orjson.dumps([SCHEMA, digest, *facts.to_json()]) for digest, facts in added.items()]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(handle, b"\n" + b"\n".join(lines) + b"\n")
            finally:
                os.close(handle)
        except OSError as error:
            log.warning("%s cannot be written, so manifests will be read again: %s", self.path, error)
