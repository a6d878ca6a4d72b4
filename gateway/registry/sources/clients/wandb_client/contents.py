"""What is in an artifact: a manifest, whose digest is the artifact's, and files, each with a digest of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import wandb
from wandb.sdk.lib.hashutil import md5_file_b64, xxh128_file_b64

Told = Callable[[int, int], None]

_XXH128 = "MANIFEST_XXH128"
_SHOWN = 5


@dataclass(frozen=True)
class Contents:
    artifact: wandb.Artifact
    entries: tuple[Any, ...]

    @classmethod
    def of(cls, artifact: wandb.Artifact) -> Contents:
        """ValueError where the manifest is not the one that the artifact's digest is of."""
        promised = artifact.digest  # the server's; once the manifest is read, the SDK computes it from that
        manifest = artifact.manifest
        if manifest.digest() != promised:
            raise ValueError(
                f"the manifest's digest is {manifest.digest()}, and the artifact's is {promised}: the manifest was "
                "changed or damaged, and nothing of it was taken"
            )
        return cls(artifact, tuple(manifest.entries[name] for name in sorted(manifest.entries)))

    def check(self, limits: dict[str, int]) -> None:
        references = [entry for entry in self.entries if entry.ref is not None]
        if references:
            listed = ", ".join(f"{entry.path} is {entry.ref}" for entry in references[:_SHOWN])
            more = f" and {len(references) - _SHOWN} more" if len(references) > _SHOWN else ""
            raise ValueError(
                f"the artifact holds references ({listed}{more}): W&B keeps neither their bytes nor a digest of them "
                "that can be checked; log the files themselves (artifact.add_file), or register that place itself"
            )
        total = sum(entry.size or 0 for entry in self.entries)
        if not self.entries or len(self.entries) > limits["files"] or total > limits["bytes"]:
            raise ValueError(
                f"the artifact has {len(self.entries)} files of {total} bytes; 1 to {limits['files']} files of at most "
                f"{limits['bytes']} bytes are taken for one version"
            )

    def download(self, folder: Path, told: Told) -> None:
        """All files; ValueError where one is not what the manifest says."""
        total = sum(entry.size or 0 for entry in self.entries)
        self.artifact.download(root=str(folder), skip_cache=True)
        done = 0
        for entry in self.entries:
            path = folder / entry.path
            if not path.is_file():
                raise LookupError(f"{entry.path}: the manifest names it, and the server does not have it")
            self._check(entry, path)
            done += path.stat().st_size
            told(done, max(done, total))

    def _check(self, entry: Any, path: Path) -> None:
        fast = str(entry.digest_algorithm().value) == _XXH128
        found = xxh128_file_b64(path) if fast else md5_file_b64(path)
        if found != entry.digest or (entry.size is not None and path.stat().st_size != entry.size):
            raise ValueError(
                f"{entry.path}: the file's {'XXH128' if fast else 'MD5'} is {found}, and the manifest says "
                f"{entry.digest}: it was changed or damaged, and nothing of it was taken"
            )


def algorithm_of(artifact: wandb.Artifact) -> str:
    return "xxh128" if str(artifact.digest_algorithm.value) == _XXH128 else "md5"


def page_of(artifact: wandb.Artifact) -> str:
    """Where people look at it. The SDK's own ``url`` asks the server once more for each."""
    where = f"{artifact.source_entity}/{artifact.source_project}/artifacts/{quote(artifact.type)}"
    collection, _, version = artifact.source_name.partition(":")
    return f"{wandb.setup().settings.app_url.rstrip('/')}/{where}/{quote(collection)}/{version}"
