"""Manifests for tests, small and real: their files are in the store."""

from __future__ import annotations

from gateway.messages import Signature, TensorSpec
from gateway.registry.blobs import BlobStore
from gateway.registry.manifest import BlobRef, FileEntry, Manifest

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", ("batch", 4)),),
    (TensorSpec("y", "FP32", ("batch", 4)),),
)


def stored_manifest(blobs: BlobStore, content: bytes = b'{"delay_ms": 0}', model: str = "digits") -> Manifest:
    """An echo version with one file and an example, all of it stored."""
    file = blobs.put_bytes(content)
    example = blobs.put_bytes(b'{"inputs":[{"data":[1,2,3,4],"datatype":"FP32","name":"x","shape":[1,4]}]}')
    manifest = Manifest(
        model=model,
        format="echo",
        entry="script.echo.json",
        files=(FileEntry("script.echo.json", file.sha256, file.size_bytes),),
        signature=SIGNATURE,
        example=BlobRef(example.sha256, example.size_bytes),
    )
    blobs.put_bytes(manifest.canonical())
    return manifest
