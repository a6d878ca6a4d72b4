"""The client of Git repositories with DVC: files of one exact commit, each checked against the hash that it holds.

DVC trusts what lies in its cache and takes a remote at its word, so every import has a cache of its own that starts
empty, and what was downloaded is hashed here again.

place      what a name says
commits    the commit that it stands for
tree       the files of the commit, whether Git or DVC keeps them
hashes     computed here, over bytes that are here
lineage    what stages say of them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec.callbacks import Callback

from . import commits
from .lineage import lineage_of
from .place import Place, parse
from .tree import Tree

Told = Callable[[int, int], None]


_OF_REMOTES = ("botocore", "aiobotocore", "aiohttp", "google", "azure", "paramiko", "asyncssh")
"""Packages whose own errors come through: none of them is installed for certain."""


def fetch(request: dict[str, Any], told: Told) -> dict[str, Any]:
    """Downloads the file or folder of the one commit into ``folder/files``."""
    folder = Path(request["folder"])
    with _tree(request, folder / "scratch") as tree:
        files = tree.files()
        tree.refuse_changed(files)
        total = tree.size(files)
        _check_limits(len(files), total, request["limits"])
        progress = _Progress(told, total)
        tree.check_listings([tree.download(file, folder / "files", progress) for file in files], final=True)
        return {**_identified(tree), **lineage_of(tree), "tags": _tags(tree)}


def resolve(request: dict[str, Any]) -> dict[str, Any]:
    with _tree(request, Path(request["folder"]) / "scratch") as tree:
        return _identified(tree)


@contextmanager
def _tree(request: dict[str, Any], scratch: Path) -> Iterator[Tree]:
    place = parse(request["place"])
    checkout = commits.opened(place, scratch, request.get("directories"))
    try:
        with Tree.opened(place, checkout, scratch) as tree:
            yield tree
    except Exception as error:  # DVC's and its remotes' own errors, of which each remote has its kind
        known = _in_words(error)
        if known is error:
            raise
        raise known from error


def _in_words(error: Exception) -> Exception:
    """What ``child.py`` understands. DVC wraps what a remote said, so causes are looked at first."""
    causes = list(_causes(error))
    away = next((cause for cause in causes if type(cause).__module__.partition(".")[0] in _OF_REMOTES), None)
    if away is not None and not isinstance(away, PermissionError | FileNotFoundError):
        return ConnectionError(f"the remote does not answer: {away}")
    if isinstance(error, ValueError | LookupError | ConnectionError | TimeoutError | PermissionError):
        return error
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return LookupError(f"no remote of the repository has it ({_said(error)}); run `dvc push` where it was made")
    return ValueError(f"DVC says: {_said(error)}") if _is_dvc(error) else error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_dvc(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] in ("dvc", "dvc_data", "dvc_objects", "scmrepo")


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
