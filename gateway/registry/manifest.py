"""The manifest: the immutable record of a version. The digest of its canonical JSON *is* the version.

    Manifest
    ├── model, format, entry
    ├── files        name, sha256, size_bytes of each artifact file
    ├── signature    tensor names, datatypes, shapes
    ├── runtime      device, threads, placement, interpreter, batch limits, options of the format
    ├── effects      retry: may a batch run again after a crash
    ├── example      one request's inputs, a blob (see ``gateway.registry.examples``)
    ├── golden       a blob of inputs with the answers they must get
    ├── environment  the lock file of the packages that the version runs with, a blob
    ├── lineage      code, data, parameters, environment, features, run, source, parent, author, notes
    ├── evaluation   metric records
    └── profile      the reference data that drift is measured against

A manifest of an older schema is migrated when it is read; it keeps the digest of the bytes stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.errors import RegistryError
from gateway.messages import Signature
from gateway.registry import canonical
from gateway.registry.fields import Fields
from gateway.registry.migration import Migration, migrate
from gateway.registry.names import check_file_name, check_model_name
from gateway.registry.parts import (
    PLACEMENTS,
    BlobRef,
    Effects,
    EvaluationRecord,
    FileEntry,
    Lineage,
    ProfilePlace,
    RuntimePlan,
    optional_blob,
    optional_json,
)
from runtimes import catalog

__all__ = [
    "FORMATS",
    "MIGRATIONS",
    "PLACEMENTS",
    "SCHEMA",
    "BlobRef",
    "Effects",
    "EvaluationRecord",
    "FileEntry",
    "Lineage",
    "Manifest",
    "ProfilePlace",
    "RuntimePlan",
]

SCHEMA = 1
MIGRATIONS: Mapping[int, Migration] = {}
"""From schema number n to a pure function that makes a body of n + 1; empty while there is one schema."""

FORMATS = tuple(catalog.FORMATS)
MAX_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module. Files are kept sorted by name, so their order on disk changes nothing."""

    model: str
    format: str
    entry: str
    files: tuple[FileEntry, ...]
    signature: Signature
    runtime: RuntimePlan = field(default_factory=RuntimePlan)
    effects: Effects = field(default_factory=Effects)
    example: BlobRef | None = None
    golden: BlobRef | None = None
    environment: BlobRef | None = None
    lineage: Lineage = field(default_factory=Lineage)
    evaluation: tuple[EvaluationRecord, ...] = ()
    profile: ProfilePlace | None = None
    stored_digest: str | None = field(default=None, compare=False, repr=False)
    """Set only on a migrated view: the digest of the bytes it was read from."""

    def __post_init__(self) -> None:
        check_model_name(self.model)
        if self.format not in FORMATS:
            raise RegistryError(f"format is {self.format!r}; expected one of {', '.join(FORMATS)}")
        object.__setattr__(self, "files", tuple(sorted(self.files)))
        self._check_files()

    def _check_files(self) -> None:
        if not 1 <= len(self.files) <= MAX_FILES:
            raise RegistryError(f"a version has 1 to {MAX_FILES} files; this one has {len(self.files)}")
        names = [check_file_name(file.name) for file in self.files]
        if len(set(names)) != len(names):
            raise RegistryError("two files of the version share a name")
        if self.entry not in names:
            raise RegistryError(f"entry {self.entry!r} is not among the version's files ({', '.join(names[:5])}…)")

    @property
    def digest(self) -> str:
        """``sha256:…``: the version's name."""
        return self.stored_digest or canonical.digest_of(self.canonical())

    def canonical(self) -> bytes:
        return canonical.dumps(self.to_json())

    def blobs(self) -> tuple[tuple[str, str, int], ...]:
        """All bytes that the version needs, besides the manifest: what they are, digest, size."""
        places = {"(example)": self.example, "(golden)": self.golden, "(environment)": self.environment}
        if self.profile is not None:
            places |= {"(reference)": self.profile.reference, "(profile)": self.profile.computed}
        extra = tuple((name, blob.digest, blob.size_bytes) for name, blob in places.items() if blob is not None)
        return tuple((file.name, file.digest, file.size_bytes) for file in self.files) + extra

    def to_json(self) -> dict[str, Any]:
        body = {
            "schema": SCHEMA,
            "model": self.model,
            "format": self.format,
            "entry": self.entry,
            "files": [file.to_json() for file in self.files],
            "signature": self.signature.to_json(),
            "runtime": self.runtime.to_json(),
            "effects": self.effects.to_json(),
            "example": optional_json(self.example),
            "golden": optional_json(self.golden),
            "lineage": self.lineage.to_json(),
            "evaluation": [record.to_json() for record in self.evaluation],
            "profile": optional_json(self.profile),
        }
        # Left out where there is none, so that versions registered before keep their digests.
        return body if self.environment is None else body | {"environment": self.environment.to_json()}

    @classmethod
    def from_bytes(cls, data: bytes, *, migrations: Mapping[int, Migration] = MIGRATIONS) -> Manifest:
        """Reads stored bytes: canonical JSON of this schema or an older one. RegistryError names what is wrong."""
        body = canonical.loads(data, what="the manifest")
        if not isinstance(body, dict):
            raise RegistryError(f"the manifest is a JSON {type(body).__name__}; expected an object")
        current = migrate(body, migrations, SCHEMA, what="the manifest")
        manifest = cls.from_json(current)
        if current is not body:
            return replace(manifest, stored_digest=canonical.digest_of(data))
        if manifest.canonical() != data:
            raise RegistryError(
                "the manifest reads well but is not what registration writes: it was edited. "
                "Restore it from a backup, or register the version again."
            )
        return manifest

    @classmethod
    def from_json(cls, body: Any) -> Manifest:
        """Strict: every key of this schema, no other, each of its type."""
        with Fields(body, "manifest") as take:
            take.integer("schema", at_least=SCHEMA, at_most=SCHEMA)
            profile = take.anything("profile")
            return cls(
                model=take.text("model"),
                format=take.text("format"),
                entry=take.text("entry"),
                files=tuple(FileEntry.from_json(row, place) for row, place in take.rows("files")),
                signature=_signature(take.mapping("signature")),
                runtime=RuntimePlan.from_json(take.mapping("runtime"), "manifest.runtime"),
                effects=Effects.from_json(take.mapping("effects"), "manifest.effects"),
                example=optional_blob(take, "example"),
                golden=optional_blob(take, "golden"),
                environment=optional_blob(take, "environment"),
                lineage=Lineage.from_json(take.mapping("lineage"), "manifest.lineage"),
                evaluation=tuple(EvaluationRecord.from_json(row, place) for row, place in take.rows("evaluation")),
                profile=None if profile is None else ProfilePlace.from_json(profile, "manifest.profile"),
            )


def _signature(body: Mapping[str, Any]) -> Signature:
    unknown = sorted(body.keys() - {"inputs", "outputs", "batched"})
    if unknown:
        raise RegistryError(f"manifest.signature: unknown key {unknown[0]!r}; expected inputs, outputs, batched")
    if not isinstance(body.get("batched", True), bool):
        raise RegistryError(f"manifest.signature.batched is {body['batched']!r}; expected true or false")
    try:
        return Signature.from_json(body)
    except ValueError as error:
        raise RegistryError(f"manifest.signature: {error}") from None
