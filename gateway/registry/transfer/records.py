"""What an artifact store at a URL says of the versions in it: one object for each, ``versions/MODEL/DIGEST.json``, and
one for each alias.

There is no list that two writers could spoil for one another. A record is written after everything that it names, so
what can be found there is whole. Its number is the one that the version had where it was pushed from: two homes may
have given the same number to different versions, which is then told apart by the digest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import Conflict, RegistryError, UnknownModel, UnknownVersion
from gateway.registry import canonical
from gateway.registry.catalogue import CatalogueEntry
from gateway.registry.fields import Fields
from gateway.registry.names import check_alias, check_digest, check_model_name

__all__ = ["ALIASES", "VERSIONS", "AliasRecord", "VersionRecord", "choose"]

SCHEMA = 1
VERSIONS, ALIASES = "versions", "aliases"
_MOST_NUMBER = 10**9
_MOST_TIME = 253_402_300_799.0
"""The end of the year 9999; beyond it no date can be written."""
_BLOBS = ("signatures", "profiles")


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """``entry`` is its entry in the catalogue that it was pushed from."""

    model: str
    entry: CatalogueEntry

    def __str__(self) -> str:
        return f"{self.model}/{self.entry.number}"

    @property
    def digest(self) -> str:
        return self.entry.digest

    @property
    def name(self) -> str:
        """Of its object."""
        return f"{VERSIONS}/{self.model}/{self.digest.removeprefix(canonical.DIGEST_PREFIX)}.json"

    @property
    def beside(self) -> frozenset[str]:
        """Blobs that the entry names itself: signatures, captured profiles, records of gates. Its other digests (of a
        declaration, of an import's files as they came) are names of no blob."""
        rows = (*self.entry.signatures, *self.entry.profiles)
        records = (check_digest(result["record"]) for result in self.entry.gates if result.get("record") is not None)
        return frozenset((*(row["digest"] for row in rows), *records)) - {self.digest}

    def to_bytes(self) -> bytes:
        return canonical.dumps({"schema": SCHEMA, "model": self.model, "entry": self.entry.to_json()})

    @classmethod
    def from_bytes(cls, data: bytes, place: str) -> VersionRecord:
        """RegistryError says what is wrong with it; it comes from a store that others can write to."""
        with Fields(canonical.loads_any(data, what=place), place) as take:
            take.integer("schema", at_least=SCHEMA, at_most=SCHEMA)
            model = check_model_name(take.text("model"))
            record = cls(model, _entry(take.mapping("entry"), f"{place}.entry"))
        if not place.endswith(record.name):
            raise RegistryError(f"{place} is about {model}, {record.digest}: it does not belong there; remove it")
        return record


@dataclass(frozen=True, slots=True)
class AliasRecord:
    """Where an alias stood when its model was pushed last. It routes nothing."""

    model: str
    alias: str
    digest: str

    @property
    def name(self) -> str:
        return f"{ALIASES}/{self.model}/{self.alias}.json"

    def to_bytes(self) -> bytes:
        return canonical.dumps({"model": self.model, "alias": self.alias, "digest": self.digest})

    @classmethod
    def from_bytes(cls, data: bytes, place: str) -> AliasRecord:
        with Fields(canonical.loads_any(data, what=place), place) as take:
            names = check_model_name(take.text("model")), check_alias(take.text("alias"))
            alias = cls(*names, check_digest(take.text("digest")))
        if not place.endswith(alias.name):
            raise RegistryError(f"{place} is about {alias.model}@{alias.alias}: it does not belong there; remove it")
        return alias


def _entry(body: Mapping[str, Any], place: str) -> CatalogueEntry:
    """What enters a catalogue from here is read again at every start: nothing may stand in it that breaks one."""
    with Fields(body, place) as take:
        take.integer("number", at_least=1, at_most=_MOST_NUMBER)
        if not 0.0 <= take.number("created_at") <= _MOST_TIME:
            raise RegistryError(f"{place}.created_at is {body['created_at']}; expected seconds since the epoch")
        take.optional_mapping("imported")
        for name in _BLOBS:
            for row, at in take.rows(name) if body.get(name) else ():
                _blob(row, at, "at" if name == "signatures" else "captured_at")
        for result, at in take.rows("gates"):
            if not isinstance(result, Mapping):
                raise RegistryError(f"{at} is {result!r:.60}; expected the result of gates")
            _record(result.get("record"), f"{at}.record")
        for name in body:
            take.anything(name)
    return CatalogueEntry.from_json(body, place)


def _record(digest: Any, place: str) -> None:
    """Of a run of gates; the digest of a blob, which ``beside`` names."""
    if digest is not None and not isinstance(digest, str):
        raise RegistryError(f"{place} is {digest!r:.60}; expected a digest like sha256:<64 hexadecimal digits>")
    if digest is not None:
        check_digest(digest)


def _blob(row: Any, place: str, when: str) -> None:
    with Fields(row, place) as take:
        check_digest(take.text("digest"))
        take.integer("size_bytes", at_least=0)
        if not 0.0 <= take.number(when) <= _MOST_TIME:
            raise RegistryError(f"{place}.{when} is {row[when]}; expected seconds since the epoch")
        for name in row:
            take.anything(name)


def choose(
    reference: str, records: Iterable[VersionRecord], aliases: Mapping[tuple[str, str], str], where: str
) -> Sequence[VersionRecord]:
    """``fraud`` (all of it), ``fraud/3``, ``fraud@champion``, ``fraud@sha256:…`` among what a store has.

    UnknownModel, UnknownVersion; Conflict when two versions have the number.
    """
    model, mark = reference, ""
    for sign in ("@", "/"):
        if sign in reference:
            model, _, mark = reference.partition(sign)
            break
    own = sorted((record for record in records if record.model == model), key=lambda record: record.entry.number)
    if not own:
        raise UnknownModel(f"{where} has no versions of model {model!r:.140}")
    if not mark:
        return own
    wanted = aliases.get((model, mark)) if "@" in reference and not mark.startswith("sha256:") else None
    fitting = [record for record in own if _fits(record, mark, wanted)]
    if not fitting:
        known = ", ".join(str(record.entry.number) for record in own)
        raise UnknownVersion(f"{where} has no {reference}; of {model} it has {known}")
    if len(fitting) > 1:
        found = ", ".join(f"{record} ({record.digest[:19]}…)" for record in fitting)
        raise Conflict(
            f"{reference} fits several versions in {where}: {found}; write {model}@sha256:… with more digits"
        )
    return fitting


def _fits(record: VersionRecord, mark: str, wanted: str | None) -> bool:
    if wanted is not None:
        return record.digest == wanted
    if mark.startswith(canonical.DIGEST_PREFIX):
        return record.digest.startswith(mark)
    return str(record.entry.number) == mark
