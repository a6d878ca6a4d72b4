"""Files that an offered declaration names become stored ones, under their digests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.errors import InvalidRegistration
from gateway.registry.blobs import BlobStore, Progress
from gateway.registry.gates.datasets import DataFile
from gateway.registry.gates.named_files import named_files

__all__ = ["with_stored_files"]


def with_stored_files(
    body: Any, files: Mapping[str, Path], blobs: BlobStore, progress: Callable[[str], Progress] | None = None
) -> Any:
    """The declaration, each of its ``files`` stored. Hold ``blobs.registering()`` until it is declared. Blocks."""
    made = copy.deepcopy(body)
    stored: dict[str, DataFile] = {}
    for one, place in named_files(made):
        name = one["file"]
        if isinstance(name, Mapping):
            continue
        if not isinstance(name, str) or name not in files:
            raise InvalidRegistration(f"{place}: no file {name!r:.100} came with the declaration; send it")
        if name not in stored:
            path = files[name]
            put = blobs.put_file(path, None if progress is None else progress(path.name))
            stored[name] = DataFile(path.name, put.digest, put.size_bytes)
        one["file"] = stored[name].to_json()
    return made
