"""Registration: a source and what is known about it become stored blobs and a manifest.

    prepare   options read and checked → files stored → environment built → signature found → version tried
              → manifest stored

Nothing is registered until control writes the manifest's digest into the catalogue: a registration
that fails or dies before leaves blobs that nobody refers to, which gc removes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gateway.errors import InvalidRegistration
from gateway.messages import Signature
from gateway.registry import canonical
from gateway.registry.attachments import Attachments, read_evaluation, read_golden, read_recorded, read_signature
from gateway.registry.blobs import BlobStore, Progress, Stored
from gateway.registry.environments import Environments, Told, child_python
from gateway.registry.examples import Example
from gateway.registry.inspection import Inspector
from gateway.registry.loading import file_refs
from gateway.registry.manifest import Manifest
from gateway.registry.names import check_file_name, check_model_name
from gateway.registry.offered import refusing
from gateway.registry.parts import BlobRef, Effects, FileEntry, Lineage, ProfilePlace, RuntimePlan
from gateway.registry.profiling import computed_elsewhere
from gateway.registry.sources import Provenance, Source, SourceAccess, SourceLimits, opened
from gateway.registry.trial import Tried, try_version
from runtimes.base import LoadSpec

__all__ = ["Permissions", "Prepared", "RegistrationOptions", "prepare", "prepare_version"]


@dataclass(frozen=True, slots=True)
class RegistrationOptions:
    """What an operator says about a version. All files are paths on this machine.

    ``prove`` loads the version and lets it answer once before it is taken. ``tags`` belong in the
    catalogue and do not enter the manifest. ``batched`` None: found by trying. ``environment``: the lock file of the
    packages that it runs with; where none is given, the one that the source brings, unless ``own_environment`` is False
    or an ``interpreter`` is named.
    """

    entry: str | None = None
    format: str | None = None
    signature: Path | None = None
    example: Path | None = None
    golden: Path | None = None
    reference: Path | None = None
    evaluation: Path | None = None
    lineage: Path | None = None
    environment: Path | None = None
    own_environment: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    device: str | None = None
    threads: int | None = None
    placement: str | None = None
    interpreter: str | None = None
    max_rows: int | None = None
    queue_rows: int | None = None
    hang_floor_ms: int | None = None
    precision: str | None = None
    compile: bool = False
    cuda_graphs: bool = False
    retry: bool = True
    batched: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    prove: bool = True
    timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Permissions:
    """What the settings allow and assume: models by name, where versions run unless they say, how other systems are
    reached, and where environments are built (None: nowhere)."""

    allow_pickle: Collection[str] = ()
    allow_inline: Collection[str] = ()
    default_device: str = "auto"
    default_threads: int = 1
    limits: SourceLimits = field(default_factory=SourceLimits)
    access: SourceAccess = field(default_factory=SourceAccess)
    environments: Environments | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """``imported``: for a version of another system, who it is there, under which alias it was asked for, and the
    digest of its files as they came. ``remarks`` of the source are for the operator."""

    manifest: Manifest
    imported: Mapping[str, Any] | None = None
    remarks: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


def prepare(
    model: str,
    source: str | Path,
    options: RegistrationOptions,
    blobs: BlobStore,
    progress: Progress | None = None,
    *,
    permissions: Permissions | None = None,
) -> Manifest:
    """The manifest that ``prepare_version`` gives."""
    return prepare_version(model, source, options, blobs, progress, permissions=permissions).manifest


def prepare_version(
    model: str,
    source: str | Path,
    options: RegistrationOptions,
    blobs: BlobStore,
    progress: Progress | None = None,
    *,
    permissions: Permissions | None = None,
    told: Told | None = None,
) -> Prepared:
    """Stores everything and gives the manifest, itself stored under its digest. Blocks: for a thread of its own.

    Hold ``blobs.registering()`` around this and the write that refers to the digest, so that gc keeps away.
    InvalidRegistration says what is not taken and what to do; RegistryError, that it cannot be stored or, as
    SourceUnavailable, not be fetched. ``told`` hears what is being done of the environment.
    """
    allowed = permissions or Permissions()
    with refusing():
        check_model_name(model)
    places = {"entry": options.entry, "format_name": options.format, "limits": allowed.limits}
    access = allowed.access if allowed.access.folder is not None else replace(allowed.access, folder=blobs.root)
    with opened(source, **places, access=access, progress=progress) as found, blobs.registering():  # type: ignore[arg-type]
        accepted = _accepted(model, found, options, allowed)
        files = _store_files(found, blobs, progress)
        spec = _load_spec(accepted, files, blobs, allowed)
        environment, interpreter = _environment(accepted, options, allowed, blobs, told)
        tried = try_version(
            spec,
            Inspector(interpreter, options.timeout_s),
            example=accepted.attached.example,
            batched=options.batched,
            prove=options.prove,
        )
        profile = _profile(options, spec, tried.signature, blobs, interpreter)
        manifest = _manifest(accepted, files, tried, options, blobs)
        manifest = replace(manifest, profile=profile, environment=environment)
        blobs.put_bytes(manifest.canonical())
    return _prepared(manifest, found.provenance)


def _prepared(manifest: Manifest, provenance: Provenance | None) -> Prepared:
    if provenance is None:
        return Prepared(manifest)
    foreign = [file.to_json() for file in manifest.files if file.name not in provenance.added]
    imported = {**provenance.facts(), "files": canonical.digest_of(canonical.dumps(foreign))}
    return Prepared(manifest, imported, provenance.remarks, provenance.tags)


@dataclass(frozen=True, slots=True)
class _Accepted:
    """All that could be refused before a byte was stored."""

    model: str
    source: Source
    attached: Attachments
    plan: RuntimePlan


def _accepted(model: str, found: Source, options: RegistrationOptions, allowed: Permissions) -> _Accepted:
    provenance = found.provenance
    with refusing():
        plan = RuntimePlan(
            device=options.device,
            threads=options.threads,
            placement=options.placement or "process",
            interpreter=options.interpreter,
            max_rows=options.max_rows,
            queue_rows=options.queue_rows,
            hang_floor_ms=options.hang_floor_ms,
            precision=options.precision,
            compile=options.compile,
            cuda_graphs=options.cuda_graphs,
            options=options.options if provenance is None else {**provenance.options, **options.options},
        )
        accepted = _Accepted(model, found, _attached(options, provenance), plan)
    _check_trust(accepted, allowed)
    return accepted


def _attached(options: RegistrationOptions, provenance: Provenance | None) -> Attachments:
    """What the operator gives, and for the rest what the source says."""
    golden = None if options.golden is None else read_golden(options.golden)
    lineage, recorded = (Lineage(), ()) if options.lineage is None else read_recorded(options.lineage)
    given = Attachments(
        signature=None if options.signature is None else read_signature(options.signature),
        example=golden if options.example is None else Example.of_file(options.example),
        lineage=lineage,
        evaluation=recorded if options.evaluation is None else read_evaluation(options.evaluation),
    )
    return given if provenance is None else _completed(given, provenance)


def _completed(given: Attachments, provenance: Provenance) -> Attachments:
    said = {**provenance.lineage, "source": provenance.identity}
    known = {place: value for place, value in given.lineage.to_json().items() if value is not None}
    return Attachments(
        signature=given.signature or provenance.signature,
        example=given.example or (None if provenance.example is None else Example.of_file(provenance.example)),
        lineage=Lineage(**{**said, **known}),
        evaluation=given.evaluation or provenance.evaluation,
    )


def _check_trust(accepted: _Accepted, allowed: Permissions) -> None:
    model, source = accepted.model, accepted.source
    pickled = source.format == "sklearn" and not source.entry.endswith(".skops")
    pickled = pickled or (source.provenance is not None and source.provenance.pickled)
    if pickled and model not in allowed.allow_pickle:
        raise InvalidRegistration(
            f"{source.entry} is a pickle, or loads one. Loading a pickle runs whatever code its author put in, with "
            f"all rights of the runtime's process: it can read, change and send anything that Turnout's user can. Save "
            f"the model with skops.io.dump instead; or, if you trust everyone who could have written this file, name "
            f"model {model!r} under runtimes.allow_pickle in the settings"
        )
    if accepted.plan.placement == "inline" and model not in allowed.allow_inline:
        raise InvalidRegistration(
            f"placement inline runs the version inside the gateway, where it could take it down: name model {model!r} "
            f"under runtimes.allow_inline in the settings, or use placement process"
        )


def _load_spec(accepted: _Accepted, files: tuple[FileEntry, ...], blobs: BlobStore, allowed: Permissions) -> LoadSpec:
    return LoadSpec(
        format=accepted.source.format,
        entry=accepted.source.entry,
        files=file_refs(files, blobs),
        signature=accepted.attached.signature,
        device=accepted.plan.device or allowed.default_device,
        threads=accepted.plan.threads or allowed.default_threads,
        allow_pickle=accepted.model in allowed.allow_pickle,
        precision=accepted.plan.precision,
        compiled=accepted.plan.compile,
        options=canonical.thaw(accepted.plan.options),
    )


def _environment(
    accepted: _Accepted,
    options: RegistrationOptions,
    allowed: Permissions,
    blobs: BlobStore,
    told: Told | None,
) -> tuple[BlobRef | None, str | None]:
    """The lock file, kept, and the interpreter that the version is tried in: the environment's, which is built here."""
    lock = options.environment
    if lock is None and options.own_environment and options.interpreter is None:
        lock = None if accepted.source.provenance is None else accepted.source.provenance.environment
    if lock is None:
        return None, options.interpreter
    if options.interpreter is not None or accepted.plan.placement != "process":
        raise InvalidRegistration(
            f"an environment is the packages of a process of its own; it goes with neither interpreter "
            f"({options.interpreter}) nor placement {accepted.plan.placement}: leave out the one or the other"
        )
    if allowed.environments is None:
        raise InvalidRegistration("no environments are built here; register the version where a gateway's home is")
    python = allowed.environments.build(lock, progress=told)
    return _reference(blobs.put_file(lock)), child_python(python)


