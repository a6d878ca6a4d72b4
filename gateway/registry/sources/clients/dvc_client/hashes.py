"""Hashes computed here, over bytes that are here: DVC's of a file, DVC's of a folder, and Git's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree as Listing
from dvc_objects.fs.local import LocalFileSystem

ALGORITHMS = ("md5", "md5-dos2unix")
"""The second is DVC's before version 3: of text, with line ends as Unix has them."""


def hash_of(path: Path, algorithm: str) -> str:
    if algorithm == "git":
        return _git_id(path)
    here = LocalFileSystem()  # type: ignore[no-untyped-call]
    return str(file_md5(str(path), here, name=algorithm))


def hash_of_listing(rows: Iterable[tuple[str, str]], algorithm: str) -> str:
    """Of a folder: over the names in it and their hashes, as DVC lists them."""
    listing = Listing()  # type: ignore[no-untyped-call]
    for name, digest in rows:
        listing.add(tuple(name.split("/")), None, HashInfo(algorithm, digest))
    listing.digest(name=algorithm)
    return str(listing.oid)


def _git_id(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
