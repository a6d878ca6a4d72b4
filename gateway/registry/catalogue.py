"""A model's catalogue: numbers, aliases, tags and notes that point at immutable versions.

Pure: every change returns a new ModelDocument, which control stores as the document of kind ``model``.
Numbers are given in order and never used again, also when a version has been taken out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from gateway.errors import Conflict, InvalidRegistration, NotFound, RegistryError, UnknownVersion
from gateway.registry import canonical
from gateway.registry.fields import Fields
from gateway.registry.migration import Migration, migrate
from gateway.registry.names import check_alias, check_digest, check_model_name, check_tags
from gateway.registry.standing import TargetState

__all__ = ["SCHEMA", "CatalogueEntry", "KnownModel", "ModelDocument"]

SCHEMA = 1
MIGRATIONS: Mapping[int, Migration] = {}
"""From schema number n to a pure function that makes a body of n + 1; empty while there is one schema."""

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_PREFIX = re.compile(r"sha256:[0-9a-f]{4,64}")
_MAX_NOTES = 16_384
_IDENTITY = ("system", "name", "version", "url")
MAX_RESULTS = 20
"""Gate runs that a version's entry names; versions in service are looked at again and again."""


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One version in its model's catalogue.

    ``created_at`` in seconds since the epoch; ``gates`` holds the results of its gates, oldest first. ``profiles`` are
    those made of live rows since, oldest first: ``{"digest", "size_bytes", "route", "rows", "captured_at"}``;
    ``profile`` is the digest of the one that its traffic is counted with in place of the manifest's. ``imported``: of a
    version of another system, what is true of its import only: ``{"system", "name", "version", "url", "alias", "at",
    "files"}``, the last the digest of its files as they came. ``signatures`` on its manifest, oldest first:
    ``{"digest", "size_bytes", "by", "at"}``, the first two those of the bundle. ``released``: when and why its files
    were given up, ``{"at", "why"}``; its manifest stays.
    """

    number: int
    digest: str
    created_at: float
    tags: Mapping[str, str] = field(default_factory=dict)
    notes: str = ""
    archived: bool = False
    gates: tuple[Mapping[str, Any], ...] = ()
    profiles: tuple[Mapping[str, Any], ...] = ()
    profile: str | None = None
    imported: Mapping[str, Any] | None = None
    signatures: tuple[Mapping[str, Any], ...] = ()
    released: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        check_digest(self.digest)
        object.__setattr__(self, "tags", MappingProxyType(check_tags(self.tags)))
        object.__setattr__(self, "gates", canonical.freeze(self.gates))
        object.__setattr__(self, "profiles", canonical.freeze(self.profiles))
        object.__setattr__(self, "imported", canonical.freeze(self.imported))
        object.__setattr__(self, "signatures", canonical.freeze(self.signatures))
        object.__setattr__(self, "released", canonical.freeze(self.released))
        _check_notes(self.notes)

    def to_json(self) -> dict[str, Any]:
        body = {
            "number": self.number,
            "digest": self.digest,
            "created_at": self.created_at,
            "tags": dict(self.tags),
            "notes": self.notes,
            "archived": self.archived,
            "gates": canonical.thaw(self.gates),
        }
        # Left out where there are none, so that documents written before are what they were.
        captured = {"profiles": canonical.thaw(self.profiles)} if self.profiles else {}
        imported = {} if self.imported is None else {"imported": canonical.thaw(self.imported)}
        signed = {"signatures": canonical.thaw(self.signatures)} if self.signatures else {}
        released = {} if self.released is None else {"released": canonical.thaw(self.released)}
        used = {} if self.profile is None else {"profile": self.profile}
        return body | captured | used | imported | signed | released

    @classmethod
    def from_json(cls, body: Any, place: str) -> CatalogueEntry:
        with Fields(body, place) as take:
            return cls(
                number=take.integer("number", at_least=1),
                digest=take.text("digest"),
                created_at=take.number("created_at"),
                tags=take.mapping("tags"),
                notes=take.free_text("notes"),
                archived=take.boolean("archived"),
                gates=tuple(row for row, _ in take.rows("gates")),
                profiles=tuple(take.anything("profiles") or ()),
                profile=take.optional_text("profile"),
                imported=take.anything("imported"),
                signatures=tuple(take.anything("signatures") or ()),
                released=take.anything("released"),
            )


@dataclass(frozen=True, slots=True)
class ModelDocument:
    """A model: its versions in order of number, the names that point at them, and ``gates``: what a version must pass
    before a name or a rollout takes it (see ``gateway.registry.gates``), None where nothing is asked. ``targets``: what
    stands, may stand and stood in those of the settings, by name; the alias of a target's name is where it stands."""

    name: str
    versions: tuple[CatalogueEntry, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)
    notes: str = ""
    next_number: int = 1
    gates: Mapping[str, Any] | None = None
    targets: Mapping[str, TargetState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_model_name(self.name)
        object.__setattr__(self, "targets", MappingProxyType(dict(self.targets)))
        object.__setattr__(self, "gates", canonical.freeze(self.gates))
        _check_notes(self.notes)
        object.__setattr__(self, "aliases", MappingProxyType(dict(self.aliases)))
        self._check_versions()

    def _check_versions(self) -> None:
        numbers = [entry.number for entry in self.versions]
        if numbers != sorted(set(numbers)) or (numbers and numbers[-1] >= self.next_number):
            raise RegistryError(f"model {self.name}: numbers {numbers}, next {self.next_number}: not in rising order")
        if len({entry.digest for entry in self.versions}) != len(numbers):
            raise RegistryError(f"model {self.name}: two versions share a digest")
        for alias, number in self.aliases.items():
            check_alias(alias)
            if number not in numbers:
                raise RegistryError(f"model {self.name}: alias {alias} points at {number}, which does not exist")
        for target, state in self.targets.items():
            strange = sorted({*state.admitted, *([] if state.number is None else [state.number])} - set(numbers))
            if strange:
                raise RegistryError(f"model {self.name}: {strange[0]} stands in {target}, and does not exist")

    def version(self, number: int) -> CatalogueEntry:
        for entry in self.versions:
            if entry.number == number:
                return entry
        raise UnknownVersion(f"model {self.name} has no version {number}; it has {self._numbers()}")

    def resolve(self, selector: str) -> CatalogueEntry:
        """``3``, ``@champion`` or ``@sha256:abcd…`` (a prefix that fits one version).

        UnknownVersion when nothing fits, Conflict when several do.
        """
        name = selector.removeprefix("@")
        if name.startswith(canonical.DIGEST_PREFIX):
            return self._by_digest(name)
        if selector.startswith("@"):
            if name not in self.aliases:
                known = ", ".join(self.aliases) or "none"
                raise UnknownVersion(f"model {self.name} has no alias {name!r}; its aliases: {known}")
            return self.version(self.aliases[name])
        if not _NUMBER.fullmatch(selector):
            raise UnknownVersion(f"{selector!r} names no version; expected a number, @alias or @sha256:…")
        return self.version(int(selector))

    def add_version(
        self,
        digest: str,
        *,
        created_at: float,
        tags: Mapping[str, str] | None = None,
        notes: str = "",
        imported: Mapping[str, Any] | None = None,
    ) -> tuple[ModelDocument, int]:
        """The document with the version, and its number. A digest it has already keeps its number: nothing changes."""
        for entry in self.versions:
            if entry.digest == digest:
                return self, entry.number
        number = self.next_number
        added = CatalogueEntry(number, digest, created_at, tags or {}, notes, imported=imported)
        return replace(self, versions=(*self.versions, added), next_number=number + 1), number

    def refuse_overwritten(self, digest: str, imported: Mapping[str, Any] | None) -> None:
        """InvalidRegistration when another system's version has other files now than when it was imported before."""
        if imported is None or imported.get("version") is None:
            return
        identity = [imported.get(name) for name in _IDENTITY]
        for entry in self.versions:
            held = entry.imported
            if held is None or entry.digest == digest or [held.get(name) for name in _IDENTITY] != identity:
                continue
            if held.get("files") != imported.get("files"):
                name = f"{imported['system']} {imported['name']} version {imported['version']}"
                raise InvalidRegistration(
                    f"{name} was overwritten in place: its files are {imported['files']} now, and were {held['files']} "
                    f"when it was imported as {self.name}/{entry.number}, which keeps them. Register the new files as "
                    f"a version of their own in {imported['system']}, then import that"
                )

    def adopt(self, entry: CatalogueEntry) -> tuple[ModelDocument, int]:
        """The document with a version that another catalogue knows, and its number here: the same, unless it was given
        away. Of one that is here already, signatures are added and nothing else."""
        for known in self.versions:
            if known.digest == entry.digest:
                fresh = tuple(one for one in entry.signatures if one not in known.signatures)
                signed = replace(known, signatures=(*known.signatures, *fresh))
                return (self._with(signed) if fresh else self), known.number
        number = max(entry.number, self.next_number)
        added = replace(entry, number=number, gates=(), released=None)
        return replace(self, versions=(*self.versions, added), next_number=number + 1), number

    def set_alias(self, alias: str, number: int) -> ModelDocument:
        """Points the alias at a version. Conflict when that version is archived."""
        check_alias(alias)
        if self.version(number).archived:
            raise Conflict(f"{self.name}/{number} is archived and takes no alias; choose a version that is not")
        return replace(self, aliases={**self.aliases, alias: number})

    def drop_alias(self, alias: str) -> ModelDocument:
        if alias not in self.aliases:
            raise NotFound(f"model {self.name} has no alias {alias!r}")
        return replace(self, aliases={name: number for name, number in self.aliases.items() if name != alias})

    def aliases_of(self, number: int) -> tuple[str, ...]:
        return tuple(sorted(alias for alias, target in self.aliases.items() if target == number))

    def targets_of(self, number: int) -> tuple[str, ...]:
        """Where the version stands, or may."""
        return tuple(sorted(name for name, state in self.targets.items() if number in state.admitted))

    def with_target(self, name: str, state: TargetState) -> ModelDocument:
        """The alias of that name goes where the target stands, or goes. Conflict when that version is archived."""
        named = self.aliases.get(name)
        moved = replace(self, targets={**self.targets, name: state})
        if state.number is not None:
            return moved.set_alias(name, state.number)
        return moved if named is None else moved.drop_alias(name)

    def archive(self, number: int) -> ModelDocument:
        """Keeps the version retrievable and takes it out of routing. Conflict while an alias points at it."""
        entry = self.version(number)
        held = self.aliases_of(number)
        if held and not entry.archived:
            raise Conflict(f"{self.name}/{number} is @{', @'.join(held)}; move or drop the alias, then archive it")
        stands = self.targets_of(number)
        if stands and not entry.archived:
            raise Conflict(
                f"{self.name}/{number} may be served in {', '.join(stands)}; take it out there first (turnout demote "
                f"{self.name}/{number} --from {stands[0]}), then archive it"
            )
        return self._with(replace(entry, archived=True))

    def unarchive(self, number: int) -> ModelDocument:
        """Makes an archived version routable again."""
        return self._with(replace(self.version(number), archived=False, released=None))

    def release(self, number: int, record: Mapping[str, Any]) -> ModelDocument:
        """Archives a version and notes that its files may go. Conflict while an alias points at it."""
        entry = self.archive(number).version(number)
        return self._with(replace(entry, released=record))

    def with_signature(self, number: int, record: Mapping[str, Any]) -> ModelDocument:
        """Appends a signature to a version. One that it has already stays as it is."""
        entry = self.version(number)
        if any(held["digest"] == record["digest"] for held in entry.signatures):
            return self
        return self._with(replace(entry, signatures=(*entry.signatures, record)))

    def with_tags(self, number: int, tags: Mapping[str, str]) -> ModelDocument:
        """Adds tags to a version, in place of those of the same key."""
        entry = self.version(number)
        return self._with(replace(entry, tags={**entry.tags, **tags}))

    def with_notes(self, notes: str, number: int | None = None) -> ModelDocument:
        """Notes on a version, or on the model itself."""
        if number is None:
            return replace(self, notes=notes)
        return self._with(replace(self.version(number), notes=notes))

    def with_gates(self, declaration: Mapping[str, Any] | None) -> ModelDocument:
        """What versions must pass from now on; None: nothing."""
        return replace(self, gates=declaration)

    def with_gate(self, number: int, result: Mapping[str, Any]) -> ModelDocument:
        """Appends a gate run's result to a version, which keeps the newest ``MAX_RESULTS``."""
        entry = self.version(number)
        return self._with(replace(entry, gates=(*entry.gates, result)[-MAX_RESULTS:]))

    def with_profile(self, number: int, record: Mapping[str, Any]) -> ModelDocument:
        """Adds a profile made of a version's live rows. One it has already stays as it is."""
        entry = self.version(number)
        if any(held["digest"] == record["digest"] for held in entry.profiles):
            return self
        return self._with(replace(entry, profiles=(*entry.profiles, record)))

    def use_profile(self, number: int, digest: str | None) -> ModelDocument:
        """Has a version's traffic counted with one of its captured profiles; None: with the manifest's. NotFound."""
        entry = self.version(number)
        if digest is not None and digest not in {held["digest"] for held in entry.profiles}:
            known = ", ".join(held["digest"] for held in entry.profiles) or "none"
            raise NotFound(f"{self.name}/{number} has no captured profile {digest}; it has {known}")
        return self._with(replace(entry, profile=digest))

    def to_json(self) -> dict[str, Any]:
        body = {
            "schema": SCHEMA,
            "name": self.name,
            "versions": [entry.to_json() for entry in self.versions],
            "aliases": dict(self.aliases),
            "notes": self.notes,
            "next_number": self.next_number,
        }
        body |= {} if self.gates is None else {"gates": canonical.thaw(self.gates)}
        return body | ({"targets": {name: at.to_json() for name, at in self.targets.items()}} if self.targets else {})

    @classmethod
    def from_json(
        cls, body: Any, *, migrations: Mapping[int, Migration] = MIGRATIONS, known: KnownModel | None = None
    ) -> ModelDocument:
        """Reads a document of this schema or an older one; RegistryError names what is wrong with it. ``known``: an
        earlier one, whose entries are taken where they are the same."""
        if not isinstance(body, Mapping):
            raise RegistryError(f"the model document is a {type(body).__name__}; expected an object")
        with Fields(migrate(body, migrations, SCHEMA, what="the model document"), "model") as take:
            take.integer("schema", at_least=SCHEMA, at_most=SCHEMA)
            aliases = take.mapping("aliases")
            with Fields(aliases, "model.aliases") as targets:
                numbers = {alias: targets.integer(alias, at_least=1) for alias in aliases}
            return cls(
                name=take.text("name"),
                versions=_entries(take.rows("versions"), known),
                aliases=numbers,
                notes=take.free_text("notes"),
                next_number=take.integer("next_number", at_least=1),
                gates=take.optional_mapping("gates"),
                targets={
                    name: TargetState.from_json(state, f"model.targets.{name}")
                    for name, state in (take.optional_mapping("targets") or {}).items()
                },
            )

    def _with(self, changed: CatalogueEntry) -> ModelDocument:
        versions = tuple(changed if entry.number == changed.number else entry for entry in self.versions)
        return replace(self, versions=versions)

    def _by_digest(self, prefix: str) -> CatalogueEntry:
        if not _PREFIX.fullmatch(prefix):
            raise UnknownVersion(f"digest {prefix!r}: expected sha256: and 4 to 64 lower-case hexadecimal digits")
        fitting = [entry for entry in self.versions if entry.digest.startswith(prefix)]
        if len(fitting) > 1:
            found = ", ".join(f"{entry.number} ({entry.digest})" for entry in fitting)
            raise Conflict(f"{prefix} fits several versions of {self.name}: {found}; write more digits")
        if not fitting:
            raise UnknownVersion(f"model {self.name} has no version with digest {prefix}")
        return fitting[0]

    def _numbers(self) -> str:
        return ", ".join(str(entry.number) for entry in self.versions) or "none"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model's document that was read before, or written: its JSON, and what that says."""

    body: Mapping[str, Any]
    document: ModelDocument


def _entries(rows: list[tuple[Any, str]], known: KnownModel | None) -> tuple[CatalogueEntry, ...]:
    """Versions keep their places: of a thousand, one read again takes 50 µs, one that is compared half of one."""
    same: list[CatalogueEntry | None] = []
    if known is not None and known.body.get("schema") == SCHEMA:
        held = zip(rows, known.body["versions"], known.document.versions, strict=False)
        same = [entry if row == old else None for (row, _), old, entry in held]
    same += [None] * (len(rows) - len(same))
    return tuple(entry or CatalogueEntry.from_json(*row) for row, entry in zip(rows, same, strict=True))


def _check_notes(notes: str) -> None:
    if len(notes) > _MAX_NOTES:
        raise RegistryError(f"notes have {len(notes)} characters; at most {_MAX_NOTES} are kept")