def _manifest(
    accepted: _Accepted, files: tuple[FileEntry, ...], tried: Tried, options: RegistrationOptions, blobs: BlobStore
) -> Manifest:
    return Manifest(
        model=accepted.model,
        format=accepted.source.format,
        entry=accepted.source.entry,
        files=files,
        signature=tried.signature,
        runtime=accepted.plan,
        effects=Effects(options.retry),
        example=None if tried.example is None else _reference(blobs.put_bytes(tried.example)),
        golden=_keep(options.golden, blobs),
        lineage=accepted.attached.lineage,
        evaluation=accepted.attached.evaluation,
    )


def _store_files(source: Source, blobs: BlobStore, progress: Progress | None) -> tuple[FileEntry, ...]:
    entries: list[FileEntry] = []
    before, total = 0, source.size_bytes
    for file in source.files:
        told: Progress | None = None
        if progress is not None:
            told = _shifted(progress, before, total)
        stored = blobs.put_file(file.path, told)
        entries.append(FileEntry(file.name, stored.sha256, stored.size_bytes))
        before += stored.size_bytes
    return tuple(entries)


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, max(total, before + done))


def _keep(path: Path | None, blobs: BlobStore) -> BlobRef | None:
    return None if path is None else _reference(blobs.put_file(path))


def _reference(stored: Stored) -> BlobRef:
    return BlobRef(stored.sha256, stored.size_bytes)


def _profile(
    options: RegistrationOptions, spec: LoadSpec, signature: Signature, blobs: BlobStore, interpreter: str | None
) -> ProfilePlace | None:
    """The reference data, and what it comes to in bins; a version that is not proved is not asked for its answers."""
    reference = options.reference
    if reference is None:
        return None
    with refusing():
        name = check_file_name(reference.name)
    computed = computed_elsewhere(
        reference,
        signature,
        replace(spec, signature=signature) if options.prove else None,
        interpreter=interpreter,
        timeout_s=options.timeout_s,
    )
    kept = _reference(blobs.put_file(reference))
    return ProfilePlace(kept, name, _reference(blobs.put_bytes(computed)))
