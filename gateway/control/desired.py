"""Desired state as this replica reads it: a snapshot's documents, parsed once each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from gateway.control.documents import ResidentDocument, RouteDocument
from gateway.control.store import Document, DocumentKey, Snapshot
from gateway.errors import RegistryError, StoreUnavailable, UnknownVersion
from gateway.messages import VersionRef
from gateway.registry.catalogue import KnownModel, ModelDocument

__all__ = ["Desired", "DesiredRoute", "read_desired"]

Parsed: TypeAlias = RouteDocument | ModelDocument | ResidentDocument


@dataclass(frozen=True, slots=True)
class DesiredRoute:
    """``revision`` is that of the document; ``local``: a rollback of this replica that the store does not have yet."""

    revision: int
    document: RouteDocument
    local: bool = False

    def ref(self, number: int) -> VersionRef:
        return VersionRef(self.document.spec.model, number)


@dataclass(frozen=True, slots=True)
class Desired:
    """``unreadable``: documents that could not be parsed, and why; ``parsed`` spares reading them again, those that
    are of the same revision and written at the same time (another store may have the same revision), and of a model
    that has changed the versions that have not. ``documents``: what they were read from."""

    revision: int = 0
    routes: Mapping[str, DesiredRoute] = field(default_factory=dict)
    models: Mapping[str, ModelDocument] = field(default_factory=dict)
    residents: frozenset[VersionRef] = frozenset()
    unreadable: Mapping[DocumentKey, str] = field(default_factory=dict)
    parsed: Mapping[DocumentKey, tuple[int, Parsed]] = field(default_factory=dict)
    documents: Mapping[DocumentKey, Document] = field(default_factory=dict)

    def wanted(self) -> frozenset[VersionRef]:
        """The versions that shall be loaded: what routes name and have not quarantined, and explicit residents."""
        named = {route.ref(number) for route in self.routes.values() for number in route.document.routable()}
        return frozenset(named) | self.residents

    def digest(self, ref: VersionRef) -> str:
        """Raises UnknownVersion."""
        model = self.models.get(ref.model)
        if model is None:
            why = self.unreadable.get(DocumentKey("model", ref.model), "there is no such model")
            raise UnknownVersion(f"{ref} cannot be loaded: {why}")
        return model.version(ref.number).digest


def read_desired(snapshot: Snapshot, before: Desired) -> Desired:
    """Parses what is new since ``before``. A document that cannot be read spoils no other."""
    parsed: dict[DocumentKey, tuple[int, Parsed]] = {}
    unreadable: dict[DocumentKey, str] = {}
    for key, document in snapshot.documents.items():
        known, held = before.parsed.get(key), before.documents.get(key)
        try:
            same = held is not None and held.written_at == document.written_at
            if known is not None and same and known[0] == document.revision:
                parsed[key] = known
            elif (fresh := _parse(document, held, None if known is None else known[1])) is not None:
                parsed[key] = (document.revision, fresh)
        except (StoreUnavailable, RegistryError) as error:
            unreadable[key] = str(error)
    routes = {
        key.name: DesiredRoute(revision, body)
        for key, (revision, body) in sorted(parsed.items())
        if isinstance(body, RouteDocument)
    }
    models = {key.name: body for key, (_, body) in parsed.items() if isinstance(body, ModelDocument)}
    residents = {VersionRef(b.model, b.version) for _, b in parsed.values() if isinstance(b, ResidentDocument)}
    return Desired(snapshot.revision, routes, models, frozenset(residents), unreadable, parsed, snapshot.documents)


def _parse(document: Document, held: Document | None, known: Parsed | None) -> Parsed | None:
    if document.body is None:
        return None
    match document.key.kind:
        case "route":
            return RouteDocument.from_json(document.body)
        case "model":
            model = KnownModel(held.body, known) if held and held.body and isinstance(known, ModelDocument) else None
            return ModelDocument.from_json(document.body, known=model)
        case "resident":
            return ResidentDocument.from_json(document.body)
        case _:
            return None
