"""What another system knows of a version: who it is there, and what belongs to it. Told by a client, believed by nobody
without a check: names and JSON are read strictly, and bytes are hashed here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.errors import InvalidRegistration
from gateway.messages import Signature
from gateway.registry import canonical
from gateway.registry.fields import Fields
from gateway.registry.lineage.recorded import plain
from gateway.registry.names import check_file_name, check_tags
from gateway.registry.parts import EvaluationRecord, Lineage

__all__ = ["Provenance", "Resolved"]

_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name points at: ``identity`` is ``{"system", "name", "version", "digest", "algorithm", "url"}``, None
    where unknown; ``alias`` is the name's own, if it has one."""

    identity: Mapping[str, str | None]
    alias: str | None = None

    @classmethod
    def from_json(cls, body: Any, system: str) -> Resolved:
        with Fields(body, "resolved") as take:
            return cls(_identity(take, system), take.optional_text("alias"))


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a source says beside its files; what the operator gives wins over each of it.

    ``lineage`` has places of ``Lineage``. ``example`` and ``environment`` (a lock file) are paths here, gone when the
    source is closed. ``options`` belong to the format. ``added`` are the files that the client made itself, such as an
    adapter: they are not the other system's. ``remarks`` are for the operator, as an alias that moved meanwhile.
    """

    identity: Mapping[str, str | None]
    alias: str | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    evaluation: tuple[EvaluationRecord, ...] = ()
    signature: Signature | None = None
    example: Path | None = None
    environment: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    pickled: bool = False
    """Loading it runs code out of a pickle, whatever its format: it needs the same leave."""
    added: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @classmethod
    def from_take(cls, take: Fields, system: str, folder: Path) -> Provenance:
        """The keys of a client's answer; RegistryError, or ValueError for a signature, names what is wrong."""
        signature = take.anything("signature")
        return cls(
            identity=_identity(take, system),
            alias=take.optional_text("alias"),
            lineage=_lineage(take.anything("lineage") or {}),
            evaluation=_evaluation(take),
            signature=None if signature is None else Signature.from_json(signature),
            example=_beside(take, "example", folder),
            environment=_beside(take, "environment", folder),
            tags=check_tags(take.anything("tags") or {}),
            options=canonical.freeze(take.anything("options") or {}),
            pickled=take.optional_boolean("pickled"),
            added=tuple(_texts(take, "added")),
            remarks=tuple(_texts(take, "remarks")),
        )

    def facts(self) -> dict[str, Any]:
        """What is true of the import only, and not of the version: for the catalogue."""
        identity = self.identity
        named = {name: identity.get(name) for name in ("system", "name", "version", "url")}
        return {**named, "alias": self.alias}


def _identity(take: Fields, system: str) -> Mapping[str, str | None]:
    body = take.mapping("identity")
    with Fields(body, f"{take.place}.identity") as known:
        found = {
            "system": known.optional_text("system") or system,
            "name": known.text("name"),
            "version": known.optional_text("version"),
            "digest": known.optional_text("digest"),
            "algorithm": known.optional_text("algorithm"),
            "url": known.optional_text("url"),
        }
    for name, value in found.items():
        if value is not None and len(value) > _MAX_TEXT:
            raise InvalidRegistration(f"the source's {name} has {len(value)} characters; at most {_MAX_TEXT} are kept")
    return canonical.freeze(found)  # type: ignore[no-any-return]


def _lineage(body: Any) -> Mapping[str, Any]:
    """What is called a secret there is not kept: a run's configuration holds what its author put in."""
    lineage = Lineage.from_json(body, "the source's lineage").to_json()
    return {place: plain(value) for place, value in lineage.items() if value is not None}


def _evaluation(take: Fields) -> tuple[EvaluationRecord, ...]:
    if take.anything("evaluation") is None:
        return ()
    return tuple(EvaluationRecord.from_json(row, place) for row, place in take.rows("evaluation"))


def _beside(take: Fields, key: str, folder: Path) -> Path | None:
    name = take.optional_text(key)
    if name is None:
        return None
    path = folder / "beside" / check_file_name(name)
    if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
        raise InvalidRegistration(f"the source names {key} {name!r}, which it did not give as a file")
    return path


def _texts(take: Fields, key: str) -> list[str]:
    found = take.anything(key) or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise InvalidRegistration(f"the source's {key} is no list of texts")
    return found
