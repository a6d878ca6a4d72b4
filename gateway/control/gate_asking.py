"""What the gates of a version are asked with, as the state stands: its declaration, the champion, the routes. Pure.

``basis`` names all of it by one digest: a result counts for as long as the same question would be asked.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from gateway.control.desired import Desired, read_desired
from gateway.control.gatekeeping import declaration_digest
from gateway.control.store import DocumentKey, Snapshot
from gateway.errors import UnknownModel
from gateway.messages import VersionRef
from gateway.registry import canonical
from gateway.registry.catalogue import CatalogueEntry, ModelDocument
from gateway.registry.gates.declaration import Declaration
from gateway.registry.gates.kinds import SignatureGate

__all__ = ["Question", "model_of", "question"]


@dataclass(frozen=True, slots=True)
class Question:
    """``whole`` is what stands in the model's document, under ``digest``; ``declaration`` what of it is asked here,
    which may have no gates. ``champion``: the version to compare
    with; None where there is none, or it is the same. ``routes``: of the model, each with the version that it falls
    back to."""

    model: ModelDocument
    entry: CatalogueEntry
    declaration: Declaration
    whole: Declaration
    digest: str
    champion: CatalogueEntry | None
    routes: tuple[tuple[str, CatalogueEntry], ...]

    @property
    def ref(self) -> VersionRef:
        return VersionRef(self.model.name, self.entry.number)

    @property
    def basis(self) -> str:
        return self._basis(self.declaration)

    @property
    def bases(self) -> frozenset[str]:
        """Who passed all gates has passed those that are asked here."""
        return frozenset((self._basis(self.declaration), self._basis(self.whole)))

    def _basis(self, declaration: Declaration) -> str:
        asks = any(isinstance(gate, SignatureGate) for gate in declaration.gates)
        body: dict[str, Any] = {
            "version": self.entry.digest,
            "declaration": self.digest,
            "champion": None if self.champion is None else self.champion.digest,
            "routes": [[name, entry.digest] for name, entry in self.routes] if asks else [],
        }
        if len(declaration.gates) < len(self.whole.gates):
            body["gates"] = [gate.name for gate in declaration.gates]
        return canonical.digest_of(canonical.dumps(body))


def question(
    snapshot: Snapshot,
    name: str,
    number: int,
    against: int | None = None,
    *,
    purposes: Collection[str] | None = None,
) -> Question | None:
    """``purposes``: of the changes that ask; None: all gates. None where the model asks for nothing.

    Raises UnknownModel, UnknownVersion, and InvalidRegistration for a declaration that this program cannot read.
    """
    model = model_of(snapshot, name)
    entry = model.version(number)
    if model.gates is None:
        return None
    whole = Declaration.from_json(canonical.thaw(model.gates))
    asked = whole if purposes is None else whole.asked_by(purposes)
    beside = model.aliases.get(whole.champion) if against is None else against
    champion = None if beside in (None, number) else model.version(int(beside or 0))
    return Question(model, entry, asked, whole, declaration_digest(model), champion, _routes(snapshot, model, number))


def model_of(snapshot: Snapshot, name: str) -> ModelDocument:
    """Raises UnknownModel."""
    found = snapshot.documents.get(DocumentKey("model", name))
    if found is None or found.body is None:
        raise UnknownModel(f"no model {name!r:.140} is registered")
    return ModelDocument.from_json(found.body)


def _routes(snapshot: Snapshot, model: ModelDocument, number: int) -> tuple[tuple[str, CatalogueEntry], ...]:
    """A route that falls back to the version itself says nothing about it."""
    known = {entry.number: entry for entry in model.versions}
    found = []
    for name, route in read_desired(snapshot, Desired()).routes.items():
        good = route.document.status.known_good
        if route.document.spec.model == model.name and good in known and good != number:
            found.append((name, known[good]))
    return tuple(found)
