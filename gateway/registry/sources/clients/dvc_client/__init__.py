"""The client of Git repositories with DVC: files of one exact commit, each checked against the hash that it holds.

DVC trusts what lies in its cache and takes a remote at its word, so every import has a cache of its own that starts
empty, and what was downloaded is hashed here again.

place      what a name says
commits    the commit that it stands for
tree       the files of the commit, whether Git or DVC keeps them
lineage    what stages say of them
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dvc.exceptions
import dvc.scm
from fsspec.callbacks import Callback

from . import commits
from .lineage import lineage_of
from .place import Place, parse
from .tree import Tree

Told = Callable[[int, int], None]


def fetch(request: dict[str, Any], told: Told) -> dict[str, Any]:
    """Downloads the file or folder of the one commit into ``folder/files``."""
    folder = Path(request["folder"])
    with _tree(request, folder / "scratch") as tree:
        files = tree.files()
        tree.refuse_changed(files)
        total = tree.size(files)
        _check_limits(len(files), total, request["limits"])
        progress = _Progress(told, total)
        for file in files:
            tree.download(file, folder / "files", progress)
        return {**_identified(tree), **lineage_of(tree), "tags": _tags(tree)}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="turnout-dvc-") as scratch, _tree(request, Path(scratch)) as tree:
        return _identified(tree)


@contextmanager
def _tree(request: dict[str, Any], scratch: Path) -> Iterator[Tree]:
    place = parse(request["place"])
    checkout = commits.opened(place, scratch, request.get("directories"))
    try:
        with Tree.opened(place, checkout, scratch) as tree:
            yield tree
    except (dvc.exceptions.DvcException, dvc.scm.SCMError) as error:
        raise ValueError(f"DVC says: {_said(error)}") from error


def _said(error: BaseException) -> str:
    cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
    return f"{error}{cause}"


def _identified(tree: Tree) -> dict[str, Any]:
    digest, algorithm = tree.digest()
    identity = {
        "name": _name(tree.place, tree.checkout),
        "version": tree.checkout.version or tree.checkout.commit,
        "digest": digest,
        "algorithm": algorithm,
        "url": tree.checkout.address,
    }
    return {"identity": identity, "alias": tree.checkout.alias}


def _name(place: Place, checkout: commits.Checkout) -> str:
    return f"{checkout.address}:{place.name or place.path}"


def _tags(tree: Tree) -> dict[str, str]:
    tags = {"dvc.commit": tree.checkout.commit, "dvc.path": tree.path}
    return {name: value for name, value in tags.items() if len(value) <= 512}


def _check_limits(count: int, total: int, limits: dict[str, int]) -> None:
    if count > limits["files"] or total > limits["bytes"]:
        raise ValueError(
            f"it has {count} files of {total} bytes; at most {limits['files']} files of {limits['bytes']} bytes "
            "are taken for one version"
        )


class _Progress(Callback):  # type: ignore[misc]  # fsspec has no types
    """Bytes over all files, told to whoever waits, at most once for each hundredth."""

    def __init__(self, told: Told, total: int) -> None:
        super().__init__(size=total)
        self._told = told
        self._total = total
        self._said = 0

    def relative_update(self, inc: int = 1) -> None:
        super().relative_update(inc)
        if self.value - self._said >= max(1, self._total // 100):
            self._said = self.value
            self._told(min(self.value, self._total), self._total)
