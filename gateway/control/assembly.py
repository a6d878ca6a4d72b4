"""From a version's manifest and the settings to what serving runs."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

from gateway.errors import IntegrityError, LoadError, RegistryError
from gateway.messages import VersionRef
from gateway.registry.blobs import BlobStore
from gateway.registry.environments import Environments
from gateway.registry.loading import file_refs, interpreter_of, read_manifest, version_pieces
from gateway.registry.manifest import Manifest
from gateway.serving.counts import CountingPlan
from gateway.serving.engine import BatchPolicy, VersionSpec
from gateway.serving.warmup import grid
from gateway.settings import ModelPlacement, RuntimeSettings
from runtimes.base import FileRef
from runtimes.counting import BUSY_SHARE

__all__ = ["Assembly"]

FETCHED_AT_ONCE = 16
"""Versions whose files are fetched, or environments built again, at once. In threads of their own, which last as long
as the assembly: it may take minutes, and the few that everybody shares are what the store and large bodies need."""


class Assembly:
    """Reads manifests out of the blob store. ``allow_pickle`` and ``allow_inline`` of the settings name models.
    ``environments``: where packages of versions are; None where no version has any of its own. ``counted``: rows are
    counted with the profile that a version has, which costs microseconds each, for ``busy_share`` of the time while
    the processor is wanted elsewhere."""

    def __init__(
        self,
        blobs: BlobStore,
        runtimes: RuntimeSettings,
        environments: Environments | None = None,
        *,
        counted: bool = True,
        busy_share: float = BUSY_SHARE,
    ) -> None:
        self._blobs = blobs
        self._runtimes = runtimes
        self._environments = environments
        self._counted = counted
        self._busy_share = busy_share
        self._threads = ThreadPoolExecutor(FETCHED_AT_ONCE, thread_name_prefix="turnout-files")
        self._fetching: dict[tuple[VersionRef, str], Future[tuple[FileRef, ...]]] = {}

    def __repr__(self) -> str:
        return f"<Assembly of {self._blobs!r}>"

    def spec(self, ref: VersionRef, digest: str) -> VersionSpec:
        """Blocks on the disk, and while an environment is built that is not here. Raises IntegrityError, RegistryError,
        or LoadError for a placement not allowed."""
        settings = self._runtimes
        manifest = read_manifest(digest, self._blobs)
        pieces = version_pieces(
            manifest,
            self._blobs,
            environments=self._environments,
            allow_pickle=settings.allow_pickle,
            default_device=settings.device,
            default_threads=settings.threads,
        )
        if pieces.placement == "inline" and ref.model not in settings.allow_inline:
            raise LoadError(
                f"{ref} wants to run inside the gateway (placement inline), where it could take it down: "
                f"name model {ref.model!r} under runtimes.allow_inline, or register it with placement process"
            )
        most = pieces.max_rows or settings.max_rows
        batch = BatchPolicy(
            max_rows=most,
            queue_rows=pieces.queue_rows or settings.queue_rows,
            hang_floor_ms=pieces.hang_floor_ms or settings.hang_floor_ms,
        )
        own = settings.models.get(ref.model, ModelPlacement())
        load = replace(
            pieces.load,
            graph_rows=grid(most) if pieces.cuda_graphs else (),
            memory_limit_bytes=settings.device_memory_bytes,
        )
        return VersionSpec(
            ref=ref,
            digest=digest,
            load=load,
            placement=pieces.placement,
            interpreter=pieces.interpreter,
            batch=batch,
            retry=pieces.retry,
            example=pieces.example,
            load_timeout_s=settings.load_timeout_s,
            instances=own.instances or settings.instances,
            devices=settings.devices if own.devices is None else own.devices,
            profile=CountingPlan(*pieces.profile) if pieces.profile is not None and self._counted else None,
            busy_share=self._busy_share,
            files=None
            if self._blobs.lasting and manifest.environment is None
            else partial(self._fetched, ref, digest, manifest),
        )

    async def _fetched(self, ref: VersionRef, digest: str, manifest: Manifest) -> tuple[FileRef, ...]:
        """Whoever asks while it is under way waits for the same: a start that gave up waiting is tried again, and must
        not take one more thread each time."""
        running = self._fetching.get((ref, digest))
        if running is None or running.done():
            running = self._fetching[ref, digest] = self._threads.submit(self._files, ref, manifest)
        try:
            return await asyncio.shield(asyncio.wrap_future(running))
        finally:
            if running.done():
                self._fetching.pop((ref, digest), None)

    def _files(self, ref: VersionRef, manifest: Manifest) -> tuple[FileRef, ...]:
        """At each start of a child, one after a crash too: files that a cache let go of are fetched, and an environment
        that is no longer whole is built again, in the place that it had."""
        try:
            interpreter_of(manifest, self._blobs, self._environments)
            return file_refs(manifest.files, self._blobs)
        except IntegrityError:
            raise
        except RegistryError as error:
            raise LoadError(f"{ref} cannot be loaded again now: {error}") from error
