"""The last state taken from the store, kept in the home: a replica serves from it while the store is away.

It also says which store that was, and how far it had come: a store that comes back empty, older or as another one is
not believed. Written aside, synced and renamed; a digest over all of it tells damage.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gateway.control.audit import GENESIS, canonical
from gateway.control.store import Document, DocumentKey, Snapshot
from gateway.registry.disk import write_whole

__all__ = ["KnownState", "LastState"]

log = logging.getLogger("turnout.control")

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class KnownState:
    """All living documents of one store at one revision. ``identity``: the store's, '' while none is known.
    ``head``: the digest of the audit record of that revision."""

    identity: str = ""
    revision: int = 0
    head: str = GENESIS
    documents: Mapping[DocumentKey, Document] = field(default_factory=dict)

    def snapshot(self) -> Snapshot:
        return Snapshot(self.revision, self.documents)


class LastState:
    """The file. A damaged one is told and counts as none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: tuple[str, int] = ("", -1)
        self._turn = asyncio.Lock()
        self._lines: dict[DocumentKey, tuple[tuple[int, float], bytes]] = {}
        self._failed = False

    def __repr__(self) -> str:
        return f"<LastState {self._path} [revision {self._kept[1]}]>"

    def read(self) -> KnownState | None:
        try:
            raw = self._path.read_bytes()
            return _parse(raw)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error(
                "%s, the last state that was served, cannot be read and counts for nothing: %s", self._path, error
            )
            return None

    async def keep(self, state: KnownState) -> None:
        """Returns when it is on disk, or that failed, which is told once. Older ones are left out."""
        async with self._turn:
            if self._kept[0] == state.identity and self._kept[1] >= state.revision:
                return
            try:
                await asyncio.to_thread(self._write, state)
            except OSError as error:
                if not self._failed:
                    log.error(
                        "%s cannot be written, a restart while the store is away would serve an older state: %s",
                        self._path,
                        error,
                    )
                self._failed = True
                return
            self._failed = False
            self._kept = (state.identity, state.revision)

    def anew(self) -> None:
        """The next state is kept, whatever was kept before."""
        self._kept = ("", -1)

    def _write(self, state: KnownState) -> None:
        self._lines = {key: ((row.revision, row.written_at), self._line(row)) for key, row in state.documents.items()}
        body = b"\n".join(line for _, line in self._lines.values())
        head = {"schema": SCHEMA, "identity": state.identity, "revision": state.revision, "head": state.head}
        first = canonical(head)
        digest = hashlib.sha256(first + b"\n" + body).hexdigest().encode("ascii")
        write_whole(self._path, b"\n".join((digest, first, body)))

    def _line(self, row: Document) -> bytes:
        """Made once for each revision of a document: a model of a thousand versions takes 5 ms."""
        known = self._lines.get(row.key)
        if known is not None and known[0] == (row.revision, row.written_at):
            return known[1]
        return canonical([row.key.kind, row.key.name, row.revision, row.written_at, row.body])


def _parse(raw: bytes) -> KnownState:
    digest, _, rest = raw.partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode("ascii") != digest:
        raise ValueError("its content does not fit its digest")
    first, _, body = rest.partition(b"\n")
    head = json.loads(first)
    if head["schema"] != SCHEMA:
        raise ValueError(f"schema {head['schema']}, expected {SCHEMA}")
    documents = {}
    for line in body.split(b"\n") if body else ():
        kind, name, revision, written_at, document = json.loads(line)
        key = DocumentKey(kind, name)
        documents[key] = Document(key, revision, document, written_at)
    return KnownState(head["identity"], head["revision"], head["head"], documents)
