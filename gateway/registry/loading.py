"""From a manifest to what serving needs: plain pieces, with no serving type in them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from gateway.messages import Arrays
from gateway.registry import canonical
from gateway.registry.blobs import BlobStore
from gateway.registry.environments import EnvironmentRefused, Environments, Told, child_python
from gateway.registry.examples import from_canonical
from gateway.registry.manifest import FileEntry, Manifest
from gateway.registry.profile_reading import plan_of
from runtimes.base import FileRef, LoadSpec

__all__ = ["VersionPieces", "file_refs", "interpreter_of", "load_spec", "read_manifest", "version_pieces"]


@dataclass(frozen=True, slots=True)
class VersionPieces:
    """All that a version's manifest says about running it; None where the settings decide.

    ``profile``: digest and JSON of what its traffic is counted with, where reference data has been profiled.
    """

    digest: str
    load: LoadSpec
    placement: str
    interpreter: str | None
    max_rows: int | None
    queue_rows: int | None
    hang_floor_ms: int | None
    cuda_graphs: bool
    retry: bool
    example: Arrays | None
    profile: tuple[str, str] | None = None


def read_manifest(digest: str, blobs: BlobStore) -> Manifest:
    """The stored manifest. IntegrityError when its bytes are missing or altered, RegistryError when they are none."""
    return Manifest.from_bytes(blobs.read(digest))


def file_refs(files: Iterable[FileEntry], blobs: BlobStore) -> tuple[FileRef, ...]:
    """Where the files of a version lie in the store, or in its cache, fetched if they are not there."""
    return tuple(
        FileRef(file.name, str(blobs.path(file.digest).absolute()), file.sha256, file.size_bytes) for file in files
    )


def load_spec(
    manifest: Manifest,
    blobs: BlobStore,
    *,
    allow_pickle: Collection[str],
    default_device: str = "auto",
    default_threads: int = 1,
) -> LoadSpec:
    """What a child needs to load the version. ``allow_pickle`` holds the models that settings name.

    The files are not read here: the child hashes the very bytes that it loads.
    """
    return LoadSpec(
        format=manifest.format,
        entry=manifest.entry,
        files=file_refs(manifest.files, blobs),
        signature=manifest.signature,
        device=manifest.runtime.device or default_device,
        threads=manifest.runtime.threads or default_threads,
        allow_pickle=manifest.model in allow_pickle,
        precision=manifest.runtime.precision,
        compiled=manifest.runtime.compile,
        options=canonical.thaw(manifest.runtime.options),
    )


def interpreter_of(
    manifest: Manifest, blobs: BlobStore, environments: Environments | None, *, told: Told | None = None
) -> str | None:
    """What the version's process is started with: the Python of its environment, which is built where it is not here
    (minutes, perhaps), or the one that it names; None is the gateway's own.

    EnvironmentRefused when the environment cannot be built; IntegrityError when the lock file is missing or altered.
    """
    lock = manifest.environment
    if lock is None:
        return manifest.runtime.interpreter
    if environments is None:
        raise EnvironmentRefused(f"{manifest.model} has an environment of its own, and none are built here")
    built = environments.interpreter(lock.digest)
    return child_python(built or environments.build(blobs.read(lock.digest), progress=told))


def version_pieces(
    manifest: Manifest,
    blobs: BlobStore,
    *,
    allow_pickle: Collection[str],
    default_device: str = "auto",
    default_threads: int = 1,
    environments: Environments | None = None,
) -> VersionPieces:
    """See VersionPieces. IntegrityError when the stored example is missing or altered; else as ``interpreter_of``."""
    runtime = manifest.runtime
    computed = None if manifest.profile is None else manifest.profile.computed
    return VersionPieces(
        digest=manifest.digest,
        load=load_spec(
            manifest,
            blobs,
            allow_pickle=allow_pickle,
            default_device=default_device,
            default_threads=default_threads,
        ),
        placement=runtime.placement,
        interpreter=interpreter_of(manifest, blobs, environments),
        max_rows=runtime.max_rows,
        queue_rows=runtime.queue_rows,
        hang_floor_ms=runtime.hang_floor_ms,
        cuda_graphs=runtime.cuda_graphs,
        retry=manifest.effects.retry,
        example=None if manifest.example is None else from_canonical(blobs.read(manifest.example.digest)),
        profile=None if computed is None else (computed.digest, plan_of(blobs.read(computed.digest))),
    )
