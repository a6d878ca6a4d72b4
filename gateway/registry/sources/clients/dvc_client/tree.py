"""The files of one commit, whether Git or DVC keeps them, and the hash that the commit holds of each."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.output import Output
from dvc.repo import Repo
from dvc.stage import Stage
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree as Listing
from dvc_objects.fs.local import LocalFileSystem

from .commits import Checkout
from .place import Place

_OF_TOOLS = (".dvc", "dvc.yaml", "dvc.lock", ".dvcignore", ".gitignore", ".gitattributes", ".gitkeep")
_HASHES = ("md5", "md5-dos2unix")


@dataclass(frozen=True)
class Tracked:
    """``name`` is below what was asked for; ``algorithm`` ``git`` is Git's own id of a file that DVC has no part in."""

    name: str
    path: str
    size: int | None
    digest: str
    algorithm: str


@dataclass
class Tree:
    place: Place
    checkout: Checkout
    repo: Repo
    """Opened at the commit: its working tree is never looked at."""
    path: str
    """From the repository's top."""
    project: Repo | None = None
    _blobs: dict[str, str] | None = None

    @classmethod
    @contextmanager
    def opened(cls, place: Place, checkout: Checkout, scratch: Path) -> Iterator[Tree]:
        os.environ["DVC_SITE_CACHE_DIR"] = str(
            scratch / "site"
        )  # it keeps listings of folders there, and believes them

        def within(root: str, fs: Any = None, **more: Any) -> Repo:
            return Repo(root, fs=fs, config=_configuration(checkout, scratch, root), repo_factory=within, **more)

        more = {"rev": checkout.commit, "subrepos": True, "uninitialized": True, "repo_factory": within}
        with Repo(str(checkout.folder), config=_configuration(checkout, scratch, checkout.below), **more) as repo:
            path = place.path if place.path is not None else _declared(repo, place)
            tree = cls(place, checkout, repo, posixpath.normpath(posixpath.join("/", checkout.below, path)).lstrip("/"))
            with tree._project(within) as project:
                tree.project = project
                yield tree

    @contextmanager
    def _project(self, within: Callable[..., Repo]) -> Iterator[Repo]:
        """The DVC project that the path belongs to: a repository may hold several."""
        fs, folder = self.repo.fs, "/" + self.path
        while folder != "/":
            if fs.isdir(posixpath.join(folder, Repo.DVC_DIR)):
                with within(folder, fs=fs, scm=self.repo.scm) as project:
                    yield project
                return
            folder = posixpath.dirname(folder)
        yield self.repo

    def files(self) -> list[Tracked]:
        """All of them, sorted; LookupError where there is nothing at the path."""
        fs = self.repo.dvcfs
        try:
            found = fs.info("/" + self.path)
        except FileNotFoundError:
            raise LookupError(f"commit {self.checkout.commit} has no {self.path}, in Git or under DVC") from None
        if found["type"] != "directory":
            files = [self._tracked(posixpath.basename(self.path), self.path, found)]
        else:
            files = sorted(self._below(self.path), key=lambda file: file.name)
        for out in self.outs():
            if out.hash_info and out.hash_info.isdir:
                self._check_listing(self.named(out.fs_path), out.hash_info)
        return files

    def index_stages(self) -> list[Stage]:
        return list((self.project or self.repo).index.stages)

    def index_outs(self) -> list[Output]:
        return [out for out in (self.project or self.repo).index.outs if out.protocol == "local"]

    def outs(self) -> list[Output]:
        """DVC's outputs at the path, above it or below it."""
        own = f"/{self.path}/".replace("//", "/")
        near = [(out, f"{out.fs_path}/") for out in self.index_outs()]
        return [out for out, path in near if own.startswith(path) or path.startswith(own)]

    def named(self, path: str) -> str:
        """A path of the commit as it is written from the repository's top."""
        return posixpath.relpath(path, "/").removeprefix("./")

    def _below(self, folder: str) -> Iterator[Tracked]:
        top = "/" + folder
        for root, _, files in self.repo.dvcfs.fs.walk(top, detail=True, dvcfiles=True):
            for name, info in files.items():
                if "fs_info" not in info or not name.endswith(_OF_TOOLS):
                    path = posixpath.join(root, name)
                    yield self._tracked(posixpath.relpath(path, top), path.lstrip("/"), info)

    def _check_listing(self, folder: str, known: HashInfo) -> None:
        """A folder's hash is of its listing, which a remote keeps as a file like any other."""
        listing = Listing()  # type: ignore[no-untyped-call]
        for file in self._below(folder):
            listing.add(tuple(file.name.split("/")), None, HashInfo(file.algorithm, file.digest))
        listing.digest(name=known.name or "md5")
        if listing.oid != known.value:
            raise ValueError(
                f"{folder}: the remote's listing of the folder has {known.name} {listing.oid}, and commit "
                f"{self.checkout.commit} says {known.value}: it was changed or damaged there, and nothing of it was "
                "taken"
            )

    def _tracked(self, name: str, path: str, info: dict[str, Any]) -> Tracked:
        if "fs_info" in info:
            return self._of_git(name, path, info)
        entry = info["dvc_info"]["entry"]
        known = entry.hash_info
        if known is None or known.name not in _HASHES or not known.value:
            raise ValueError(
                f"{path}: commit {self.checkout.commit} holds no MD5 of it, so nobody can tell whether its bytes are "
                "the right ones; add it with `dvc add` and commit that"
            )
        return Tracked(name, path, entry.meta.size if entry.meta else None, known.value, known.name)

    def _of_git(self, name: str, path: str, info: dict[str, Any]) -> Tracked:
        if self._blobs is None:
            self._blobs = self.checkout.blobs(self.path)
        if path not in self._blobs:
            raise ValueError(f"{path} is a symbolic link or a submodule; only files can be registered")
        return Tracked(name, path, info["size"], self._blobs[path], "git")

    def digest(self) -> tuple[str, str]:
        """Of what was asked for: DVC's hash of the file or folder; else one over names and hashes of what is in it."""
        fs = self.repo.dvcfs
        try:
            info = fs.info("/" + self.path)
        except FileNotFoundError:
            raise LookupError(f"commit {self.checkout.commit} has no {self.path}, in Git or under DVC") from None
        known = info.get("dvc_info", {}).get("entry")
        if known is not None and known.hash_info and "fs_info" not in info:
            return known.hash_info.value, known.hash_info.name
        files = self.files()
        if info["type"] != "directory":
            return files[0].digest, files[0].algorithm
        listed = "".join(f"{file.name}\0{file.algorithm}:{file.digest}\n" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest(), "sha256-of-listing"

    def refuse_changed(self, files: list[Tracked]) -> None:
        """A file of DVC's that was made again and not added: Git does not see it."""
        if not self.checkout.looked_at:
            return
        for file in files:
            here = self.checkout.folder / file.path
            if file.algorithm == "git" or not here.is_file():
                continue
            resized = file.size is not None and here.stat().st_size != file.size
            if resized or _md5(here, file.algorithm) != file.digest:
                raise ValueError(
                    f"{here} is not what the commit says ({file.algorithm} {file.digest}): `dvc add` or `dvc commit` "
                    f"it and commit that, or name the commit: dvc:{self.place.repository}@HEAD:{self.place.path}"
                )

    def size(self, files: list[Tracked]) -> int:
        """In bytes. DVC knows the size of a folder, and of none of the files in it."""
        known = sum(file.size or 0 for file in files)
        return max(known, sum(out.meta.size or 0 for out in self.outs() if out.meta))

    def download(self, file: Tracked, folder: Path, progress: Any) -> None:
        """Into ``folder``, and hashed there. ValueError where the bytes are not those that the commit means."""
        target = folder / file.name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{file.name!r} leads out of the folder it belongs to")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.repo.dvcfs.get_file("/" + file.path, str(target), callback=progress)
        except FileNotFoundError as error:
            raise LookupError(
                f"{file.path}: commit {self.checkout.commit} names {file.algorithm} {file.digest}, and no remote of "
                "the repository has it; run `dvc push` where it was made"
            ) from error
        self._check(file, target)

    def _check(self, file: Tracked, target: Path) -> None:
        found = _git_id(target) if file.algorithm == "git" else _md5(target, file.algorithm)
        if found != file.digest:
            raise ValueError(
                f"{file.path}: the remote's file has {file.algorithm} {found}, and commit {self.checkout.commit} says "
                f"{file.digest}: it was changed or damaged there, and nothing of it was taken"
            )


def _declared(repo: Repo, place: Place) -> str:
    """The path that ``dvc.yaml`` of the commit gives to an artifact."""
    try:
        return str(repo.artifacts.get_path(place.name))
    except Exception as error:  # DVC's own, and YAML's
        raise LookupError(
            f"dvc.yaml has no artifact {place.name!r} at the commit of {place.shortcut} ({error}); declare it under "
            "artifacts: with its path, or name the file: dvc:REPO@REV:PATH"
        ) from error


def _configuration(checkout: Checkout, scratch: Path, root: str) -> dict[str, Any]:
    """An empty cache, copies instead of links, and remotes of a repository here as its own folder writes them."""
    own = {"cache": {"dir": str(scratch / "cache"), "type": "copy"}}
    dvc_folder = checkout.folder / root.lstrip("/") / Repo.DVC_DIR
    if not dvc_folder.is_dir():
        return own
    known = Config(str(dvc_folder), local_dvc_dir=str(dvc_folder))
    if known["core"].get("remote"):
        return {**own, "remote": dict(known["remote"])}
    place = known["cache"].get("dir") or str(dvc_folder / "cache")  # never pushed: what DVC itself would look in
    return {**own, "core": {"remote": "own-cache"}, "remote": {"own-cache": {"url": place}}}


def _md5(path: Path, algorithm: str) -> str:
    here = LocalFileSystem()  # type: ignore[no-untyped-call]
    return str(file_md5(str(path), here, name=algorithm))


def _git_id(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()
