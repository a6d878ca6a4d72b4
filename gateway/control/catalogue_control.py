"""The catalogue for reading: models page by page, versions by what is asked of them, and whether anything has changed.

Documents are parsed once for each revision, manifests once for ever (``gateway.registry.facts``), and neither by the
event loop: of ten thousand versions a list or a search then takes tens of milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from gateway.control.store import Document, DocumentKey, Snapshot, Store
from gateway.errors import BadRequest, RegistryError
from gateway.registry.blobs import BlobStore
from gateway.registry.catalogue import CatalogueEntry, ModelDocument
from gateway.registry.facts import FactsIndex, VersionFacts
from gateway.registry.search import Query

__all__ = ["INDEX_FILE", "CatalogueControl", "Page"]

INDEX_FILE = "manifest-facts"

View = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Page:
    """``after``: the last that was seen; ``limit`` None: all that follow."""

    after: str | None = None
    limit: int | None = None


class Listing(NamedTuple):
    """``following``: the ``after`` of the next page, None when this was the last."""

    rows: Sequence[View]
    following: str | None
    unreadable: int = 0


class _Row(NamedTuple):
    model: str
    entry: CatalogueEntry
    aliases: tuple[str, ...]


class _Parsed(NamedTuple):
    """``rows``: the model's versions with their aliases."""

    revision: int
    written_at: float
    model: ModelDocument | None
    rows: list[_Row]


class CatalogueControl:
    def __init__(self, store: Store, blobs: BlobStore, home: Path) -> None:
        self._store = store
        self._facts = FactsIndex(home / INDEX_FILE, blobs)
        self._parsed: dict[str, _Parsed] = {}
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<CatalogueControl [{len(self._parsed)} models parsed]>"

    async def etag(self, *asked: object) -> str:
        """Of the models as they stand, for an answer to what was ``asked``: equal while that would be the same."""
        documents = _models(await self._store.snapshot())
        standing = [(one.key.name, one.revision, one.written_at) for one in documents]
        return hashlib.sha256(repr((standing, asked)).encode()).hexdigest()[:32]

    async def models(self, page: Page, *, brief: bool = False) -> Listing:
        """By name. ``brief``: how many versions and the newest, in place of all."""
        snapshot = await self._store.snapshot()
        async with self._turn:
            return await asyncio.to_thread(self._listed, snapshot, page, brief)

    async def search(self, query: Query, page: Page) -> Listing:
        """Versions by model and number; an ``after`` is a version's name. What cannot be read is counted, not found.

        Raises BadRequest for an ``after`` that is none.
        """
        after = None if page.after is None else _place(page.after)
        snapshot = await self._store.snapshot()
        async with self._turn:
            return await asyncio.to_thread(self._found, snapshot, query, after, page.limit)

    def _listed(self, snapshot: Snapshot, page: Page, brief: bool) -> Listing:
        documents = [one for one in _models(snapshot) if page.after is None or one.key.name > page.after]
        rows, more = _cut(documents, page.limit)
        found = [(document, self._read(document)) for document in rows]
        views = [_model_view(document, parsed, brief) for document, parsed in found if parsed.model is not None]
        following = rows[-1].key.name if more and rows else None
        return Listing(views, following, len(found) - len(views))

    def _found(self, snapshot: Snapshot, query: Query, after: tuple[str, int] | None, limit: int | None) -> Listing:
        documents = _models(snapshot)
        candidates: list[_Row] = []
        for document in documents:
            name = document.key.name
            if query.takes_model(name) and (after is None or name >= after[0]):
                rows = self._read(document).rows
                if after is not None and name == after[0]:
                    rows = [row for row in rows if row.entry.number > after[1]]
                if query.asks_catalogue:
                    rows = [row for row in rows if query.takes(row.entry, row.aliases)]
                candidates += rows
        facts = self._facts.of([row.entry.digest for row in candidates]) if candidates else {}
        unreadable = len(candidates) - sum(map(facts.__contains__, [row.entry.digest for row in candidates]))
        found, more = _cut(_held(candidates, query, facts), limit)
        following = f"{found[-1]['model']}/{found[-1]['version']}" if more and found else None
        return Listing(found, following, unreadable)

    def _read(self, document: Document) -> _Parsed:
        """One that cannot be read takes no other with it."""
        name = document.key.name
        known = self._parsed.get(name)
        if known is not None and (known.revision, known.written_at) == (document.revision, document.written_at):
            return known
        try:
            model = ModelDocument.from_json(document.body)
        except RegistryError:
            model = None
        names: dict[int, tuple[str, ...]] = {}
        for alias, number in sorted(model.aliases.items()) if model is not None else ():
            names[number] = (*names.get(number, ()), alias)
        versions = () if model is None else model.versions
        rows = [_Row(name, entry, names.get(entry.number, ())) for entry in versions]
        parsed = self._parsed[name] = _Parsed(document.revision, document.written_at, model, rows)
        return parsed


def _models(snapshot: Snapshot) -> list[Document]:
    return [snapshot.documents[key] for key in sorted(snapshot.documents, key=_name) if key.kind == "model"]


def _name(key: DocumentKey) -> str:
    return key.name


def _cut(rows: Iterable[Any], limit: int | None) -> tuple[list[Any], bool]:
    """The first rows, and whether there are more."""
    if limit is None:
        return list(rows), False
    taken: list[Any] = []
    for row in rows:
        if len(taken) == limit:
            return taken, True
        taken.append(row)
    return taken, False


def _held(candidates: Iterable[_Row], query: Query, facts: Mapping[str, VersionFacts]) -> Iterator[View]:
    checks = query.checks()
    first = checks[0] if len(checks) == 1 else None
    for row in candidates:
        known = facts.get(row.entry.digest)
        if checks and (known is None or not (first(known) if first else all(check(known) for check in checks))):
            continue
        yield _version_view(row.model, row.entry, row.aliases, known)


def _version_view(model: str, entry: CatalogueEntry, aliases: Sequence[str], facts: VersionFacts | None) -> View:
    view: View = {
        "model": model,
        "version": entry.number,
        "digest": entry.digest,
        "created_at": entry.created_at,
        "tags": dict(entry.tags),
        "aliases": list(aliases),
        "archived": entry.archived,
    }
    if facts is not None:
        view["format"] = facts.format
        view["metrics"] = [
            {"metric": metric, "value": value, **({} if part is None else {"slice": part})}
            for metric, value, part in facts.metrics
        ]
        view["commit"] = facts.commit
        view["source"] = facts.source
    return view


def _model_view(document: Document, parsed: _Parsed, brief: bool) -> View:
    model = parsed.model
    if model is None:
        return {}
    view: View = {"model": model.name, "name": model.name, "revision": document.revision}
    if brief:
        view["count"] = len(model.versions)
        view["newest"] = _entry_view(model.versions[-1]) if model.versions else None
    else:
        view["versions"] = [_entry_view(entry) for entry in model.versions]
    return view | {"aliases": dict(model.aliases), "notes": model.notes}


def _entry_view(entry: CatalogueEntry) -> View:
    return {"version": entry.number, **entry.to_json()}


def _place(after: str) -> tuple[str, int]:
    model, slash, number = after.rpartition("/")
    if not slash or not number.isascii() or not number.isdigit():
        raise BadRequest(f"after={after[:80]!r}: expected the last version that was seen, like fraud/12")
    return model, int(number)
